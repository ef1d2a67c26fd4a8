"""Secrets: where values are kept, and where none may stand."""

from __future__ import annotations
