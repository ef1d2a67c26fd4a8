"""A loss of power while a backup is put back, or a log archived: what has a log is whole, and what was told is there."""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from tests.powerloss import trace
from tests.powerloss.disk import Disk, Tree
from tests.powerloss.restores import UPTO

from finetuned.store import open_log
from finetuned_events import archive

PARTS = 8  # random parts of what was not synced, an operation


def crashes(what: str, base: Path) -> Iterator[tuple[str, dict[str, bytes], bool]]:
    """After each operation of a restore: a description, the files that may be left, and whether it was done."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: the system calls cannot be seen")
    root, marks = base.resolve() / "root", base.resolve() / "marks"
    root.mkdir()
    command = [sys.executable, "-m", "tests.powerloss.restores", what, str(root), str(marks)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COV")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    trace.record(command, base / "trace", environment, timeout_s=100)
    model, chance, marked = Disk(root), random.Random(5), 0
    for operation in trace.operations(base / "trace", root, marks):
        model.do(operation)
        if operation.kind == "mark":
            marked += 1
            if marked == 1:
                model.settle()
        if not marked:
            continue
        variants = [model.everything(), model.synced(), model.names_only(), model.lengths_only()]
        for tree in [*variants, *(model.some(chance) for _ in range(PARTS))]:
            yield str(operation), contents(tree), marked > 1


def contents(tree: Tree) -> dict[str, bytes]:
    return {path: entry.content for path, entry in tree.items() if entry.node.kind == "file"}


def below(files: dict[str, bytes], directory: str) -> dict[str, bytes]:
    return {
        path.removeprefix(f"{directory}/"): content
        for path, content in files.items()
        if path.startswith(f"{directory}/")
    }


@pytest.mark.timeout(300)
def test_a_restored_directory_that_has_a_log_has_all_that_was_backed_up(tmp_path: Path) -> None:
    states = done_states = 0
    for operation, files, done in crashes("all", tmp_path):
        backup, new = below(files, "backup"), below(files, "new")
        whole = {path: content for path, content in backup.items() if path != "manifest.json"}
        assert len(whole) > 5
        if done or "events.sqlite" in new:
            assert {path: new.get(path) for path in whole} == whole, operation
        states, done_states = states + 1, done_states + done
    assert states > 300
    assert done_states


@pytest.mark.timeout(300)
def test_no_log_that_was_put_back_has_the_rest_of_another_beside_it(tmp_path: Path) -> None:
    first: dict[str, bytes] = {}
    for operation, files, done in crashes("log", tmp_path):
        first = first or below(files, "state")
        backup, state = below(files, "backup"), below(files, "state")
        is_new = state.get("events.sqlite") == backup["events.sqlite"]
        assert is_new or not done, operation
        if not is_new and "events.sqlite" in state:
            assert state["events.sqlite"] == first["events.sqlite"], operation
        assert not (is_new and state.get("events.sqlite-wal")), operation
        aside = [content for path, content in state.items() if path.startswith("before-restore-")]
        if is_new:
            assert first["events.sqlite"] in aside, operation


@pytest.mark.timeout(300)
def test_no_event_is_gone_from_the_log_before_its_archive_is_on_disk(tmp_path: Path) -> None:
    looked: dict[tuple[bytes, ...], tuple[int, int]] = {}
    sealed_states, kept = 0, "kept/deep/beginning.gz"
    for operation, files, done in crashes("archive", tmp_path):
        state = below(files, "state")
        key = tuple(state.get(name, b"") for name in ("events.sqlite", "events.sqlite-wal"))
        if key not in looked:
            looked[key] = left_of(tmp_path / "scratch", key)
        sealed, events = looked[key]
        first = next(iter(looked.values()))
        assert first[0] == 0
        assert (sealed, sealed + events) in {(0, first[1]), (UPTO, first[1])}, operation
        assert sealed or not done, operation
        if sealed:
            archived = tmp_path / "archive.gz"
            assert kept in files, operation
            archived.write_bytes(files[kept])
            assert archive.check(archived).head.seq == UPTO, operation
        sealed_states += bool(sealed)
    assert sealed_states > 50
    assert len(looked) > 10


def left_of(scratch: Path, content: tuple[bytes, ...]) -> tuple[int, int]:
    """Open what a crash left of a log: the position of its seal, and how many events are behind it."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for name, written in zip(("events.sqlite", "events.sqlite-wal"), content, strict=True):
        (scratch / name).write_bytes(written)

    async def look() -> tuple[int, int]:
        async with open_log(scratch / "events.sqlite") as log:
            report = await log.verify()
            assert report.problems == ()
            assert await log.differing() == []
            return log.sealed, report.events

    return anyio.run(look)
