"""The doctor's checks, shown machines that are ill."""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest

from finetuned.cli import checks, gpu_check
from finetuned.cli.shapes import Check


def verdict(check: Check) -> str:
    """Each verdict that is not ``ok`` has a remedy, and no other has one."""
    assert (check["remedy"] is None) == (check["verdict"] == "ok")
    return check["verdict"]


def test_an_old_python_is_refused() -> None:
    assert verdict(checks.python()) == "ok"
    assert verdict(checks.python((3, 10, 9))) == "fail"


def test_a_package_that_is_missing_is_named() -> None:
    assert verdict(checks.packages()) == "ok"

    def version_of(name: str) -> str:
        if name == "anyio":
            raise metadata.PackageNotFoundError(name)
        return "1"

    found = checks.packages(["anyio", "click"], version_of)
    assert verdict(found) == "fail"
    assert found["message"].startswith("anyio")


def test_without_torch_jobs_cannot_train() -> None:
    found = checks.trainer(lambda name: None if name == "torch" else object())
    assert verdict(found) == "warn"
    assert found["remedy"] == "`pip install 'finetuned[train]'`"


def test_a_state_directory_that_others_may_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    assert verdict(checks.state_directory(tmp_path)) == "ok"
    tmp_path.chmod(0o770)
    found = checks.state_directory(tmp_path)
    assert verdict(found) == "fail"
    assert found["remedy"] == f"`chmod go-w {tmp_path}`"


@pytest.mark.parametrize("mode", [0o755, 0o751, 0o754])
def test_a_state_directory_that_everybody_may_look_into_is_said(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    found = checks.state_directory(tmp_path)
    assert verdict(found) == "warn"
    assert found["remedy"] == f"`chmod o-rwx {tmp_path}`"


def test_a_state_directory_that_is_not_there_yet_is_made_by_the_daemon(tmp_path: Path) -> None:
    assert verdict(checks.state_directory(tmp_path / "a" / "b")) == "ok"
    (tmp_path / "file").touch()
    assert verdict(checks.state_directory(tmp_path / "file")) == "fail"


@pytest.mark.parametrize(("kind", "expected"), [("ext4", "ok"), ("nfs4", "fail"), ("9p", "fail")])
def test_a_log_on_a_network_is_refused(kind: str, expected: str) -> None:
    mounts = [("/", "ext4"), ("/srv", "xfs"), ("/srv/state", kind), ("/srv/state2", "nfs")]
    assert verdict(checks.file_system(Path("/srv/state/finetuned"), mounts)) == expected
    assert verdict(checks.file_system(Path("/else"), [])) == "ok"


@pytest.mark.parametrize(
    ("free", "expected"), [(500, "fail"), (2_000_000_000, "warn"), (20_000_000_000, "ok")]
)
def test_little_disk_is_said(tmp_path: Path, free: int, expected: str) -> None:
    assert verdict(checks.disk(tmp_path / "not" / "yet", least=1000, free=free)) == expected
    assert verdict(checks.disk(tmp_path, least=0)) in {"ok", "warn"}


def a_log(path: Path, *, at: float) -> Path:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE events (seq INTEGER, at INTEGER)")
        connection.execute("INSERT INTO events VALUES (7, ?)", (int(at * 1_000_000),))
    connection.close()
    return path


def test_a_log_is_looked_at(tmp_path: Path) -> None:
    assert verdict(checks.log(tmp_path / "none")) == "ok"
    assert checks.log(a_log(tmp_path / "a", at=time.time()))["message"] == "sound, event 7 is the newest"
    ahead = checks.log(a_log(tmp_path / "b", at=time.time() + 3600))
    assert verdict(ahead) == "fail"
    assert "the clock was put back" in ahead["message"]
    (tmp_path / "c").write_bytes(b"no database at all, " * 100)
    assert verdict(checks.log(tmp_path / "c")) == "fail"
    (tmp_path / "d").mkdir()
    assert verdict(checks.log(tmp_path / "d")) == "warn"


def test_few_open_files_are_said() -> None:
    assert verdict(checks.open_files((1024, 2048))) == "warn"
    assert verdict(checks.open_files((1024, 524_288))) == "ok"
    assert verdict(checks.open_files()) in {"ok", "warn"}


def test_little_shared_memory_is_said(tmp_path: Path) -> None:
    assert verdict(checks.shared_memory(size=64_000_000)) == "warn"
    assert verdict(checks.shared_memory(size=8_000_000_000)) == "ok"
    assert verdict(checks.shared_memory(tmp_path / "none")) == "warn"


def saying(*answers: str) -> checks.Run:
    left = list(answers)

    def run(arguments: Sequence[str]) -> str:
        del arguments
        return left.pop(0)

    return run


def nothing(arguments: Sequence[str]) -> str:
    raise FileNotFoundError(arguments[0])


def test_a_clock_that_nobody_keeps_is_said() -> None:
    assert verdict(checks.clock(saying("no\n"))) == "warn"
    assert verdict(checks.clock(saying("yes\n"))) == "ok"
    assert verdict(checks.clock(nothing)) == "ok"


def test_a_failed_unit_is_found_wherever_it_is() -> None:
    assert verdict(checks.systemd(saying("inactive\n", "failed\n"), booted=True)) == "fail"
    assert checks.systemd(saying("active\n", "inactive\n", ""), booted=True)["message"] == "active (system)"
    assert "install-service" in checks.systemd(saying("unknown\n", "unknown\n"), booted=True)["message"]
    assert verdict(checks.systemd(nothing, booted=True)) == "ok"
    assert verdict(checks.systemd(nothing, booted=False)) == "ok"


def test_a_unit_that_runs_is_shown_with_its_program_its_restarts_and_its_watchdog() -> None:
    program = "ExecStart={ path=/opt/finetuned/releases/1/bin/finetuned ; argv[]=x }\n"
    found = checks.systemd(
        saying("active\n", "inactive\n", f"NRestarts=1\n{program}WatchdogUSec=0\n"), booted=True
    )
    assert verdict(found) == "ok"
    assert found["message"] == (
        "active (system), /opt/finetuned/releases/1/bin/finetuned, without a watchdog, started again 1 times"
    )
    often = checks.systemd(saying("inactive\n", "active\n", "NRestarts=7\nWatchdogUSec=30s\n"), booted=True)
    assert (verdict(often), often["message"]) == (
        "warn",
        "active (user); systemd has started it again 7 times.",
    )
    assert "journalctl --user" in (often["remedy"] or "")


def test_what_a_program_prints_is_read_whatever_its_exit_code() -> None:
    assert checks.command(["sh", "-c", "echo inactive; exit 3"]) == "inactive\n"


def test_a_port_that_another_program_has_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = ("127.0.0.1", other.getsockname()[1])
        taken = checks.port(address, daemon_there=False)
        assert verdict(taken) == "fail"
        assert "another program has it" in taken["message"]
        assert "takes connections" in checks.port(address, daemon_there=True)["message"]
    alone = checks.port(address, daemon_there=True)
    assert verdict(alone) == "ok"
    assert "has TCP switched off" in alone["message"]
    assert verdict(checks.port(address, daemon_there=False)) == "ok"
    assert verdict(checks.port(None, daemon_there=False)) == "ok"
    assert verdict(checks.port(("203.0.113.9", 1), daemon_there=False)) == "fail"


# ---- GPUs ----------------------------------------------------------------------------------------------------


class NvmlError(Exception):
    pass


class Driver:
    """As much of NVML as is asked, with something wrong at one place."""

    NVMLError: type[Exception] = NvmlError

    def __init__(self, wrong: str = "") -> None:
        self.wrong = wrong
        self.open = 0

    def nvmlInit(self) -> None:
        if self.wrong == "start":
            raise NvmlError("Driver/library version mismatch")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:
        if self.wrong == "device" and index == 1:
            raise NvmlError("GPU is lost")
        return index

    def nvmlDeviceGetUUID(self, handle: object) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetName(self, handle: object) -> str:
        return f"H200 {handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: object) -> object:
        raise NotImplementedError


def test_gpus_that_answer_are_named() -> None:
    driver = Driver()
    assert gpu_check.gpus(driver)["message"] == "H200 0, H200 1"  # type: ignore[arg-type]
    assert driver.open == 0


@pytest.mark.parametrize(("wrong", "said"), [("start", "version mismatch"), ("device", "GPU is lost")])
def test_a_driver_that_is_ill_is_refused(wrong: str, said: str) -> None:
    driver = Driver(wrong)
    found = gpu_check.gpus(driver)  # type: ignore[arg-type]
    assert verdict(found) == "fail"
    assert said in found["message"]
    assert driver.open == 0


def test_a_gpu_without_a_driver_is_found_on_the_bus(tmp_path: Path) -> None:
    for number, (vendor, kind) in enumerate(
        [("0x10de", "0x030200"), ("0x10de", "0x040300"), ("0x8086", "0x030000")]
    ):
        device = tmp_path / str(number)
        device.mkdir()
        (device / "vendor").write_text(vendor + "\n")
        (device / "class").write_text(kind + "\n")
    (tmp_path / "3").mkdir()
    found = gpu_check.gpus(None, tmp_path)
    assert verdict(found) == "fail"
    assert "1 NVIDIA GPU is there" in found["message"]
    assert verdict(gpu_check.gpus(None, tmp_path / "none")) == "ok"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_where_nothing_can_be_made_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert verdict(checks.state_directory(tmp_path / "a")) == "fail"
    assert verdict(checks.state_directory(tmp_path)) == "fail"
