"""The cache of a teacher's scores: what is found is what was kept, and whatever happens to its file costs no job."""

from __future__ import annotations

import logging
import multiprocessing
import sqlite3
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from finetuned_opd import score_cache  # noqa: E402
from finetuned_opd.score_cache import FILE, REST_S, CachedTeacher, ScoreCache, key_of  # noqa: E402
from finetuned_opd.scores import Row, Scores, Wanted  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.timeout(120)]

PLENTY = 1 << 26
ROWS = [Row((1, 2), (3, 4)), Row((5,), (6, 7, 8))]


class Counting:
    """A teacher that counts what it is asked."""

    def __init__(self, identity: str | None = "model", per_token: float = -1.0) -> None:
        self.identity = identity
        self.asked: list[Row] = []
        self.per_token = per_token

    def score(self, rows: Sequence[Row], wanted: Wanted) -> list[Scores]:
        self.asked += rows
        return [Scores(torch.full((wanted.of(row),), self.per_token)) for row in rows]


class Clock:
    """Stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def scores(size: int = 4) -> Scores:
    return Scores(torch.arange(size, dtype=torch.float32))


def key(number: int) -> bytes:
    return struct.pack(">32s", str(number).encode())


@pytest.fixture
def warnings_of(caplog: pytest.LogCaptureFixture) -> Any:
    """The lines of the log."""
    caplog.set_level(logging.WARNING, logger=score_cache.__name__)
    return lambda: [record.getMessage() for record in caplog.records]


def test_what_was_scored_is_not_asked_again_by_anybody(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    one = CachedTeacher(first, ScoreCache(tmp_path, PLENTY)).score(ROWS, Wanted())
    cached = CachedTeacher(second, ScoreCache(tmp_path, PLENTY))
    other = cached.score([*ROWS, ROWS[0]], Wanted())
    assert (first.asked, second.asked) == (ROWS, [])
    assert (cached.hits, cached.misses) == (3, 0)
    for mine, theirs in zip(other, [*one, one[0]], strict=True):
        torch.testing.assert_close(mine.log_probs, theirs.log_probs)


def test_only_what_is_missing_is_asked_and_a_row_that_is_there_twice_once(tmp_path: Path) -> None:
    teacher = Counting()
    cached = CachedTeacher(teacher, ScoreCache(tmp_path, PLENTY))
    cached.score(ROWS[:1], Wanted())
    found = cached.score([ROWS[1], ROWS[0], ROWS[1]], Wanted())
    assert teacher.asked == ROWS
    assert [len(each.log_probs) for each in found] == [3, 2, 3]
    assert (cached.hits, cached.misses) == (2, 2)


def test_everything_that_a_teacher_says_is_kept_as_it_was(tmp_path: Path) -> None:
    whole = Scores(
        torch.randn(3),
        hidden=torch.randn(3, 8).to(torch.bfloat16),
        top_ids=torch.tensor([[5, 1], [2, 3], [9, 0]]),
        top_log_probs=torch.randn(3, 2),
    )
    ScoreCache(tmp_path, PLENTY).put({key(1): whole})
    found = ScoreCache(tmp_path, PLENTY).get([key(1)])[key(1)]
    for name in ("log_probs", "hidden", "top_ids", "top_log_probs"):
        assert torch.equal(getattr(found, name), getattr(whole, name))
        assert getattr(found, name).dtype == getattr(whole, name).dtype


def test_a_key_is_all_that_decides_the_scores_and_no_more() -> None:
    row = Row((1, 2), (3, 4, 5))
    same = key_of("m", row, Wanted(tokens=2))
    assert (
        same
        == key_of("m", Row((1, 2), (3, 4, 9)), Wanted(tokens=2))
        == key_of("m", Row((1, 2), (3, 4)), Wanted())
    )
    others = [
        key_of("other", row, Wanted(tokens=2)),
        key_of("m", row, Wanted()),
        key_of("m", row, Wanted(tokens=2, top_k=4)),
        key_of("m", row, Wanted(tokens=2, hidden=True)),
        key_of("m", row, Wanted(tokens=2, hidden=True, log_probs=False)),
        key_of("m", Row((1,), (2, 3, 4)), Wanted()),
    ]
    assert len({same, *others}) == len(others) + 1


def test_of_a_teacher_that_is_not_known_nothing_is_kept(tmp_path: Path) -> None:
    teacher = Counting(identity=None)
    cached = CachedTeacher(teacher, ScoreCache(tmp_path, PLENTY))
    for _ in range(2):
        cached.score(ROWS, Wanted())
    assert len(teacher.asked) == 4
    assert not list(tmp_path.iterdir())


def test_the_least_recently_used_make_room(tmp_path: Path) -> None:
    limit = 1 << 20
    cache = ScoreCache(tmp_path, limit)
    size = 2048  # floats: 8 KiB
    cache.put({key(0): scores(size)})
    for number in range(1, 400):
        cache.put({key(number): scores(size)})
        assert cache.get([key(0)])  # it is used all the time
    kept = [number for number in range(400) if cache.get([key(number)])]
    assert kept[0] == 0
    assert kept[1:] == list(range(kept[1], 400))
    assert kept[1] > 200
    cache.close()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= limit + score_cache.JOURNAL_BYTES
    assert (tmp_path / FILE).stat().st_size <= limit


def test_a_smaller_limit_shrinks_what_is_there(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path, PLENTY)
    cache.put({key(number): scores(2048) for number in range(300)})
    cache.close()
    before = (tmp_path / FILE).stat().st_size
    smaller = ScoreCache(tmp_path, 1 << 19)
    smaller.put({key(999): scores()})
    smaller.close()
    assert (tmp_path / FILE).stat().st_size <= 1 << 19 < before


def spoil(cache: Path, what: str) -> None:
    file = cache / FILE
    match what:
        case "no database":
            file.write_bytes(b"this is no database at all" * 100)
        case "torn":
            content = bytearray(file.read_bytes())
            content[4096:] = b"\xff" * (len(content) - 4096)
            file.write_bytes(content)
        case "other tables":
            file.unlink()
            with sqlite3.connect(file) as database:
                database.execute("CREATE TABLE scores (name TEXT)")
            database.close()
        case _:
            file.unlink()
            file.mkdir()


@pytest.mark.parametrize("what", ["no database", "torn", "other tables", "a directory"])
def test_a_file_that_is_no_cache_is_a_miss_and_a_line_in_the_log(
    what: str, tmp_path: Path, warnings_of: Any
) -> None:
    kept = ScoreCache(tmp_path, PLENTY)
    kept.put({key(number): scores() for number in range(100)})
    kept.close()
    spoil(tmp_path, what)
    clock = Clock()
    cache = ScoreCache(tmp_path, PLENTY, clock=clock)
    teacher = Counting()
    cached = CachedTeacher(teacher, cache)
    for _ in range(3):
        cached.score(ROWS, Wanted())
        cache.get([key(number) for number in range(100)])
    assert len(teacher.asked) == 6
    assert len(warnings_of()) == 1
    assert FILE in warnings_of()[0]
    if what in {"no database", "torn"}:  # it is begun anew
        clock.now += REST_S
        cached.score(ROWS, Wanted())
        cached.score(ROWS, Wanted())
        assert len(teacher.asked) == 8


def test_an_entry_that_was_changed_is_a_miss(tmp_path: Path, warnings_of: Any) -> None:
    cache = ScoreCache(tmp_path, PLENTY)
    cache.put({key(number): scores() for number in range(4)})
    cache.close()
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("UPDATE scores SET value = zeroblob(length(value)) WHERE key = ?", (key(1),))
        database.execute("UPDATE scores SET value = 'text' WHERE key = ?", (key(2),))
    database.close()
    assert set(cache.get([key(number) for number in range(4)])) == {key(0), key(3)}
    assert len(warnings_of()) == 2
    cache.put({key(1): scores()})
    assert cache.get([key(1)])


def test_a_file_that_another_locks_is_a_miss_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings_of: Any
) -> None:
    monkeypatch.setattr(score_cache, "BUSY_S", 0.01)
    clock = Clock()
    cache = ScoreCache(tmp_path, PLENTY, clock=clock)
    cache.put({key(1): scores()})
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    cache.put({key(2): scores()})
    assert len(warnings_of()) == 1
    assert "locked" in warnings_of()[0]
    other.execute("ROLLBACK")
    other.close()
    assert not cache.get([key(1)])  # it rests
    clock.now += REST_S
    assert set(cache.get([key(1), key(2)])) == {key(1)}


def test_a_full_disk_keeps_nothing_and_costs_nothing(tmp_path: Path, warnings_of: Any) -> None:
    cache = ScoreCache(tmp_path, PLENTY)
    cache.put({key(1): scores()})
    assert cache._connection is not None
    cache._connection.execute("PRAGMA max_page_count = 1")  # SQLite's own way to be full
    cache.put({key(2): scores(1 << 16)})
    assert len(warnings_of()) == 1
    assert "full" in warnings_of()[0]


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path: Path, warnings_of: Any) -> None:
    (tmp_path / "file").touch()
    cache = ScoreCache(tmp_path / "file" / "cache", PLENTY)
    cache.put({key(1): scores()})
    assert cache.get([key(1)]) == {}
    assert len(warnings_of()) == 1


def write_many(directory: str, first: int) -> None:
    cache = ScoreCache(Path(directory), PLENTY)
    for number in range(first, first + 50):
        cache.put({key(number): scores(64)})
        assert len(cache.get([key(number)])[key(number)].log_probs) == 64


def test_runs_share_the_cache_at_once(tmp_path: Path) -> None:
    ScoreCache(tmp_path, PLENTY).put({key(9999): scores()})
    spawn = multiprocessing.get_context("spawn")
    runs = [spawn.Process(target=write_many, args=(str(tmp_path), first)) for first in (0, 1000)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
        assert run.exitcode == 0
    found = ScoreCache(tmp_path, PLENTY).get(
        [key(number) for first in (0, 1000) for number in range(first, first + 50)]
    )
    assert len(found) == 100
