"""Cut the power at every operation on the disk and look what is left: ``python -m tests.powerloss.run``.

A daemon, its client and its jobs run once under strace. After each operation that changed or synced something, the
disk is rebuilt as a crash may have left it (``tests.powerloss.disk`` says what may be lost): all of it, only what was
synced, all names without the data, all lengths with zeros in them, all data without the names, and random parts. Each
state that is new is checked (``tests.powerloss.checker``), and on some of them a daemon is started, which has to bring
every job to its end. The exit code is 1 if anything does not hold.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from tests.powerloss import disk, trace, workload
from tests.powerloss.checker import LOG, Checker, Told, history
from tests.powerloss.disk import Disk, Tree
from tests.powerloss.restart import restart
from tests.powerloss.trace import Operation, TraceError

EXACT: Final = ("everything", "synced", "names_only", "lengths_only", "data_only")
CORES: Final = 2
RUN_S: Final = 600.0  # seconds that the traced run may take
SHOWN: Final = 40  # failures that are printed


@dataclass(frozen=True, slots=True)
class Failure:
    """A state that does not hold."""

    number: int
    variant: str
    operation: str
    problem: str


@dataclass(frozen=True, slots=True)
class State:
    """A disk after a crash. ``number``: of the operation that was the last."""

    number: int
    variant: str
    operation: Operation
    tree: Tree
    told: Told


@dataclass
class Report:
    """What was looked at."""

    operations: int = 0
    states: int = 0
    different: Counter[str] = field(default_factory=Counter)
    checked: int = 0
    failed: int = 0
    restarted: int = 0
    stuck: int = 0
    failures: list[Failure] = field(default_factory=list)

    def note(self, state: State, problems: Sequence[str]) -> None:
        """What was found about a state that was checked."""
        self.checked += 1
        self.failed += bool(problems)
        self.add(state, problems)

    def add(self, state: State, problems: Sequence[str]) -> None:
        """What does not hold."""
        self.failures += [
            Failure(state.number, state.variant, str(state.operation), problem) for problem in problems
        ]

    def text(self) -> str:
        """For people."""
        kinds = ", ".join(f"{count:,} {name}" for name, count in self.different.items())
        lines = [
            f"{self.operations:,} operations, {self.states:,} states, {self.different.total():,} different ({kinds})",
            f"{self.checked - self.failed:,} of {self.checked:,} hold",
            f"{self.restarted - self.stuck:,} of {self.restarted:,} daemons went on from one of them",
        ]
        by_problem = Counter(each.problem for each in self.failures)
        lines += [f"{count:>6} x {problem}" for problem, count in by_problem.most_common(SHOWN)]
        lines += [
            f"  after {each.number} {each.operation}, {each.variant}: {each.problem}"
            for each in self.failures[:SHOWN]
        ]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Run:
    """A run that was traced, and how its crashes are drawn. One state in ``every`` is checked.

    ``unsynced``: syncs of paths in which this is found are taken to have done nothing, to see what they are good for.
    """

    base: Path
    seed: int
    parts: int
    every: int = 1
    unsynced: str | None = None

    @property
    def root(self) -> Path:
        """Where the daemon's files were."""
        return self.base / "root"

    @property
    def final(self) -> Path:
        """What the run really left."""
        return self.base / "final"

    def record(self) -> None:
        """Let it happen, under strace."""
        self.root.mkdir()
        command = [sys.executable, "-m", "tests.powerloss.workload", str(self.root), str(self.base / "marks")]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("COV")}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        trace.record(command, self.base / "trace", environment, timeout_s=RUN_S)
        self.root.rename(self.final)

    def operations(self) -> list[Operation]:
        """What was done. Raises ``TraceError`` if doing it again in the model does not give the files that there are."""
        found = trace.operations(self.base / "trace", self.root, self.base / "marks")
        model = Disk(self.root)
        for operation in found:
            model.do(operation)
        compare(model.everything(), self.final)
        return [replace(each, kind="mark", data=b"{}") if self._is_undone(each) else each for each in found]

    def _is_undone(self, operation: Operation) -> bool:
        undone = self.unsynced is not None and re.search(self.unsynced, operation.path) is not None
        return undone and operation.kind == "sync"

    def states(self, operations: list[Operation], report: Report) -> Iterator[State]:
        """Each state that is not like one before. The report counts."""
        model, told, seen = Disk(self.root), Told(), set()
        chance = random.Random(self.seed)
        for number, operation in enumerate(operations):
            model.do(operation)
            if operation.kind == "mark":
                told = told.and_(json.loads(operation.data))
            report.operations += 1
            variants = [(name, getattr(model, name)) for name in EXACT]
            variants += [("part", partial(model.some, chance))] * self.parts
            for name, make in variants:
                report.states += 1
                tree = make()
                key = hash((told, tuple((path, entry.token) for path, entry in tree.items())))
                if key not in seen:
                    seen.add(key)
                    report.different[name] += 1
                    yield State(number, name, operation, tree, told)

    def check(self, share: int, shares: int) -> Report:
        """Check every so-manieth state."""
        report = Report()
        with self.checker() as checker:
            for index, state in enumerate(self.states(self.operations(), report)):
                if index % self.every or index // self.every % shares != share:
                    continue
                report.note(state, checker.problems(state.tree, state.told))
        return report

    @contextmanager
    def checker(self) -> Iterator[Checker]:
        """What knows how the run ended."""
        scratch = Path(tempfile.mkdtemp(prefix="powerloss-", dir=memory()))
        try:
            whole = Path(shutil.copytree(self.final, scratch / "final", symlinks=True))
            values = frozenset({workload.SECRET, workload.CHANGED_SECRET})
            yield Checker(self.root, history(whole / LOG), values, scratch / "state")
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def check_all(self) -> Report:
        """Check them in processes side by side."""
        with multiprocessing.get_context("spawn").Pool(CORES) as pool:
            first, *others = pool.starmap(self.check, [(share, CORES) for share in range(CORES)])
        for each in others:
            first.checked += each.checked
            first.failed += each.failed
            first.failures += each.failures
        return first

    def restart_some(self, count: int, report: Report) -> None:
        """Let a daemon go on from some of the states, where it was."""
        counted = Report()
        states = list(self.states(self.operations(), counted))
        chosen = random.Random(self.seed).sample(range(len(states)), min(count, len(states)))
        for index in sorted(chosen):
            state = states[index]
            shutil.rmtree(self.root, ignore_errors=True)
            self.root.mkdir()
            disk.write(state.tree, self.root)
            found = restart(self.root)
            report.restarted += 1
            report.stuck += bool(found)
            report.add(state, found)


def compare(tree: Tree, directory: Path) -> None:
    """Raises ``TraceError`` if the model's files are not those in the directory, byte for byte."""
    real = {str(path.relative_to(directory)): path for path in directory.rglob("*")}
    real = {name: path for name, path in real.items() if not name.endswith(trace.IGNORED)}
    if real.keys() != tree.keys():
        raise TraceError(f"The model has other files: {sorted(real.keys() ^ tree.keys())}")
    for name, entry in tree.items():
        if entry.node.kind == "file" and real[name].read_bytes() != entry.content:
            raise TraceError(f"The model has another content for {name}.")


def memory() -> Path | None:
    """A file system in memory, if there is one."""
    shared = Path("/dev/shm")
    return shared if os.access(shared, os.W_OK) else None


def carry_out(*, seed: int, parts: int, restarts: int, every: int, unsynced: str | None) -> Report:
    """Trace a run, check its states, start a daemon on some."""
    base = Path(tempfile.mkdtemp(prefix="ftp-")).resolve()
    try:
        run = Run(base, seed, parts, every, unsynced)
        run.record()
        report = run.check_all()
        run.restart_some(restarts, report)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return report


def main(arguments: list[str] | None = None) -> int:
    """Carry out what is asked for; print what was found."""
    parser = argparse.ArgumentParser(description="Cut the power at every operation, and look what is left.")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument(
        "--parts", type=int, default=2, help="random parts of what was not synced, an operation"
    )
    parser.add_argument("--restarts", type=int, default=50, help="states that a daemon is started on")
    parser.add_argument("--every", type=int, default=1, help="check one state in so many")
    parser.add_argument("--unsynced", help="act as if no path in which this pattern is found was ever synced")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    report = carry_out(
        seed=options.seed,
        parts=options.parts,
        restarts=options.restarts,
        every=options.every,
        unsynced=options.unsynced,
    )
    print(f"seed {options.seed}, {time.monotonic() - began:.0f} s")  # noqa: T201 - a program's output
    print(report.text())  # noqa: T201
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
