"""The client of the daemon's API, typed, over its socket or a URL: ``Client`` is async, ``SyncClient`` is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetuned.client.client import Client

if TYPE_CHECKING:
    from finetuned.client.blocking import SyncClient

__all__ = ("Client", "SyncClient")


def __getattr__(name: str) -> object:
    """``SyncClient``, imported when it is asked for: the command line does without."""
    if name != "SyncClient":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from finetuned.client.blocking import SyncClient  # noqa: PLC0415 - see above

    return SyncClient
