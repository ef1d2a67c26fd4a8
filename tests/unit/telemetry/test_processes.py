from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from finetuned.telemetry import processes
from finetuned.telemetry.processes import Process

TICKS = os.sysconf("SC_CLK_TCK")


def process(pid: int, parent: int, session: int = 1) -> Process:
    return Process(
        pid=pid, name=f"p{pid}", parent=parent, session=session, started=pid, cpu_s=0, threads=1, rss=100
    )


def table(*found: Process) -> dict[int, Process]:
    return {each.pid: each for each in found}


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
    ) as started:
        yield started
        started.kill()


def test_the_table_holds_this_process_and_its_children(child: subprocess.Popen[bytes]) -> None:
    found = processes.read_table()
    assert found[os.getpid()].rss > 10 * 2**20
    assert found[os.getpid()].cpu_s > 0
    assert found[child.pid].parent == os.getpid()
    assert found[child.pid].session == child.pid
    assert found[child.pid].threads == 1


def test_a_process_that_has_ended_and_was_not_reaped_is_not_in_the_table(
    child: subprocess.Popen[bytes],
) -> None:
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert child.pid not in processes.read_table()


def test_a_name_with_spaces_and_brackets_is_read_whole() -> None:
    line = b"42 (a ) (b) R 7 42 40 0 -1 0 0 0 0 0 %d %d 0 0 20 0 3 0 555 1000 12 0 0" % (2 * TICKS, TICKS)
    found = processes.parse(line)
    assert found is not None
    assert (found.pid, found.name, found.parent, found.session) == (42, "a ) (b", 7, 40)
    assert (found.cpu_s, found.threads, found.started) == (3.0, 3, 555)
    assert found.rss == 12 * os.sysconf("SC_PAGE_SIZE")
    assert processes.parse(line.replace(b") R 7", b") Z 7")) is None
    assert processes.parse(b"") is None


def test_a_process_belongs_to_the_runner_that_it_descends_from() -> None:
    seen = table(process(10, 1), process(11, 10), process(12, 11), process(20, 1), process(30, 1))
    assert processes.owner(12, {10: "a", 20: "b"}, seen) == 10
    assert processes.owner(30, {10: "a", 20: "b"}, seen) is None
    assert processes.owner(99, {10: "a"}, seen) is None


def test_a_process_whose_parents_have_ended_is_known_by_its_session() -> None:
    seen = table(process(10, 1, session=10), process(12, 1, session=10))
    assert processes.owner(12, {10: "a"}, seen) == 10


def test_pids_that_changed_hands_while_they_were_read_make_no_endless_walk() -> None:
    seen = table(process(10, 11), process(11, 10))
    assert list(processes.ancestors(10, seen)) == [10, 11]


def test_families_are_roots_with_all_below_them_and_strangers_are_in_none() -> None:
    seen = table(process(10, 1), process(11, 10), process(20, 1), process(21, 20), process(5, 1))
    found = processes.families({10: "a", 20: "b", 77: "gone"}, seen)
    assert {root: {each.pid for each in members} for root, members in found.items()} == {
        10: {10, 11},
        20: {20, 21},
        77: set(),
    }
