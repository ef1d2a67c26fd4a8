"""The way in for everything that changes something. Every door (REST, CLI, …) maps onto it."""

from __future__ import annotations
