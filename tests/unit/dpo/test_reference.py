"""The reference's scores: found by what they were worked out from, whole or not at all, and bounded."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")

from finetuned_dpo.reference import ReferenceScores  # noqa: E402

pytestmark = pytest.mark.torch
MADE_FROM = {"model": "abc", "max_length": 64}


def pairs(*rows: tuple[list[int], list[int], list[int]]) -> Any:
    from datasets import Dataset

    return Dataset.from_list(
        [dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), row, strict=True)) for row in rows]
    )


TWO = (([1, 2], [3], [4]), ([1], [2, 3], [4]))


def scores_of(count: int) -> Any:
    return np.arange(2 * count, dtype=np.float32).reshape(count, 2)


def test_what_is_kept_is_found_by_another_run_to_the_last_bit(tmp_path: Path) -> None:
    scores, made = ReferenceScores(tmp_path, MADE_FROM), scores_of(2)
    key = scores.key(pairs(*TWO))
    assert scores.load(key, 2) is None
    scores.store(key, made)
    again = ReferenceScores(tmp_path, dict(reversed(MADE_FROM.items())))
    found = again.load(again.key(pairs(*TWO)), 2)
    assert found is not None
    assert found.tobytes() == made.tobytes()
    assert [path.name for path in tmp_path.iterdir()] == [f"{key}.npy"]


def test_other_pairs_another_order_other_cuts_and_another_model_are_other_scores(tmp_path: Path) -> None:
    one = ReferenceScores(tmp_path, MADE_FROM)
    moved = (([1], [2, 3], [4]), ([1, 2], [3], [4]))
    shifted = (([1], [2, 3], [4]), ([1], [2, 3], [4]))
    sets = [TWO, moved, shifted, TWO[:1]]
    keys = {one.key(pairs(*each)) for each in sets}
    keys.add(ReferenceScores(tmp_path, {**MADE_FROM, "model": "abd"}).key(pairs(*TWO)))
    assert len(keys) == len(sets) + 1


@pytest.mark.parametrize("harm", ["cut", "empty", "other shape"])
def test_what_is_not_whole_is_worked_out_again(tmp_path: Path, harm: str) -> None:
    scores = ReferenceScores(tmp_path, MADE_FROM)
    scores.store("key", scores_of(3 if harm == "other shape" else 2))
    path = tmp_path / "key.npy"
    if harm != "other shape":
        path.write_bytes(path.read_bytes()[: 90 if harm == "cut" else 0])
    assert scores.load("key", 2) is None


def test_the_least_recently_used_make_room(tmp_path: Path) -> None:
    size = len(b"") + 128 + 8 * 2  # of a file of two pairs
    scores = ReferenceScores(tmp_path, MADE_FROM, kept_bytes=2 * size)
    for number, name in enumerate(("first", "second")):
        scores.store(name, scores_of(2))
        os.utime(tmp_path / f"{name}.npy", (number, number))
    assert scores.load("first", 2) is not None  # used just now
    scores.store("third", scores_of(2))
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["first", "third"]


def test_what_a_killed_writer_left_goes_and_what_is_being_written_stays(tmp_path: Path) -> None:
    left, written = tmp_path / "old.writing-1", tmp_path / "new.writing-2"
    for path in (left, written):
        path.write_bytes(b"half")
    os.utime(left, (1, 1))
    ReferenceScores(tmp_path, MADE_FROM).store("key", scores_of(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key.npy", "new.writing-2"]


def test_a_full_disk_keeps_nothing_and_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    scores = ReferenceScores(tmp_path, MADE_FROM)
    scores.store("key", scores_of(2))
    assert scores.load("key", 2) is None
    assert not list(tmp_path.iterdir())
