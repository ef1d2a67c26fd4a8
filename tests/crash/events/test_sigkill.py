"""A process is killed again and again while it appends: nothing acknowledged is ever lost."""

from __future__ import annotations

import importlib.util
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

import finetuned_events

KILLS = int(os.environ.get("FINETUNED_CRASH_KILLS", "100"))
SEED = int(os.environ.get("FINETUNED_CRASH_SEED", "0")) or time.time_ns()
CHILD = Path(__file__).with_name("child.py")
LONGEST = 0.12  # s a child lives after its first acknowledgement


@dataclass
class Zygote:
    """The process that forks children, and the pipe on which these acknowledge."""

    process: subprocess.Popen[bytes]
    acknowledged: int

    def kill_one(self, path: Path, life: float) -> dict[int, int]:
        """Let a child append, kill it after `life` seconds of work; return what it acknowledged."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{path}\n".encode())
        self.process.stdin.flush()
        (pid,) = struct.unpack("<q", self.process.stdout.read(8))
        ready, _, _ = select.select([self.acknowledged], [], [], 30)
        assert ready, "the child acknowledged nothing"
        deadline = time.monotonic() + life
        received = b""
        # Drained all the time, so that the child never waits for us.
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.acknowledged], [], [], left)[0]:
                received += os.read(self.acknowledged, 1 << 16)

        os.kill(pid, signal.SIGKILL)
        assert struct.unpack("<q", self.process.stdout.read(8)) == (0,)
        while select.select([self.acknowledged], [], [], 0)[0]:
            received += os.read(self.acknowledged, 1 << 16)

        return dict(struct.iter_unpack("<qq", received))


@contextmanager
def zygote() -> Iterator[Zygote]:
    reading, writing = os.pipe()
    environment = {**os.environ, "PYTHONPATH": str(Path(finetuned_events.__file__).parents[1])}
    # The child finds the pipe as its descriptor 3.
    launch = f'exec "$0" "$1" 3>&{writing}'
    with subprocess.Popen(
        ["bash", "-c", launch, sys.executable, str(CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[writing],
        env=environment,
    ) as process:
        os.close(writing)
        try:
            yield Zygote(process, reading)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(30)
            os.close(reading)


def child_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("crash_child", CHILD)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.crash
@pytest.mark.timeout(60 + KILLS)
async def test_nothing_acknowledged_is_lost_when_the_process_is_killed(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(SEED)
    path = tmp_path / "events.db"
    child = child_module()
    acknowledged: dict[int, int] = {}
    with zygote() as forks:
        for kill in range(KILLS):
            said = forks.kill_one(path, chance.random() * LONGEST)
            assert not said.keys() & acknowledged.keys(), "a position was given twice"
            acknowledged |= said
            if kill % 10 and kill != KILLS - 1:
                continue

            # Everything is looked at every ten kills, and what was said meanwhile each time.
            async with child.open_log(path) as log:
                rows = dict(await log.fetch("SELECT seq, json_extract(data, '$.value') FROM events"))
                assert list(rows) == list(range(1, len(rows) + 1)), f"a gap (seed {SEED})"
                lost = {seq: value for seq, value in acknowledged.items() if rows.get(seq) != value}
                assert not lost, f"lost {lost} (seed {SEED})"

    async with child.open_log(path) as log:
        verified = await log.verify()
        assert verified.ok, (verified.problems, SEED)
        assert verified.events >= len(acknowledged) >= KILLS
        assert (await log.rebuild()).equal, f"projections differ from a replay (seed {SEED})"

    record_property("kills", KILLS)
    record_property("acknowledged", len(acknowledged))
    print(f"{KILLS} kills, {len(acknowledged)} acknowledgements, {verified.events} events, 0 lost")  # noqa: T201 - with -s
