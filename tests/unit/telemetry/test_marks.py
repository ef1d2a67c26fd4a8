from __future__ import annotations

import os
from pathlib import Path

import pytest

from finetuned.telemetry import marks
from finetuned.telemetry.marks import Mark


def process(root: Path, pid: int, environment: bytes, *targets: str) -> None:
    descriptors = root / str(pid) / "fd"
    descriptors.mkdir(parents=True)
    (descriptors.parent / "environ").write_bytes(environment)
    for number, target in enumerate(targets):
        (descriptors / str(number)).symlink_to(target)


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    (tmp_path / "jobs" / "job-1" / "attempts").mkdir(parents=True)
    return tmp_path / "jobs"


def test_attempts_are_known_by_their_mark_and_gpus_by_their_nodes(tmp_path: Path, jobs: Path) -> None:
    process(tmp_path, 1, b"PATH=/bin\0", "/dev/nvidia0")
    process(
        tmp_path,
        2,
        b"A=b\0FINETUNED_ATTEMPT=job-1/2/ab\0C=d\0",
        "/dev/nvidia3",
        "/dev/nvidiactl",
        "/dev/nvidia-uvm",
    )
    process(tmp_path, 3, b"FINETUNED_ATTEMPT=job-1/0/ab\0")
    process(tmp_path, 4, b"FINETUNED_ATTEMPT=nonsense\0")
    (tmp_path / "5").mkdir()  # another user's
    (tmp_path / "meminfo").touch()
    assert marks.read(jobs, tmp_path) == {
        2: Mark("job-1", 2, frozenset({3})),
        3: Mark("job-1", 0, frozenset()),
    }


@pytest.mark.parametrize("job", ["job-2", "", "..", "x" * 5_000])
def test_the_mark_of_another_daemons_attempt_is_none_of_ours(tmp_path: Path, jobs: Path, job: str) -> None:
    process(tmp_path, 2, f"FINETUNED_ATTEMPT={job}/2/ab\0".encode(), "/dev/nvidia0")
    assert marks.read(jobs, tmp_path) == {}


def test_a_process_that_ends_meanwhile_is_passed_over(tmp_path: Path, jobs: Path) -> None:
    process(tmp_path, 2, b"FINETUNED_ATTEMPT=job-1/2/ab\0")
    (tmp_path / "2" / "fd").rmdir()
    assert marks.read(jobs, tmp_path) == {2: Mark("job-1", 2, frozenset())}


def test_this_machine_can_be_looked_at(jobs: Path) -> None:
    assert os.getpid() not in marks.read(jobs)
