"""The daemon as a process: how soon it is ready, what it weighs when idle, and that torch is not in it."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self.path))


def is_ready(path: Path) -> bool:
    """Whether the daemon says that it is ready."""
    connection = UnixConnection(path)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def memory(pid: int) -> dict[str, int]:
    """Resident and private memory of a process in KiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    fields = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
    return {"rss": fields["Rss"], "private": fields["Private_Clean"] + fields["Private_Dirty"]}


def measure(settle_s: float) -> dict[str, Any]:
    """Start a daemon on a fresh state directory, wait until it is ready, let it settle, and look at it."""
    with tempfile.TemporaryDirectory(prefix="ft-") as scratch:
        path = Path(scratch, "s")
        command = [
            sys.executable,
            "-m",
            "finetuned",
            "--state-dir",
            scratch,
            "--socket",
            str(path),
            "--listen",
            "",
        ]
        started = time.perf_counter()
        process = subprocess.Popen([*command, "--log-level", "error"])
        try:
            while not is_ready(path):
                assert process.poll() is None, "the daemon ended before it was ready"
                time.sleep(0.005)
            ready = time.perf_counter() - started
            time.sleep(settle_s)
            weight = memory(process.pid)
            before = os.times()
            ticks = cpu_ticks(process.pid)
            time.sleep(settle_s)
            idle = (
                (cpu_ticks(process.pid) - ticks)
                / os.sysconf("SC_CLK_TCK")
                / (os.times().elapsed - before.elapsed)
            )
            maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")
            assert "torch" not in maps, "torch is in the daemon"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=10)
        return {
            "import_s": import_s(),
            "ready_s": ready,
            "rss_mib": weight["rss"] / 1024,
            "private_mib": weight["private"] / 1024,
            "idle_cpu": idle,
        }


def import_s() -> float:
    """How long this machine takes, right now, to import the daemon's two largest libraries: its floor."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import aiohttp.web, pydantic; pydantic.BaseModel"], check=True)
    return time.perf_counter() - started


def cpu_ticks(pid: int) -> int:
    """User and system time of a process in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    runs = [measure(1.0 if options.quick else 3.0) for _ in range(3 if options.quick else 7)]
    figures = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    print(f"{'':24}{'median':>10}{'target':>12}")
    print(f"{'start to ready, s':24}{figures['ready_s']:>10.2f}{'0.6':>12}")
    print(f"{'of it aiohttp, pydantic':24}{figures['import_s']:>10.2f}{'-':>12}")
    print(f"{'idle RSS, MiB':24}{figures['rss_mib']:>10.1f}{'64':>12}")
    print(f"{'idle private, MiB':24}{figures['private_mib']:>10.1f}{'-':>12}")
    print(f"{'idle CPU, share':24}{figures['idle_cpu']:>10.4f}{'-':>12}")
    if options.json:
        options.json.write_text(json.dumps({"median": figures, "runs": runs}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
