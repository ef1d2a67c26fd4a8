"""The parts of a warm start that need no process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import pytest

from finetuned.attempts import warm_channel, warm_checks
from finetuned.attempts.testing import fake_spec
from finetuned.attempts.warm_files import ImportedFiles
from finetuned.attempts.warm_fork import threads
from finetuned.attempts.warm_image import PADDING, ROOM, ProcessImage
from finetuned.attempts.warm_process import import_environment


class TestProcessImage:
    SCRIPT = (
        "import sys\n"
        "from pathlib import Path\n"
        "from finetuned.attempts.warm_image import ProcessImage\n"
        "ProcessImage('MARK').show(sys.argv[1].split(), sys.argv[2])\n"
        "sys.stdout.buffer.write(Path('/proc/self/cmdline').read_bytes() + b'|' +"
        " Path('/proc/self/environ').read_bytes())\n"
    )

    def shown(self, line: str, value: str) -> tuple[bytes, bytes]:
        command = [sys.executable, "-c", self.SCRIPT, line, value]
        environment = {"BEFORE": "1", "MARK": PADDING, "AFTER": "2", "PATH": os.environ["PATH"]}
        done = subprocess.run(command, capture_output=True, check=True, env=environment)
        first, _, second = done.stdout.partition(b"|")
        return first.rstrip(b"\0"), second

    def test_the_command_line_and_the_value_are_those_that_it_is_to_show(self) -> None:
        command, environment = self.shown("some program", "job-1/2/abc")
        assert command == b"some\0program"
        assert environment.startswith(b"BEFORE=1\0MARK=job-1/2/abc\0")
        assert b"\0AFTER=2\0" in environment

    def test_a_long_command_line_is_cut_and_never_runs_into_the_environment(self) -> None:
        command, environment = self.shown("x" * 10_000, "v" * ROOM)
        assert command.startswith(b"xxx")
        assert b"MARK" not in command
        assert b"MARK=" + b"v" * ROOM + b"\0AFTER=2\0" in environment

    def test_a_variable_without_room_is_refused(self) -> None:
        with pytest.raises(ValueError, match="was given no room"):
            ProcessImage("FINETUNED_NOT_THERE")


class TestImportedFiles:
    @pytest.fixture
    def module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        path = tmp_path / "of_this_test.py"
        path.write_text("", encoding="utf-8")
        os.utime(path, (1, 1))
        found = ModuleType("of_this_test")
        found.__file__ = str(path)
        monkeypatch.setitem(sys.modules, "of_this_test", found)
        monkeypatch.syspath_prepend(tmp_path)
        return path

    def test_nothing_has_changed_at_first(self, module: Path) -> None:
        assert ImportedFiles(time.time_ns()).changed() is None

    def test_a_file_that_is_written_anew_is_named(self, module: Path) -> None:
        files = ImportedFiles(time.time_ns())
        module.write_text("x = 1", encoding="utf-8")
        assert files.changed() == str(module)

    def test_a_file_that_is_gone_is_named(self, module: Path) -> None:
        files = ImportedFiles(time.time_ns())
        module.unlink()
        assert files.changed() == str(module)

    def test_a_file_that_was_written_while_it_was_imported_may_be_either(self, module: Path) -> None:
        since = time.time_ns()
        os.utime(module, ns=(since + 1, since + 1))
        assert ImportedFiles(since).changed() == str(module)

    def test_a_file_from_the_future_is_taken_as_it_is(self, module: Path) -> None:
        later = time.time() + 3600
        os.utime(module, (later, later))
        assert ImportedFiles(time.time_ns()).changed() is None

    def test_a_distribution_that_is_installed_is_named(self, module: Path) -> None:
        files = ImportedFiles(time.time_ns())
        (module.parent / "some-1.0.dist-info").mkdir()
        assert files.changed() == str(module.parent / "some-1.0.dist-info")


class TestThreads:
    @pytest.mark.parametrize(
        ("environment", "expected"),
        [({"OMP_NUM_THREADS": "3"}, 3), ({"MKL_NUM_THREADS": "2"}, 2), ({"OMP_NUM_THREADS": "4,2"}, 4)],
    )
    def test_as_many_as_the_environment_says(self, environment: dict[str, str], expected: int) -> None:
        assert threads(environment) == expected

    @pytest.mark.parametrize("told", ["", "0", "many"])
    def test_else_one_for_each_core(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 7})
        for number, siblings in ((0, "0-1"), (1, "0-1"), (2, "2")):  # nobody tells of the last
            topology = tmp_path / f"cpu{number}" / "topology"
            topology.mkdir(parents=True)
            (topology / "thread_siblings_list").write_text(f"{siblings}\n", encoding="ascii")
        assert threads({"OMP_NUM_THREADS": told}, tmp_path) == 3


class TestImportEnvironment:
    def test_what_a_fork_is_given_of_its_own_is_no_part_of_it(self) -> None:
        spec = fake_spec(
            environment={
                "CUDA_VISIBLE_DEVICES": "GPU-1",
                "OMP_NUM_THREADS": "2",
                "OMP_WAIT_POLICY": "PASSIVE",
                "GOMP_SPINCOUNT": "0",
                "HF_HOME": "/models",
            }
        )
        assert import_environment({"HOME": "/root", "OMP_NUM_THREADS": "8"}, spec) == {
            "HOME": "/root",
            "HF_HOME": "/models",
        }

    def test_openmp_that_is_to_wait_otherwise_cannot_be_had(self) -> None:
        assert import_environment({"OMP_WAIT_POLICY": "ACTIVE"}, fake_spec()) is None


def test_an_end_that_is_closed_reads_as_none() -> None:
    one, other = warm_channel.pair()
    with one, other:
        other.close()
        assert warm_channel.receive(one) == (None, [])
        with pytest.raises(BrokenPipeError):
            warm_channel.send(one, {})


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread of what other tests have imported into this process."""
    monkeypatch.setattr(threading, "active_count", lambda: 1)


@pytest.mark.usefixtures("alone")
def test_a_process_that_holds_the_gpus_memory_manager_is_not_forked(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "statm").write_text("1 1", encoding="ascii")
    (tmp_path / "fd").mkdir()
    (tmp_path / "fd" / "5").symlink_to("/dev/nvidiactl")  # NVML's, which counts GPUs
    assert warm_checks._devices(tmp_path) is None
    (tmp_path / "fd" / "6").symlink_to("/dev/nvidia-uvm")
    assert warm_checks.problem(1 << 30, tmp_path) == "the imports have initialised CUDA"


@pytest.mark.usefixtures("alone")
def test_threads_of_libraries_are_seen(tmp_path: Path) -> None:
    for number, name in ((os.getpid(), "python"), (2, "jemalloc_bg_thd"), (3, "OpenBLAS")):
        (tmp_path / "task" / str(number)).mkdir(parents=True)
        (tmp_path / "task" / str(number) / "comm").write_text(f"{name}\n", encoding="ascii")
    assert warm_checks._threads(tmp_path) == "the imports have started threads: OpenBLAS"
