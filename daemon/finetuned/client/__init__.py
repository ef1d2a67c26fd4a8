"""The client of the daemon's API: ``Client``, typed and async, over its socket or a URL."""

from __future__ import annotations

from finetuned.client.client import Client

__all__ = ("Client",)
