"""The reference model's log-probabilities of the pairs: worked out once, and kept by what they were worked out from.

A file is named by a hash of the model's bytes, the way it was loaded and the token ids, so that what is found is what
would be worked out again: by another run with the same pairs, and by a run that goes on, whose model is trained by then.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import datasets
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

KEPT_BYTES = 1 << 30  # of all files together; 8 bytes a pair
ABANDONED_S = 3600.0  # what was being written so long ago belongs to a process that was killed
BATCH_ROWS = 1024
COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")


class ReferenceScores:
    """Sums of log-probabilities, float32 [pairs, 2] (chosen, rejected), in files of one directory.

    ``made_from`` says what decides them beside the pairs: the hashes of the model's files, and settings.
    """

    def __init__(
        self, directory: Path, made_from: Mapping[str, object], *, kept_bytes: int = KEPT_BYTES
    ) -> None:
        self._directory = directory
        self._made_from = dict(made_from)
        self._kept_bytes = kept_bytes

    def key(self, pairs: datasets.Dataset) -> str:
        """The hash of what decides the scores of these pairs, in their order."""
        digest = hashlib.sha256(repr(sorted(self._made_from.items())).encode())
        for batch in pairs.select_columns(list(COLUMNS)).iter(BATCH_ROWS):
            for row in zip(*(batch[name] for name in COLUMNS), strict=True):
                for ids in row:
                    digest.update(len(ids).to_bytes(8, "little"))
                    digest.update(np.asarray(ids, dtype=np.int64).tobytes())
        return digest.hexdigest()

    def load(self, key: str, pairs: int) -> NDArray[np.float32] | None:
        """The scores, or ``None`` if they are not there whole."""
        path = self._path(key)
        try:
            found: NDArray[np.float32] = np.load(path, allow_pickle=False)
            os.utime(path)  # it was used
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            logger.warning("%s cannot be read (%s); the reference is asked again", path, error)
            return None
        return found if found.shape == (pairs, 2) and found.dtype == np.float32 else None

    def store(self, key: str, scores: NDArray[np.float32]) -> None:
        """Keep the scores, whole or not at all; the least recently used of others make room. A full disk keeps nothing."""
        path = self._path(key)
        written = path.with_suffix(f".writing-{os.getpid()}")
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with written.open("wb") as file:
                np.save(file, scores)
                file.flush()
                os.fsync(file.fileno())
            written.replace(path)
            self._shrink(path)
        except OSError as error:
            logger.warning("the reference's scores are not kept: %s", error)
            written.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}.npy"

    def _shrink(self, newest: Path) -> None:
        for path in self._directory.glob("*.writing-*"):
            if time.time() - path.stat().st_mtime > ABANDONED_S:
                path.unlink(missing_ok=True)
        found = [(path.stat(), path) for path in self._directory.glob("*.npy") if path != newest]
        taken = newest.stat().st_size + sum(each.st_size for each, _ in found)
        for each, path in sorted(found, key=lambda pair: pair[0].st_mtime_ns):
            if taken <= self._kept_bytes:
                return
            path.unlink(missing_ok=True)
            taken -= each.st_size
