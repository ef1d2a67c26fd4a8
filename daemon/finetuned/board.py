"""The world as the event loop sees it: the same fold as the writer's, caught up when somebody looks.

The writer's world belongs to the writer's thread. The board folds the same events a moment later on the loop,
so that queries about live jobs, the queue and models need no thread and no SQL.
"""

from __future__ import annotations

import contextlib

from finetuned.domain.world import UnknownJobError, World
from finetuned.store import Log, fill, queries


class Board:
    """The loop's own copy of the world. Always look through :meth:`world`: it catches up first."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._world = World()
        self._seq = -1

    @property
    def newest(self) -> World:
        """The world as it was when somebody looked last."""
        return self._world

    async def world(self) -> World:
        """The world at the log's head or later."""
        while self._seq < self._log.head:
            events = self._log.recent(self._seq) if self._seq >= 0 else None
            if events is None:
                await self._load()
                continue
            for event in events:
                if event.seq > self._seq:
                    # An ended job is not on the board; what happens to it still (deletion) does not matter here.
                    with contextlib.suppress(UnknownJobError):
                        self._world.apply(event)
                    self._seq = event.seq
            self._world.committed()
        return self._world

    async def _load(self) -> None:
        world = World()
        self._seq = fill(world, await self._log.fetch(queries()["select_world"]))
        # Whoever planned for a generation must see that this is another.
        world.generation = self._world.generation + 1
        self._world = world
