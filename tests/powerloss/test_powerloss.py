"""A run whose power is cut, small; and the harness itself, held to finding what it looks for."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.powerloss import disk, trace
from tests.powerloss.disk import Disk
from tests.powerloss.run import Report, Run
from tests.powerloss.trace import Operation, TraceError

ROOT = Path("/r")


def operation(kind: str, path: str, number: int, **more: object) -> Operation:
    return replace(Operation(kind, f"/r/{path}", number), **more)  # type: ignore[arg-type]


def contents(tree: disk.Tree) -> dict[str, bytes]:
    return {path: entry.content for path, entry in tree.items() if entry.node.kind == "file"}


def disk_after(*operations: Operation) -> Disk:
    made = Disk(ROOT)
    for each in operations:
        made.do(each)
    return made


SAVED = (
    operation("create", "new", 0),
    operation("append", "new", 1, data=b"content"),
    operation("rename", "new", 2, target="/r/file"),
)
TOP = Operation("sync", "/r", 3)


def test_a_rename_before_its_data_leaves_an_empty_file() -> None:
    assert contents(disk_after(*SAVED).names_only()) == {"file": b""}
    assert contents(disk_after(*SAVED).lengths_only()) == {"file": bytes(7)}
    assert contents(disk_after(*SAVED, TOP).synced()) == {"file": b""}


def test_a_file_that_is_synced_has_no_name_before_its_directory_is() -> None:
    made = disk_after(*SAVED[:2], operation("sync", "new", 2))
    assert contents(made.synced()) == {}
    assert contents(made.everything()) == {"new": b"content"}
    made.do(replace(TOP, began=3))
    assert contents(made.synced()) == {"new": b"content"}


def test_a_sync_covers_what_had_ended_when_it_began_and_no_more() -> None:
    synced = disk_after(*SAVED[:2], operation("sync", "new", 1), replace(TOP, began=3))
    assert contents(synced.synced()) == {"new": b""}


def test_an_older_meaning_of_a_name_does_not_come_back() -> None:
    made = disk_after(
        *SAVED[:2], operation("sync", "new", 2), replace(SAVED[2], began=3), replace(TOP, began=4)
    )
    for seed in range(20):
        assert contents(made.some(random.Random(seed))) == {"file": b"content"}


def test_any_part_of_what_was_not_synced_may_be_left() -> None:
    made = disk_after(
        operation("create", "log", 0),
        Operation("sync", "/r", 1),
        operation("write", "log", 2, data=b"ab", offset=0),
        operation("write", "log", 3, data=b"cd", offset=2),
    )
    left = {contents(made.some(random.Random(seed)))["log"] for seed in range(100)}
    assert left == {b"", b"a", b"ab", b"abc", b"abcd", b"\0\0c", b"\0\0cd"}


def test_what_the_model_does_not_know_is_said(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="not modelled"):
        disk_after(operation("unknown sendfile", "file", 0))
    with pytest.raises(TraceError, match="No such file"):
        disk_after(operation("append", "file", 0, data=b"a"))
    (tmp_path / "trace").write_text("1 something else\n")
    with pytest.raises(TraceError, match="something else"):
        trace.operations(tmp_path / "trace", ROOT, tmp_path / "marks")


# ---- a real run ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: the system calls cannot be seen")
    made = Run(tmp_path_factory.mktemp("powerloss").resolve(), seed=3, parts=1, every=60)
    made.record()
    yield made
    shutil.rmtree(made.base)


@pytest.mark.timeout(400)
def test_nothing_that_was_told_is_missing_after_a_loss_of_power(run: Run) -> None:
    report = run.check(0, 1)
    assert report.checked > 50
    assert not report.failures, report.text()


@pytest.mark.timeout(400)
def test_a_daemon_goes_on_from_what_a_loss_of_power_left(run: Run) -> None:
    report = Report()
    run.restart_some(1, report)
    assert (report.restarted, report.failures) == (1, [])


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("unsynced", "found"),
    [
        ("sqlite-wal$", "A client has seen event"),
        ("root$", "A client has seen event"),
        ("/secrets$", "A secret that was stored is not there"),
        (r"\.part$", "names a data set whose file is not whole"),
        (r"manifest\.json", "checkpoint that is not whole"),
    ],
)
def test_a_sync_that_is_left_out_is_found(run: Run, unsynced: str, found: str) -> None:
    mutilated = replace(run, unsynced=unsynced)
    states = [each for each in mutilated.states(mutilated.operations(), Report()) if each.variant == "synced"]
    some = [*states[:: max(1, len(states) // 5)], states[-1]]
    with run.checker() as checker:
        problems = [problem for each in some for problem in checker.problems(each.tree, each.told)]
    assert any(found in problem for problem in problems), problems
