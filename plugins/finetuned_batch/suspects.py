"""Which requests may be what an engine died of: those that were in flight when it did, time and again.

One that was twice is asked alone. If the engine dies then too, and once more, it was that: once somebody else may have killed
it just then. If not, it was another, and it has its answer.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

NAME: Final = "engine_deaths.ndjson"
DEATHS: Final = 2  # with a request in flight, after which it is asked alone
ALONE: Final = 2  # of one that was asked alone, after which it was the request
BESIDE_OTHERS: Final = (
    5  # after which it was the request although somebody else has asked the engine meanwhile
)

Json = Any


class Suspects:
    """Counts the engine's deaths by the keys of the requests that were in flight, also over earlier attempts.

    A loss of power may forget some: a request is asked once more then.
    """

    def __init__(self, before: Iterable[Path], path: Path) -> None:
        self._path = path
        self._deaths: Counter[bytes] = Counter()
        self._alone: Counter[bytes] = Counter()  # of these those with nothing beside them
        for each in before:
            for note in _notes(each):
                self._take(note)

    def __contains__(self, key: bytes) -> bool:
        """Whether a request is to be asked alone."""
        return self._deaths[key] >= DEATHS

    def engine_died(self, keys: Collection[bytes], *, alone: bool = False) -> None:
        """The engine died with these requests in flight; ``alone``: with nothing that anybody asked beside it."""
        self._note({"in_flight": [key.hex() for key in keys], "alone": alone})

    def is_proven(self, key: bytes) -> bool:
        """Whether the engine died so often with a request that nothing else is likely."""
        return self._alone[key] >= ALONE or self._deaths[key] >= BESIDE_OTHERS

    def found(self) -> None:
        """It is known what the engine died of: none of the others."""
        self._note({"found": True})

    def _note(self, note: dict[str, Json]) -> None:
        self._take(note)
        with (
            suppress(OSError),
            self._path.open("a", encoding="utf-8") as file,
        ):  # a later attempt would not know
            file.write(json.dumps(note, separators=(",", ":")) + "\n")

    def _take(self, note: dict[str, Json]) -> None:
        if "found" in note:
            self._deaths.clear()
            self._alone.clear()
            return
        keys = [bytes.fromhex(key) for key in note["in_flight"]]
        self._deaths.update(keys)
        if note.get("alone"):
            self._alone.update(keys)


def of_attempts(attempts: Path) -> list[Path]:
    """The notes below a job's directory of attempts, oldest first."""
    found = [path for path in attempts.glob(f"*/work/{NAME}") if path.parts[-3].isdecimal()]
    return sorted(found, key=lambda path: int(path.parts[-3]))


def _notes(path: Path) -> Iterator[dict[str, Json]]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError):  # a kill may have torn the last
            yield json.loads(line)
