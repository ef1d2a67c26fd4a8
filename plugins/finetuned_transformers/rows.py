"""A completion under way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Literal

from finetuned_transformers.decoder import Prompt
from finetuned_transformers.row_sampling import Choice, Drawn

Finish = Literal["stop", "length"]
Event = Drawn | Finish | Exception


@dataclass(slots=True, eq=False)
class Row:
    """A completion under way. Into ``events`` come its tokens and then how it ended: ``Finish``, or the error that ended it.

    ``place`` is its own among those that share the queue. A token of ``stop_ids`` ends it and is no event. Of rows that wait
    those of higher ``priority`` go first.
    """

    prompt: Prompt
    choice: Choice
    stop_ids: frozenset[int]
    events: asyncio.Queue[tuple[int, Event]]
    place: int = 0
    priority: int = 0
    arrival: int = 0  # its number among all that have come; 0 before
    ended: bool = False  # set by either side: it takes no more time
    prepared: int = 0  # tokens of its prompt that were computed before it joined
    tokens: list[int] = field(default_factory=list)  # what it has said

    @property
    def generated(self) -> int:
        """How many tokens it has said."""
        return len(self.tokens)

    @property
    def length(self) -> int:
        """Its tokens, those of its prompt included."""
        return len(self.prompt.ids) + self.generated

    @property
    def left(self) -> int:
        """Tokens that it may still have."""
        return self.prompt.limit - self.length

    @property
    def so_far(self) -> Prompt:
        """What it joins with: one that had to leave goes on after what it has said."""
        return replace(self.prompt, ids=[*self.prompt.ids, *self.tokens]) if self.tokens else self.prompt
