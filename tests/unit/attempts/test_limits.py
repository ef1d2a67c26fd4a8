"""How the runner keeps limits, with a control group's files and a clock that are put there; and what it makes of kills."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from finetuned.attempts import cgroup, memory, oom
from finetuned.attempts.cgroup import NoGroupError
from finetuned.attempts.limits import TREND_S, WATCH_S, Keeper
from finetuned.attempts.oom import Kills, Sample
from finetuned.attempts.testing import fake_spec

GB = 10**9


class Kernel:
    """Takes what is written to a group's files, and refuses what it is told to."""

    def __init__(self) -> None:
        self.written: dict[str, str] = {}
        self.refused: set[str] = set()

    def write(self, path: Path, text: str) -> None:
        if path.name in self.refused:
            raise PermissionError(13, "Permission denied", str(path))
        self.written[f"{path.parent.name}/{path.name}"] = text


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(cgroup, "_write", made.write)
    return made


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The daemon's group below a unit that was delegated."""
    path = tmp_path / "unit" / "daemon"
    path.mkdir(parents=True)
    os.setxattr(path.parent, "user.delegate", b"1")
    return path


class Looks:
    """A clock, and what is held at each look."""

    def __init__(self) -> None:
        self.now = 100.0
        self.held = 0
        self.shared = 0

    def clock(self) -> float:
        return self.now

    def look(self, _root: int) -> tuple[Sample | None, list[int]]:
        return Sample(held=self.held, available=8 * GB, total=16 * GB), [7]

    def proportional(self, _pids: list[int]) -> int:
        return self.held - self.shared


def keeper(looks: Looks, home: Path | None, **limits: float) -> Keeper:
    spec = fake_spec(limits=limits, fence="0123456789")
    return Keeper(
        spec,
        home=home or Path("/nowhere"),
        clock=looks.clock,
        look=looks.look,
        proportional=looks.proportional,
    )


# ---- in a control group ----------------------------------------------------------------------------------


def test_a_group_is_made_beside_the_daemons_with_the_limits_of_the_job(home: Path, kernel: Kernel) -> None:
    kept = keeper(Looks(), home, memory=4 * GB, cpu=1.5)
    name = "attempt-job-1-1-01234567"
    assert kernel.written == {
        "unit/cgroup.subtree_control": "+cpu",
        f"{name}/memory.max": "4000000000",
        f"{name}/memory.oom.group": "1",
        f"{name}/memory.swap.max": "0",
        f"{name}/cpu.max": "150000 100000",
    }
    assert kept.told() == {"memory": "control group", "cpu": "control group"}
    kept.close()
    assert [path.name for path in home.parent.iterdir()] == ["daemon"]


def test_what_is_started_is_in_the_group_and_the_runner_goes_back(home: Path, kernel: Kernel) -> None:
    kept = keeper(Looks(), home, memory=GB)
    with kept.confined():
        assert kernel.written["attempt-job-1-1-01234567/cgroup.procs"] == "0"
        assert "daemon/cgroup.procs" not in kernel.written
    assert kernel.written["daemon/cgroup.procs"] == "0"
    kept.kill()
    assert kernel.written["attempt-job-1-1-01234567/cgroup.kill"] == "1"


def test_a_runner_that_cannot_go_back_is_not_killed_with_its_attempt(home: Path, kernel: Kernel) -> None:
    kept = keeper(Looks(), home, memory=GB)
    with kept.confined():
        kernel.refused.add("cgroup.procs")
    assert kernel.written["attempt-job-1-1-01234567/memory.oom.group"] == "0"
    kept.kill()
    assert "attempt-job-1-1-01234567/cgroup.kill" not in kernel.written


def test_a_group_that_cannot_be_joined_is_removed_and_the_limit_watched(home: Path, kernel: Kernel) -> None:
    kept = keeper(Looks(), home, memory=GB)
    kernel.refused.add("cgroup.procs")
    with kept.confined():
        pass
    assert kept.told() == {"memory": "watched", "why": "it cannot be joined: Permission denied"}
    assert [path.name for path in home.parent.iterdir()] == ["daemon"]


def test_a_controller_that_the_kernel_refuses_leaves_no_group(home: Path, kernel: Kernel) -> None:
    kernel.refused.add("memory.max")
    kept = keeper(Looks(), home, memory=GB)
    assert kept.told()["memory"] == "watched"
    assert kept.told()["why"].endswith("memory.max: Permission denied")
    assert [path.name for path in home.parent.iterdir()] == ["daemon"]


def test_a_daemon_in_the_delegated_group_itself_makes_none_below_it(home: Path) -> None:
    with pytest.raises(NoGroupError, match="DelegateSubgroup"):
        cgroup.delegated(home.parent)


def test_a_tree_that_nobody_handed_over_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(NoGroupError, match="no control group was delegated"):
        cgroup.delegated(tmp_path)
    with pytest.raises(NoGroupError, match="no control groups of version 2"):
        cgroup.delegated(None)


def test_empty_groups_of_runners_that_were_killed_are_removed_but_not_those_being_started(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home.parent / "attempt-old").mkdir()
    cgroup.tidy(home.parent)
    assert (home.parent / "attempt-old").exists()
    monkeypatch.setattr(cgroup, "_STALE_S", -1)
    cgroup.tidy(home.parent)
    assert [path.name for path in home.parent.iterdir()] == ["daemon"]


def test_the_group_of_a_process_is_named_by_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("4:memory:/old\n0::/system.slice/finetuned.service/daemon\n")
    assert cgroup.own(tmp_path, tmp_path) is None  # no controllers of version 2
    (tmp_path / "cgroup.controllers").touch()
    assert cgroup.own(tmp_path, tmp_path) == tmp_path / "system.slice/finetuned.service/daemon"
    assert cgroup.own(tmp_path, tmp_path / "gone") is None


# ---- watched ---------------------------------------------------------------------------------------------


def test_an_attempt_that_holds_more_than_its_limit_is_over_and_says_by_how_much() -> None:
    looks = Looks()
    kept = keeper(looks, None, memory=2 * GB)
    looks.held = 2 * GB
    assert not kept.look()
    looks.held += GB
    assert not kept.look()  # not before it is time
    looks.now += WATCH_S
    assert kept.look()
    assert (
        kept.evidence(killed=False) == "its processes held 3.00 GB of memory, more than its limit of 2.00 GB"
    )
    assert kept.peak == 3 * GB


def test_pages_that_processes_share_count_once() -> None:
    looks = Looks()
    looks.held, looks.shared = 3 * GB, 2 * GB
    assert not keeper(looks, None, memory=2 * GB).look()


def test_without_a_limit_it_is_only_looked_at_now_and_then_and_nothing_follows() -> None:
    looks = Looks()
    looks.held = 99 * GB
    kept = keeper(looks, None)
    assert not kept.look()
    assert kept.pause_s == TREND_S
    assert (kept.told(), kept.environment({})) == ({}, {})


def test_a_limit_of_processors_leaves_the_attempt_as_many_and_no_more_threads() -> None:
    usable = os.sched_getaffinity(0)
    kept = keeper(Looks(), None, cpu=0.5)
    with kept.confined():
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == usable
    assert kept.environment({}) == {"OMP_NUM_THREADS": "1"}
    assert keeper(Looks(), None, cpu=8).environment({"OMP_NUM_THREADS": "4"}) == {"OMP_NUM_THREADS": "4"}
    assert keeper(Looks(), None, cpu=8).environment({"OMP_NUM_THREADS": "4,2"}) == {"OMP_NUM_THREADS": "8"}


def test_the_memory_of_all_below_a_process_is_seen() -> None:
    found, pids = memory.sample(os.getpid())
    assert found is not None
    assert 0 < found.available < found.total
    assert memory.proportional([os.getpid(), *pids]) > 1 << 20
    assert memory.proportional([2**22 + 1]) == 0  # nobody


@pytest.mark.parametrize(
    ("rollup", "held"),
    [
        ("Rss: 999 kB\nPss: 300 kB\nPss_Anon: 5 kB\nPss_File: 288 kB\nPss_Shmem: 7 kB\nShared_Clean: 1 kB\n", 12),
        ("Rss: 999 kB\nPss: 300 kB\nShared_Clean: 1 kB\n", 300),
    ],
    ids=["all but the pages of mapped files", "an old kernel, which does not tell them apart"],
)  # fmt: skip
def test_what_the_kernel_can_take_back_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rollup: str, held: int
) -> None:
    monkeypatch.setattr(memory, "Path", lambda path: tmp_path / Path(path).name)
    (tmp_path / "smaps_rollup").write_text(f"55e-7ff ---p 00000000 00:00 0    [rollup]\n{rollup}")
    assert memory.proportional([1]) == held * 1024


# ---- kills by the kernel ---------------------------------------------------------------------------------

LITTLE = Sample(held=14 * GB, available=GB // 10, total=16 * GB)
PLENTY = Sample(held=GB, available=14 * GB, total=16 * GB)


@pytest.mark.parametrize(
    ("before", "after", "last", "found"),
    [
        (Kills(0, 5), Kills(1, 6), LITTLE, "the kernel killed it for want of memory: its control group counts 1 such kill;"),
        (Kills(0, 5), Kills(2, 7), None, "the kernel killed it for want of memory: its control group counts 2 such kills"),
        (Kills(3, 5), Kills(3, 6), LITTLE, None),  # somebody else's
        (Kills(None, 5), Kills(None, 6), PLENTY, "the kernel probably killed it for want of memory: the machine counts 1"),
        (Kills(None, 5), Kills(None, 5), LITTLE, None),
        (Kills(None, None), Kills(None, None), LITTLE, "the kernel may have killed it for want of memory, of which"),
        (Kills(None, None), Kills(None, None), PLENTY, None),
        (Kills(None, None), Kills(None, None), None, None),
    ],
)  # fmt: skip
def test_a_kill_is_the_kernels_as_surely_as_the_kernel_says(
    before: Kills, after: Kills, last: Sample | None, found: str | None
) -> None:
    said = oom.evidence(before, after, last, shared=False)
    assert said is None if found is None else (said or "").startswith(found)


def test_the_evidence_has_the_figures_and_says_whose_count_it_is() -> None:
    said = oom.evidence(Kills(0, 0), Kills(1, 1), LITTLE, shared=True)
    assert said == (
        "the kernel killed it for want of memory: the control group that it shares with other attempts counts 1 such"
        " kill; shortly before, its processes held 14.00 GB, and of the machine's 16.00 GB there were 0.10 GB left"
    )


def test_both_versions_of_control_groups_count_kills(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("5:cpu,memory:/box\n")
    assert oom.counter_of(None, tmp_path) == Path("/sys/fs/cgroup/memory/box/memory.oom_control")
    assert oom.counter_of(tmp_path) == tmp_path / "memory.events"
    assert oom.counter_of(None, tmp_path / "gone") is None
    (tmp_path / "memory.events").write_text("low 0\noom 2\noom_kill 3\noom_group_kill 1\n")
    (tmp_path / "vmstat").write_text("nr_free_pages 1\n")
    assert oom.count(tmp_path / "memory.events", tmp_path / "vmstat") == Kills(3, None)


def test_a_kill_by_a_limit_of_the_group_names_the_limit(home: Path, kernel: Kernel) -> None:
    kept = keeper(Looks(), home, memory=GB)
    counter = home.parent / "attempt-job-1-1-01234567" / "memory.events"
    counter.write_text("oom_kill 0\n")
    kept._kills = oom.count(counter)
    counter.write_text("oom_kill 1\n")
    assert (kept.evidence(killed=True) or "").endswith("; its limit is 1.00 GB")
    assert kept.evidence(killed=False) is None
