"""The machine that the daemon runs on."""

from __future__ import annotations
