"""What one look at this machine says, held against what else is known of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from finetuned.telemetry.host import HostReader


def times(busy: float, idle: float, iowait: float = 0.0) -> SimpleNamespace:
    return Times(busy, 0.0, idle, iowait)


class Times(SimpleNamespace):
    def __init__(self, user: float, nice: float, idle: float, iowait: float) -> None:
        super().__init__(user=user, nice=nice, idle=idle, iowait=iowait)

    def __iter__(self) -> object:
        return iter((self.user, self.nice, self.idle, self.iowait))


def test_a_look_tells_memory_disk_and_the_process_as_the_system_does(tmp_path: Path) -> None:
    host = HostReader(tmp_path).read()
    assert host.memory.total == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < host.memory.used < host.memory.total
    assert host.disk.total == shutil.disk_usage(tmp_path).total
    assert host.daemon.pid == os.getpid()
    assert host.daemon.rss > 10 * 2**20
    assert 0 < host.daemon.open_files <= host.daemon.max_files
    assert host.daemon.cpu_s > 0
    assert 1 <= host.cpu.usable_cores <= host.cpu.cores


def test_open_files_are_counted(tmp_path: Path) -> None:
    reader = HostReader(tmp_path)
    before = reader.read().daemon.open_files
    with (tmp_path / "one").open("w"), (tmp_path / "two").open("w"):
        assert reader.read().daemon.open_files == before + 2


def test_utilization_is_the_share_of_time_since_the_last_look_and_waiting_for_the_disk_is_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = HostReader(tmp_path)
    readings = iter([times(100, 100), times(130, 160, iowait=10), times(130, 160, iowait=10)])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(readings))
    assert reader.read().cpu.utilization is None  # nothing to compare it with
    assert reader.read().cpu.utilization == pytest.approx(0.3)
    assert reader.read().cpu.utilization is None  # no time has passed


def test_traffic_of_a_machine_with_itself_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interfaces = {
        "lo": SimpleNamespace(bytes_recv=1, bytes_sent=2),
        "eth0": SimpleNamespace(bytes_recv=30, bytes_sent=40),
        "eth1": SimpleNamespace(bytes_recv=500, bytes_sent=600),
    }
    monkeypatch.setattr(psutil, "net_io_counters", lambda pernic: interfaces)
    network = HostReader(tmp_path).read().network
    assert (network.received, network.sent) == (530, 640)
