"""A teacher that was asked before: its scores are in a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from finetuned_opd import scored_rows
from finetuned_opd.errors import UnfitTeacherError
from finetuned_opd.scored_rows import ScoredRow
from finetuned_opd.scores import Row, Scores, Wanted
from finetuned_sdk import JobError


class PrecomputedTeacher:
    """Finds scores by their token ids. It holds where each row begins, and reads a row when it is asked for it.

    The rows are checked once, by :func:`finetuned_opd.scored_rows.read`; a file that changed since is refused.
    """

    identity: str | None = None  # what is on disk already need not be kept again

    def __init__(self, file: Path) -> None:
        self._file = file.open("rb")
        self._path = file
        self._begins: dict[bytes, int] = {}
        begin = 0
        for text in self._file:
            if text.strip():
                self._begins.setdefault(_key(self._parsed(text).row), begin)
            begin += len(text)

    def score(self, rows: Sequence[Row], wanted: Wanted) -> list[Scores]:
        if wanted.hidden:
            raise UnfitTeacherError(
                "Precomputed scores have no whole distributions; use top_k, or the policy gradient."
            )
        return [_scores(self._found(row), wanted) for row in rows]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _found(self, row: Row) -> ScoredRow:
        begin = self._begins.get(_key(row))
        if begin is None:
            raise UnfitTeacherError(
                f"{self._path} has no scores of a completion of {len(row.completion)} tokens: they are of the rows that"
                " were scored alone, and the student's own samples are others. Train on the rows of the file, or name a"
                " teacher that can be asked."
            )
        self._file.seek(begin)
        return self._parsed(self._file.readline())

    def _parsed(self, text: bytes) -> ScoredRow:
        try:
            return scored_rows.parse(json.loads(text.decode("utf-8-sig")))
        except (ValueError, AttributeError, RecursionError) as error:
            raise JobError(
                f"{self._path} has a row that is not as it should be ({error}); check it.", code="bad_dataset"
            ) from None


def _key(row: Row) -> bytes:
    ids = np.asarray((len(row.prompt), *row.prompt, *row.completion), dtype=np.int64)
    return hashlib.sha256(ids.tobytes()).digest()[:16]


def _scores(scored: ScoredRow, wanted: Wanted) -> Scores:
    count = wanted.of(scored.row)
    log_probs = torch.tensor(scored.log_probs[:count])
    if not wanted.top_k:
        return Scores(log_probs)
    if wanted.top_k > scored.top_k:
        raise UnfitTeacherError(
            f"The precomputed scores have {scored.top_k} likeliest tokens, and top_k is {wanted.top_k}; lower it, or have"
            " the rows scored with more."
        )
    assert scored.top_ids is not None
    assert scored.top_log_probs is not None
    return Scores(
        log_probs,
        top_ids=torch.tensor(scored.top_ids[:count])[:, : wanted.top_k],
        top_log_probs=torch.tensor(scored.top_log_probs[:count])[:, : wanted.top_k],
    )
