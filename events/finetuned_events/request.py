"""What callers hand to the writer, and what they hear back."""

from __future__ import annotations

import sqlite3
from asyncio import Future
from collections.abc import Mapping, Sequence
from typing import Generic

from finetuned_events.errors import LogWriteError
from finetuned_events.event import Event, NewEvent
from finetuned_events.projection import Decide, S

__all__ = ("Committed", "Request", "outcome_of", "resolve")


class Request(Generic[S]):
    """One caller's wish, and what became of it."""

    __slots__ = ("cursor", "decide", "expected", "future", "necessary", "new", "outcome")

    def __init__(
        self,
        future: Future[tuple[Event, ...]] | None,
        new: Sequence[NewEvent] = (),
        decide: Decide[S] | None = None,
        expected: Mapping[str, int] | None = None,
        cursor: tuple[str, int] | None = None,
        *,
        necessary: bool = False,
    ) -> None:
        self.future = future
        self.necessary = necessary
        self.new = new
        self.decide = decide
        self.expected = expected
        self.cursor = cursor
        self.outcome: tuple[Event, ...] | BaseException = ()


class Committed:
    """What one transaction added: the events and the bytes of data in each."""

    __slots__ = ("events", "sizes")

    def __init__(self, events: list[Event], sizes: list[int]) -> None:
        self.events = events
        self.sizes = sizes


def outcome_of(error: BaseException) -> BaseException:
    """Return what a future can carry to the caller whose request raised `error`."""
    if isinstance(error, sqlite3.Error):
        failed = LogWriteError(f"The request could not be decided, nothing was written: {error}.")
        failed.__cause__ = error
        return failed

    if isinstance(error, StopIteration) or not isinstance(error, Exception):
        raised = RuntimeError(f"The decision raised {error!r}.")
        raised.__cause__ = error
        return raised

    return error


def resolve(batch: Sequence[Request[S]]) -> None:
    """Tell the callers; one who is gone is passed over."""
    for request in batch:
        future = request.future
        if future is None or future.done():
            continue

        outcome = request.outcome
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
