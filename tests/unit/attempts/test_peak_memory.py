from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetuned_sdk.peak_memory import PeakMemory

ALLOCATING = "import sys; held = bytearray(60_000_000); print('ready', flush=True); sys.stdin.read()"


class Proc:
    """A /proc of processes whose figures can be set."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def set(self, pid: int, *, peak: int = 0, private: int = 0, children: tuple[int, ...] = ()) -> None:
        task = self.root / str(pid) / "task" / str(pid)
        task.mkdir(parents=True, exist_ok=True)
        (task / "children").write_text(" ".join(map(str, children)))
        (self.root / str(pid) / "status").write_text(f"Name:\tx\nVmHWM:\t{peak} kB\nVmRSS:\t1 kB\n")
        rollup = f"Rss: 999 kB\nPrivate_Clean: 0 kB\nPrivate_Dirty:\t{private} kB\n"
        (self.root / str(pid) / "smaps_rollup").write_text(rollup)


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


def test_the_workers_own_peak_is_the_kernels(proc: Proc) -> None:
    proc.set(1, peak=5000)
    assert PeakMemory(proc.root, 1).figures() == {"host_bytes": 5000 * 1024}


def test_of_children_and_theirs_what_they_have_alone_is_added_as_it_was_at_most(proc: Proc) -> None:
    proc.set(1, peak=5000, children=(2, 3))
    proc.set(2, private=100, children=(4,))
    proc.set(3, private=200)
    proc.set(4, private=50)
    memory = PeakMemory(proc.root, 1)
    memory.look()
    proc.set(1, peak=5000, children=())
    assert memory.figures()["host_bytes"] == (5000 + 350) * 1024


def test_a_child_that_went_meanwhile_is_passed_over(proc: Proc) -> None:
    proc.set(1, peak=5000, children=(2,))
    assert PeakMemory(proc.root, 1).figures() == {"host_bytes": 5000 * 1024}


def test_without_a_proc_nothing_is_claimed(tmp_path: Path) -> None:
    assert PeakMemory(tmp_path, 1).figures() == {}


def test_a_gpus_peak_is_torchs_and_torch_is_not_imported_for_it(
    proc: Proc, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cuda:
        def is_available(self) -> bool:
            return True

        def is_initialized(self) -> bool:
            return True

        def device_count(self) -> int:
            return 2

        def max_memory_reserved(self, index: int) -> int:
            return 1000 * (index + 1)

    class Torch:
        cuda: Any = Cuda()

    proc.set(1, peak=1)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert "device_bytes" not in PeakMemory(proc.root, 1).figures()
    assert "torch" not in sys.modules
    monkeypatch.setitem(sys.modules, "torch", Torch())
    assert PeakMemory(proc.root, 1).figures()["device_bytes"] == 3000


def test_a_real_child_is_seen() -> None:
    memory = PeakMemory()
    before = memory.figures()["host_bytes"]
    with subprocess.Popen(
        [sys.executable, "-c", ALLOCATING], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        memory.look()
        child.communicate()
    assert memory.figures()["host_bytes"] >= before + 60_000_000
