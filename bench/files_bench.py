"""Files: what the daemon holds in memory while one of 2 GiB is sent, fetched, and sent in parts.

``python bench/files_bench.py --json FILE [--quick]``. A real daemon is asked over its Unix socket; the content is random
bytes, so that nothing can be left out. What comes back is compared by its SHA-256, and 300 random ranges byte by byte. The
daemon's resident memory is looked at every hundredth of a second; its growth is the peak less what it was before, with one
small file sent and fetched, so that what is imported on the way does not count.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIB = 1 << 20
PART = 64 * MIB
RANGES = 300
BOUNDARY = "b0undary"
TARGETS = {"growth_mib": 32.0}


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=600)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self._path))

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        if isinstance(body, dict):
            body, headers = json.dumps(body), {"Content-Type": "application/json"}
        self.request(method, path, body, headers or {})
        answer = self.getresponse()
        content = answer.read()
        assert answer.status == 200, content
        return json.loads(content)

    def send_form(
        self, path: str, fields: dict[str, str], name: str, content: Path, start: int, size: int
    ) -> Any:
        """Send a part of a file as the file of a form."""
        head = "".join(_field(key) + f"\r\n\r\n{value}\r\n" for key, value in fields.items())
        before = (head + _field(name) + '; filename="rows.jsonl"\r\n\r\n').encode()
        after = f"\r\n--{BOUNDARY}--\r\n".encode()
        headers = {
            "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
            "Content-Length": str(len(before) + size + len(after)),
        }

        def blocks() -> Iterator[bytes]:
            yield before
            yield from _blocks(content, start, size)
            yield after

        return self.ask("POST", path, blocks(), headers)


def _field(name: str) -> str:
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'


def _blocks(content: Path, start: int, size: int) -> Iterator[bytes]:
    with content.open("rb") as file:
        file.seek(start)
        while size:
            block = file.read(min(MIB, size))
            size -= len(block)
            yield block


@contextmanager
def daemon(state: Path, short: Path) -> Iterator[tuple[int, Path]]:
    """A daemon that is ready: its process and its socket, whose path must be short."""
    path = short / "s"
    command = [
        sys.executable,
        "-m",
        "finetuned",
        "--state-dir",
        str(state),
        "--socket",
        str(path),
        "--listen",
        "",
    ]
    process = subprocess.Popen([*command, "--log-level", "error"])
    try:
        while not _is_ready(path):
            assert process.poll() is None, "the daemon ended before it was ready"
            time.sleep(0.01)
        yield process.pid, path
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def _is_ready(path: Path) -> bool:
    try:
        Connection(path).ask("GET", "/readyz")
    except (OSError, AssertionError):
        return False
    return True


def rss_mib(pid: int) -> float:
    """The resident memory of a process."""
    return (
        int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        * os.sysconf("SC_PAGE_SIZE")
        / MIB
    )


@dataclass
class Watched:
    """What came of a look at a process."""

    before_mib: float
    peak_mib: float
    seconds: float = 0.0

    @property
    def growth_mib(self) -> float:
        return max(0.0, self.peak_mib - self.before_mib)


@contextmanager
def watched(pid: int) -> Iterator[Watched]:
    """Look at a process's memory and the time for as long as the block lasts."""
    found, done = Watched(rss_mib(pid), 0.0), threading.Event()

    def look() -> None:
        while not done.wait(0.01):
            found.peak_mib = max(found.peak_mib, rss_mib(pid))

    looking = threading.Thread(target=look)
    started = time.perf_counter()
    looking.start()
    try:
        yield found
    finally:
        found.seconds = time.perf_counter() - started
        done.set()
        looking.join()
        found.peak_mib = max(found.peak_mib, rss_mib(pid))


def fetch(path: Path, file_id: str) -> str:
    """Fetch a file; its SHA-256."""
    connection = Connection(path)
    connection.request("GET", f"/v1/files/{file_id}/content")
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    digest = hashlib.sha256()
    while block := answer.read(4 * MIB):
        digest.update(block)
    connection.close()
    return digest.hexdigest()


def compare_ranges(path: Path, file_id: str, content: Path, size: int) -> int:
    """Compare random ranges with the file that was sent; how many bytes that were."""
    chance, connection, compared = random.Random(3), Connection(path), 0
    with content.open("rb") as file:
        for _ in range(RANGES):
            start = chance.randrange(size)
            stop = min(size, start + 1 + chance.randrange(chance.choice((100, 100_000, 8 * MIB))))
            connection.request(
                "GET", f"/v1/files/{file_id}/content", headers={"Range": f"bytes={start}-{stop - 1}"}
            )
            answer = connection.getresponse()
            assert answer.status == 206, answer.read()
            file.seek(start)
            assert answer.read() == file.read(stop - start), f"bytes {start} to {stop} are others"
            compared += stop - start
    connection.close()
    return compared


def send_in_parts(path: Path, content: Path, size: int) -> str:
    """Send the file in parts; its id."""
    connection = Connection(path)
    begun = {
        "bytes": size,
        "filename": "rows.jsonl",
        "mime_type": "application/jsonl",
        "purpose": "fine-tune",
    }
    upload = connection.ask("POST", "/v1/uploads", begun)["id"]
    parts = [
        connection.send_form(f"/v1/uploads/{upload}/parts", {}, "data", content, at, min(PART, size - at))[
            "id"
        ]
        for at in range(0, size, PART)
    ]
    done = connection.ask("POST", f"/v1/uploads/{upload}/complete", {"part_ids": parts})
    connection.close()
    return str(done["file"]["id"])


def measure(size: int, beside: Path) -> dict[str, Any]:
    """Everything, on a disk that is ``beside``."""
    figures: dict[str, Any] = {"bytes": size, "ranges": RANGES}
    with (
        tempfile.TemporaryDirectory(prefix=".files-", dir=beside) as directory,
        tempfile.TemporaryDirectory(prefix="ft-") as short,
    ):
        content, digest, chance = Path(directory, "content"), hashlib.sha256(), random.Random(1)
        with content.open("wb") as file:
            for _ in range(size // MIB):
                block = chance.randbytes(MIB)
                digest.update(block)
                file.write(block)
        state = Path(directory, "state")
        with daemon(state, Path(short)) as (pid, path):
            purpose = {"purpose": "fine-tune"}
            small = Connection(path).send_form("/v1/files", purpose, "file", content, 0, MIB)["id"]
            fetch(path, small)
            time.sleep(1)
            with watched(pid) as sending:
                made = Connection(path).send_form("/v1/files", purpose, "file", content, 0, size)
            with watched(pid) as fetching:
                assert fetch(path, made["id"]) == digest.hexdigest(), "other bytes came than were sent"
            with watched(pid) as ranging:
                figures["compared_bytes"] = compare_ranges(path, made["id"], content, size)
            Connection(path).ask("DELETE", f"/v1/files/{made['id']}")
            with watched(pid) as parting:
                in_parts = send_in_parts(path, content, size)
            assert fetch(path, in_parts) == digest.hexdigest(), "the parts are other bytes"
    runs = {"send": sending, "fetch": fetching, "ranges": ranging, "send_in_parts": parting}
    for name, run in runs.items():
        figures[name] = {
            "growth_mib": run.growth_mib,
            "mib_per_s": (figures["compared_bytes"] if name == "ranges" else size) / MIB / run.seconds,
        }
    figures["before_mib"] = sending.before_mib
    figures["growth_mib"] = max(run.peak_mib for run in runs.values()) - sending.before_mib
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    beside = options.json.parent if options.json else Path.cwd()
    load = os.getloadavg()[0]
    figures = measure((64 if options.quick else 2048) * MIB, beside)
    document = {"targets": TARGETS, "load_before": load, **figures}
    print(f"{'a file of ' + str(figures['bytes'] // MIB) + ' MiB':<28}{'MiB/s':>10}{'growth, MiB':>14}")
    for name in ("send", "fetch", "ranges", "send_in_parts"):
        print(f"{name:<28}{figures[name]['mib_per_s']:>10.0f}{figures[name]['growth_mib']:>14.1f}")
    print(f"{'all, from before the first':<28}{'':>10}{figures['growth_mib']:>14.1f}   target 32")
    print(f"before: {figures['before_mib']:.1f} MiB; load {load:.1f}; {RANGES} ranges equal")
    if options.json:
        options.json.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
