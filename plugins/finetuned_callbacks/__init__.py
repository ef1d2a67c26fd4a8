"""Callbacks that a job may list: ``validation``, ``tracker`` and ``checkpoint``."""

from __future__ import annotations
