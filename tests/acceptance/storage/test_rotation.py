"""What jobs print: rotated again and again under a reader, without losing a line."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.acceptance.daemon.process import Daemon

from finetuned.attempts.output import OutputLog
from finetuned.config import Config
from finetuned.output.files import OutputReader

LIMIT = 10_000  # bytes of a file
FILES = 7
ROTATIONS = 200


class Following:
    """A reader in a thread of its own, as the daemon has them. ``behind`` is what it has not read yet."""

    def __init__(self, directory: Path) -> None:
        self._reader = OutputReader(directory)
        self.read = bytearray()
        self.caught_up = threading.Condition()
        self.is_done = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self._reader as reader:
            while True:
                done = self.is_done  # before the read: what was written until then is read
                block = reader.read()
                with self.caught_up:
                    self.read += block
                    self.caught_up.notify()
                if done and not block:
                    return

    def wait_until(self, position: int) -> None:
        with self.caught_up:
            assert self.caught_up.wait_for(lambda: len(self.read) >= position, timeout=60)

    def finish(self) -> bytes:
        self.is_done = True
        self._thread.join(timeout=60)
        assert not self._thread.is_alive()
        return bytes(self.read)


def test_two_hundred_rotations_lose_no_line_of_who_follows(tmp_path: Path) -> None:
    log = OutputLog(tmp_path / "output.log", limit=LIMIT, files=FILES)
    following = Following(tmp_path)
    written, number = bytearray(), 0
    while len(written) < ROTATIONS * LIMIT:
        lines = b"".join(b"line %d of many\n" % each for each in range(number, number + 50))
        number += 50
        log.write(lines)
        written += lines
        following.wait_until(len(written) - (FILES - 3) * LIMIT)  # files that are removed cannot be read
    log.close()
    assert following.finish() == written
    rotated = [int(each.suffix[1:]) for each in tmp_path.glob("output.log.*")]
    assert len(rotated) == FILES - 1
    assert max(rotated) > (ROTATIONS - 2) * LIMIT


def test_ten_megabytes_times_seven_are_kept_unless_somebody_wants_it_otherwise() -> None:
    config = Config()
    assert (config.output_file_bytes, config.output_files) == (10_000_000, 7)


def test_output_is_rotated_as_configured_and_a_restart_of_the_daemon_loses_none_of_it(tmp_path: Path) -> None:
    settings = tmp_path / "config.toml"
    settings.write_text("output_file_bytes = 10000\noutput_files = 50\n", encoding="utf-8")
    with Daemon(FINETUNED_CONFIG=str(settings)) as daemon:
        daemon.start()
        job_id = daemon.held(steps=20, output_lines=300)
        daemon.kill()
        daemon.open_gate()
        daemon.start()
        assert daemon.wait_for(job_id)["state"] == "succeeded"
        directory = daemon.state / "jobs" / job_id / "attempts" / "1"
        assert len(list(directory.glob("output.log.*"))) > 5
        printed = daemon.ok("GET", f"/v1/jobs/{job_id}/logs?attempt=1")
        numbered = [line for line in printed.splitlines() if "line" in line]
        assert len(numbered) == len(set(numbered)) == 20 * 300
