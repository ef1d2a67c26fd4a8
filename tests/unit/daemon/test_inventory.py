"""What takes the disk, with files that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from finetuned.storage.inventory import Inventory
from finetuned.store import queries


class Rows:
    """Takes the place of the log: every job that is asked for has ended."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def fetch(self, _query: str, _parameters: object) -> list[tuple[str, int, int]]:
        return [(name, 0, 7) for name in ("job-1", "job-2")]


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    queries()  # read once, before the event loop runs
    jobs = tmp_path / "jobs"
    for name in ("job-1", "job-2"):
        attempt = jobs / name / "attempts" / "1"
        attempt.mkdir(parents=True)
        (attempt / "weights").write_bytes(b"x" * 10_000)
    return Inventory(
        cast("Any", Rows(tmp_path / "events.db")),
        tmp_path / "cache",
        jobs,
        tmp_path / "datasets",
        tmp_path / "files",
    )


def deny(monkeypatch: pytest.MonkeyPatch, denied: Path) -> None:
    """Refuse to list one directory, as permissions do to all but root."""
    listed = Path.iterdir

    def iterdir(self: Path) -> Iterator[Path]:
        if self == denied:
            raise PermissionError(13, "Permission denied", str(self))
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)


@pytest.mark.anyio
async def test_an_ended_job_that_cannot_be_read_is_counted_and_stays(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    deny(monkeypatch, inventory.jobs_dir / "job-1" / "attempts")
    taken = await inventory.look()
    assert [each.job for each in taken.ended] == ["job-2"]
    assert taken.ended_jobs >= 2 * 10_000
    assert "The files of job-1 stay" in caplog.text
    monkeypatch.undo()
    assert [each.job for each in (await inventory.look()).ended] == ["job-2", "job-1"]


@pytest.mark.anyio
async def test_what_trainings_keep_for_later_ones_is_counted_by_itself(inventory: Inventory) -> None:
    assert (await inventory.look()).cache == 0
    (inventory.cache_dir / "reference-scores").mkdir(parents=True)
    (inventory.cache_dir / "reference-scores" / "x.npy").write_bytes(b"x" * 10_000)
    assert (await inventory.look()).cache >= 10_000


@pytest.mark.anyio
async def test_attempts_that_are_no_directory_stay(inventory: Inventory) -> None:
    odd = inventory.jobs_dir / "job-1" / "attempts"
    odd.rename(odd.with_name("moved"))
    odd.write_text("")
    assert [each.job for each in (await inventory.look()).ended] == ["job-2"]


@pytest.mark.anyio
async def test_a_jobs_directory_that_cannot_be_read_leaves_the_look_before(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await inventory.look()
    deny(monkeypatch, inventory.jobs_dir)
    with pytest.raises(PermissionError):
        await inventory.look()
    assert inventory.taken is before
