"""What a user of the log plugs in: a state the writer keeps, and tables written with the events."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Generic, Protocol

from typing_extensions import TypeVar

from finetuned_events import codec
from finetuned_events.event import Event, NewEvent
from finetuned_events.upcast import Upcasters

__all__ = ("Decide", "Model", "NoState", "Projection", "Replayed", "State", "Stateless")


class State(Protocol):
    """In-memory state that the writer keeps: the fold of all committed events plus the batch in progress."""

    def apply(self, event: Event) -> None:
        """Fold one event in. Must not look at the clock or anything else that a replay would not see."""
        ...

    def committed(self) -> None:
        """Everything applied is on disk: what can be loaded again from projected rows may be forgotten."""
        ...


S = TypeVar("S", bound=State, default="NoState")
S_co = TypeVar("S_co", bound=State, covariant=True)
S_contra = TypeVar("S_contra", bound=State, contravariant=True)

Decide = Callable[[S], Sequence[NewEvent]]
"""A pure function from the state to the events that should follow; it runs on the writer's thread and may raise."""


class Projection(Protocol[S_contra]):
    """Tables written in the same transaction as the events they fold.

    `schema` is an SQL script that creates `tables` (and their indexes) by unqualified names. Raise `version`
    whenever a replay would give other rows: the tables are then rebuilt when the log is opened. Rows must
    depend on the events alone, not on how these were batched.
    """

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def schema(self) -> str: ...
    @property
    def tables(self) -> tuple[str, ...]: ...

    def write(self, connection: sqlite3.Connection, state: S_contra, events: Sequence[Event]) -> None:
        """Bring the tables from before `events` to after them; `state` has all of them applied.

        Called once a batch inside the transaction: no BEGIN, COMMIT or executescript here.
        """
        ...


class Model(Protocol[S_co]):
    """How the state comes to be."""

    def initial(self, connection: sqlite3.Connection) -> S_co:
        """The state before the first event; `connection` is where its look-ups find projected rows."""
        ...

    def load(self, connection: sqlite3.Connection) -> S_co:
        """The state at the head of the log, from projected rows; called at open and after a failed commit."""
        ...


class NoState:
    """The state of a log that is only a log."""

    __slots__ = ()

    def apply(self, event: Event) -> None:
        """Keep nothing."""

    def committed(self) -> None:
        """Nothing to forget."""


class Stateless:
    """The model of a log that is only a log."""

    def initial(self, connection: sqlite3.Connection) -> NoState:  # noqa: ARG002 - the protocol's
        return NoState()

    def load(self, connection: sqlite3.Connection) -> NoState:  # noqa: ARG002 - the protocol's
        return NoState()


class Replayed(Generic[S]):
    """A model without projections: the state is folded from the whole log whenever it is loaded."""

    def __init__(self, factory: Callable[[], S], upcasters: Upcasters | None = None) -> None:
        self._factory = factory
        self._upcasters = upcasters or Upcasters()

    def initial(self, connection: sqlite3.Connection) -> S:  # noqa: ARG002 - the protocol's
        return self._factory()

    def load(self, connection: sqlite3.Connection) -> S:
        state = self._factory()
        for events in codec.pages(connection, self._upcasters):
            for event in events:
                state.apply(event)
            state.committed()

        return state
