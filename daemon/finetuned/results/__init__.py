"""What jobs leave behind: curves, artifacts, and archives of them."""

from __future__ import annotations
