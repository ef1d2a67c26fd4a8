"""Which requests may be what an engine died of: those that were in flight when it did, time and again.

One that was twice is asked alone. If the engine dies then too, it was that; if not, it was another, and it has its answer.
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
        for each in before:
            for note in _notes(each):
                self._take(note)

    def __contains__(self, key: bytes) -> bool:
        """Whether a request is to be asked alone."""
        return self._deaths[key] >= DEATHS

    def engine_died(self, keys: Collection[bytes]) -> None:
        """The engine died with these requests in flight."""
        self._note({"in_flight": [key.hex() for key in keys]})

    def is_proven(self, key: bytes) -> bool:
        """Whether the engine died so often with a request that nothing else is likely, whoever asked it meanwhile."""
        return self._deaths[key] >= BESIDE_OTHERS

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
        else:
            self._deaths.update(bytes.fromhex(key) for key in note["in_flight"])


def of_attempts(attempts: Path) -> list[Path]:
    """The notes below a job's directory of attempts, oldest first."""
    found = [path for path in attempts.glob(f"*/work/{NAME}") if path.parts[-3].isdecimal()]
    return sorted(found, key=lambda path: int(path.parts[-3]))


def _notes(path: Path) -> Iterator[dict[str, Json]]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError):  # a kill may have torn the last
            yield json.loads(line)
