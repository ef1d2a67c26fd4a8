"""What has to hold of whatever a crash left: nothing that was told is missing, nothing that is named is torn."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio
from tests.powerloss.disk import Tree, write

from finetuned.secrets.store import NAME, SecretStore
from finetuned.store import open_log
from finetuned_sdk import checkpoints, manifest
from finetuned_sdk.bundle import Bundle, BundleError, read_json
from finetuned_sdk.manifest import ManifestError

LOG: Final = "state/events.sqlite"
_ROWS: Final = (
    "SELECT seq, (SELECT name FROM streams WHERE id = stream), type, data, hash FROM events ORDER BY seq"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One event as it is in the log."""

    seq: int
    stream: str
    type: str
    data: Mapping[str, Any]
    hash: bytes


@dataclass(frozen=True, slots=True)
class Told:
    """What clients had been told by a moment."""

    head: int = 0
    secrets: tuple[str, ...] = ()
    events: tuple[tuple[str, str, int], ...] = ()  # type, stream's end, at least so many

    def and_(self, mark: Mapping[str, Any]) -> Told:
        """That, and what one mark says."""
        if not mark:
            return self
        if "head" in mark:
            return Told(mark["head"], self.secrets, self.events)
        if "secret" in mark:
            return Told(self.head, (*self.secrets, mark["secret"]), self.events)
        wanted = (mark["event"], mark["stream"], mark["count"])
        return Told(self.head, self.secrets, (*self.events, wanted))


def history(log: Path) -> list[Row]:
    """All events of the log that the run left."""

    async def read() -> list[Row]:
        async with open_log(log) as opened:
            rows = await opened.fetch(_ROWS)
            return [
                Row(seq, stream, kind, json.loads(data), hash_) for seq, stream, kind, data, hash_ in rows
            ]

    return anyio.run(read)


@dataclass
class Checker:
    """Checks states of a run below ``root`` with its whole ``history``. ``values``: what secrets ever were."""

    root: Path
    history: Sequence[Row]
    values: frozenset[str]
    scratch: Path
    logs: dict[object, tuple[int, list[str]]] = field(default_factory=dict)

    def problems(self, tree: Tree, told: Told) -> list[str]:
        """What does not hold, in sentences."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(parents=True)
        write(tree, self.scratch)
        # Many states differ only in files beside the log.
        key = tuple((path, entry.token) for path, entry in tree.items() if path.startswith(LOG))
        if key not in self.logs:
            self.logs[key] = anyio.run(self._log)
        head, found = self.logs[key]
        rows = self.history[:head]
        found = [*found, *_untold(rows, told), *self._named(rows), *self._bundles(tree), *self._secrets(told)]
        return list(dict.fromkeys(found))

    async def _log(self) -> tuple[int, list[str]]:
        path = self.scratch / LOG
        if not path.exists():
            return 0, []
        found: list[str] = []
        try:
            async with open_log(path) as log:
                if log.read_only is not None:
                    found.append(f"The log is read-only: {log.read_only}")
                report = await log.verify()
                found += report.problems
                found += [f"Table {name} is not what a replay gives." for name in await log.differing()]
                rows = await log.fetch(_ROWS)
        except Exception as error:  # noqa: BLE001 - whatever it says
            return 0, [f"The log cannot be opened: {error!r}"]
        expected = [each.hash for each in self.history[: len(rows)]]
        if [row[-1] for row in rows] != expected:
            found.append("The log's events are not the first ones of the run.")
        return len(rows), found

    def _here(self, path: str) -> Path:
        return self.scratch / Path(path).relative_to(self.root)

    def _named(self, rows: Sequence[Row]) -> Iterator[str]:
        """Files that events name are there and whole."""
        saved: dict[str, tuple[str, int]] = {}
        for row in rows:
            match row.type:
                case "checkpoint.saved":
                    saved[row.data["path"]] = (row.stream, row.data["step"])
                case "checkpoint.discarded":
                    saved.pop(row.data["path"], None)
                case "artifact.published":
                    yield from self._whole(row, row.data["path"])
                case "dataset.registered":
                    file = self._here(row.data["path"])
                    if not file.exists() or _sha256(file) != row.data["version"]:
                        yield f"Event {row.seq} names a data set whose file is not whole: {file.name}."
                case "attempt.launched":
                    attempt = self.scratch / "state" / "jobs" / row.stream.split("/")[-1] / "attempts"
                    bundle = Bundle(attempt / str(row.data["attempt"]))
                    if not bundle.spec_path.exists() or not bundle.runner_path.exists():
                        yield f"Event {row.seq} says that an attempt was launched; its bundle is not there."
        for path in saved:
            if not checkpoints.is_whole(self._here(path)):
                yield f"The log names a checkpoint that is not whole: {Path(path).name}."
        for stream in {stream for stream, _ in saved.values()}:
            step = max(step for each, step in saved.values() if each == stream)
            bundles = (self.scratch / "state" / "jobs" / stream.split("/")[-1] / "attempts").glob("*")
            newest = checkpoints.newest_in(bundles)
            if newest is None or checkpoints.step_of(newest) < step:
                yield f"The newest whole checkpoint is {newest}; the log knows of step {step}."

    def _whole(self, row: Row, path: str) -> Iterator[str]:
        try:
            manifest.verify(self._here(path))
        except ManifestError as error:
            yield f"Event {row.seq} ({row.type}) names what is not whole: {error}"

    def _bundles(self, tree: Tree) -> Iterator[str]:
        """Each file of a bundle is not there, or whole."""
        for path in tree:
            name = Path(path).name
            target = self.scratch / path
            if name in {"spec.json", "runner.json", "exit.json", "control.json"}:
                bundle = Bundle(target.parent)
                reads = (bundle.read_spec, bundle.read_runner, bundle.read_exit, bundle.read_control)
                try:
                    reads[("spec.json", "runner.json", "exit.json", "control.json").index(name)]()
                except BundleError as error:
                    yield f"{path} is there and does not read: {error}"
            elif name == "limits.json" or name.endswith(manifest.NAME):
                try:
                    read_json(target)
                except BundleError as error:
                    yield f"{path} is there and does not read: {error}"

    def _secrets(self, told: Told) -> Iterator[str]:
        """Each value that is there is one that was set, and the one last told, or a newer."""
        home = self.scratch / "state" / "secrets"
        store = SecretStore(home)
        there = {each.name for each in store.names()} if home.is_dir() else set()
        values = {store.read(name) for name in there if NAME.fullmatch(name)}
        if values - self.values:
            yield f"A secret is torn: {values}."
        if told.secrets and (not values or values <= set(told.secrets[:-1])):
            yield "A secret that was stored is not there."


def _untold(rows: Sequence[Row], told: Told) -> Iterator[str]:
    if len(rows) < told.head:
        yield f"A client has seen event {told.head}; the log ends at {len(rows)}."
    for kind, stream, count in told.events:
        found = sum(each.type == kind and each.stream.endswith(stream) for each in rows)
        if found < count:
            yield f"A client was told of {kind} {stream}; the log has {found} of {count}."


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
