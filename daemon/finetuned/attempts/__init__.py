"""Attempts: how work runs. Nothing is imported here, so that the runner starts in milliseconds."""

from __future__ import annotations
