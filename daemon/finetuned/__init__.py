"""The fine-tune daemon's control plane. Kept light on purpose: the runner of every attempt imports it."""

from __future__ import annotations

__version__ = "0.1.0"
