"""The way in for everything that only looks. Every door maps onto it."""

from __future__ import annotations
