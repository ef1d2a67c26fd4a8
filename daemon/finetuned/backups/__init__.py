"""Copies of a state directory: the log, what runs, and of files what is asked for, with a manifest that can be checked."""

from __future__ import annotations
