"""Looks at a job's checkpoints: short ones wait for no long one, and nobody reads on for who has gone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from finetuned.domain.job import Job
from finetuned.looking import THREADS, AbandonedError, always
from finetuned.queries.results import Reading
from finetuned.results import checkpoints
from finetuned_sdk import manifest

PIECES = 3


def a_job(tmp_path: Path) -> Job:
    """A job with one checkpoint of some pieces."""
    path = tmp_path / "checkpoint-1"
    path.mkdir()
    (path / "weights.bin").write_bytes(b"1" * (PIECES * manifest.CHUNK))
    size = manifest.seal(path, step=1).total_bytes
    saved = {"path": str(path), "step": 1, "attempt": 1, "bytes": size}
    return cast("Job", SimpleNamespace(checkpoints=[saved], rewound_at=0))


async def test_a_plain_list_does_not_wait_for_those_that_read_checkpoints_through(tmp_path: Path) -> None:
    job, reading = a_job(tmp_path), Reading(cast("Any", None), tmp_path)
    may_go_on = threading.Event()
    looking = threading.Semaphore(0)

    def held() -> None:
        looking.release()
        assert may_go_on.wait(30)

    async with anyio.create_task_group() as tasks:
        try:
            for _ in range(THREADS):
                tasks.start_soon(partial(reading.checkpoints, job, verify=True, check=held))
            for _ in range(THREADS):
                assert await anyio.to_thread.run_sync(partial(looking.acquire, timeout=30))
            with anyio.fail_after(30):
                (found,) = await reading.checkpoints(job, verify=False, check=always)
            assert found.validity == "complete"
        finally:
            may_go_on.set()


def counting(at_most: int, seen: list[int]) -> Callable[[], None]:
    """A check that finds its client gone after so many calls."""

    def check() -> None:
        seen.append(1)
        if len(seen) > at_most:
            raise AbandonedError

    return check


def test_who_has_gone_is_noticed_in_the_middle_of_a_file(tmp_path: Path) -> None:
    job, seen = a_job(tmp_path), list[int]()
    (found,) = checkpoints.look(job, verify=True, check=counting(1 + PIECES, seen))
    assert (found.validity, len(seen)) == ("whole", 1 + PIECES)  # before it, and with each piece
    with pytest.raises(AbandonedError):
        checkpoints.look(job, verify=True, check=counting(2, []))
