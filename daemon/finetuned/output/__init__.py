"""What attempts printed: its files, its lines, and searches in it."""

from __future__ import annotations
