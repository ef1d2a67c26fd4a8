"""The doctor's checks of what the daemon keeps: its log, bundles and checkpoints, and who may reach them.

They only read, with a daemon or without one.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio

from finetuned import store
from finetuned.cli import offline, units
from finetuned.cli.checks import fail, ok, warn
from finetuned.cli.shapes import Check
from finetuned.domain.job import Job
from finetuned_events import seals
from finetuned_sdk import manifest
from finetuned_sdk.bundle import Bundle, BundleError, RunnerIdentity

SHOWN: Final = 3  # of what is listed in a sentence
WEBHOOKS_DIR: Final = "webhooks"  # with their secrets, as the daemon names it


@dataclass(frozen=True, slots=True)
class Known:
    """What the log knows of jobs: all ids, those that were deleted, and those that have not ended, whole."""

    ids: frozenset[str]
    deleted: frozenset[str]
    live: tuple[Job, ...]


def known(log: Path) -> Known:
    """Look into the projections. Raises ``sqlite3.Error``."""
    with closing(sqlite3.connect(f"{log.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT id, deleted FROM jobs").fetchall()
        live = connection.execute("SELECT document FROM jobs WHERE live = 1 ORDER BY seq").fetchall()
    return Known(
        frozenset(job_id for job_id, _ in rows),
        frozenset(job_id for job_id, deleted in rows if deleted),
        tuple(store.job_from(document) for (document,) in live),
    )


# ---- the log -----------------------------------------------------------------------------------------------


def chain(state_dir: Path) -> Check:
    """The log's whole hash chain."""
    report = anyio.run(offline.verify, state_dir)
    if not report["ok"]:
        return fail(
            "chain",
            report["problems"][0],
            "Keep the file, and go back to a backup that verifies: `finetune restore DIRECTORY --log-only`.",
        )
    return ok(
        "chain",
        f"{report['events']} events, nothing wrong. Head: {report['head']['seq']} {report['head']['hash']}",
    )


def projections(state_dir: Path) -> Check:
    """Whether the tables are what a replay of the log gives."""
    differing = anyio.run(offline.differing, state_dir)
    if differing:
        return fail(
            "projections",
            f"A replay of the log gives other rows than {', '.join(differing)}.",
            "`finetune log rebuild` puts them right; report it, too.",
        )
    return ok("projections", "as a replay of the log gives them")


def archives(log: Path) -> Check:
    """Whether the files that hold the beginning of the log are there."""
    with closing(sqlite3.connect(f"{log.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        found = seals.all_of(connection)
    if not found:
        return ok("archives", "none: the log is whole")
    for seal in found:
        path = seals.place(seal, log.parent / seals.ARCHIVES)
        if path is None:
            return warn(
                "archives",
                f"{seal.file}, with events {seal.previous.seq + 1} to {seal.head.seq}, is not there.",
                "Put it back before an upgrade: a new release may want to fold all events anew.",
            )
        if path.stat().st_size != seal.bytes:
            return fail(
                "archives",
                f"{path} has {path.stat().st_size} bytes and had {seal.bytes}.",
                f"Put back a copy that `finetune log verify --archive {path}` accepts.",
            )
    return ok("archives", f"{len(found)}, up to event {found[-1].head.seq}")


# ---- bundles -----------------------------------------------------------------------------------------------


def bundles(jobs: Path, there: Known) -> Check:
    """Bundles that the log does not know, those set aside, and jobs whose bundle is gone."""
    missing = [
        f"{job.id}/{job.attempt.number}"
        for job in there.live
        if job.attempt is not None
        and job.attempt.started_at is not None
        and not (jobs / job.id / "attempts" / str(job.attempt.number) / "spec.json").exists()
    ]
    if missing:
        return fail(
            "bundles",
            f"The files of {_some(missing)} are gone while {'it runs' if len(missing) == 1 else 'they run'}.",
            "Put back `jobs/` of a backup, or cancel the job and `finetune retry` it.",
        )
    found = sorted(path for path in jobs.glob("job-*") if path.is_dir())
    unknown = [path for path in found if path.name not in there.ids]
    aside = sorted(jobs.glob("*/attempts/quarantine-*"))
    left = [path for path in found if path.name in there.deleted]
    if unknown or aside:
        running = [path.name for path in [*unknown, *(each.parents[1] for each in aside)] if _runs(path)]
        parts = [
            f"The log does not know {_some([path.name for path in unknown])}" if unknown else "",
            f"{_some([str(path.relative_to(jobs)) for path in aside])} was set aside" if aside else "",
            f"{_some(running)} still runs and keeps its devices" if running else "",
        ]
        return warn(
            "bundles",
            f"{'; '.join(part for part in parts if part)} ({units.size(_size([*unknown, *aside]))}), as after an older"
            " log was restored.",
            f"Nothing of them is used or deleted. Take out what you want to keep, then remove them below {jobs} by hand.",
        )
    if left:
        return warn(
            "bundles",
            f"Files of deleted jobs are there still: {_some([path.name for path in left])}.",
            "The daemon removes them soon after the deletion; its journal says what keeps it from that.",
        )
    return ok("bundles", f"{len(found)}, all of them known")


def checkpoints(jobs: Path, there: Known, *, deep: bool) -> Check:
    """Whether checkpoints hold, byte by byte: the newest of each job that has not ended, or with ``deep`` all."""
    looked, broken = 0, []
    for path in _all_checkpoints(jobs) if deep else _newest_checkpoints(there):
        looked += 1
        try:
            manifest.verify(path)
        except manifest.ManifestError as error:
            broken.append(error.message if hasattr(error, "message") else str(error))
    if broken:
        return fail(
            "checkpoints",
            f"{len(broken)} of {looked} do not hold: {broken[0]}",
            "A job goes on from the newest that holds; check the disk (`dmesg`, `smartctl -a`), and remove what is broken.",
        )
    which = "all" if deep else "the newest of each live job"
    return ok("checkpoints", f"{looked} read through ({which}), and they hold")


def _newest_checkpoints(there: Known) -> Iterator[Path]:
    for job in there.live:
        if job.checkpoints:
            yield Path(max(job.checkpoints, key=lambda each: (each["attempt"], each["step"]))["path"])


def _all_checkpoints(jobs: Path) -> Iterator[Path]:
    for path in sorted(jobs.glob("*/attempts/*/checkpoints/*")):
        if path.is_dir() and not path.name.startswith("tmp") and manifest.manifest_path(path).exists():
            yield path


def _runs(job: Path) -> bool:
    """Whether a runner of one of the job's bundles is alive."""
    for path in (job / "attempts").glob("*"):
        try:
            runner = Bundle(path).read_runner()
        except (BundleError, OSError):
            continue
        if runner is not None and _is_alive(runner):
            return True
    return False


def _is_alive(runner: RunnerIdentity) -> bool:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        after_name = Path(f"/proc/{runner.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return False
    return (boot, int(after_name[19]), after_name[0] not in "ZX") == (runner.boot_id, runner.start_time, True)


# ---- files -------------------------------------------------------------------------------------------------


def permissions(state_dir: Path, socket: Path, secrets: Path) -> Check:
    """Whether nobody else may read secrets, write the log, or replace the socket."""
    log = state_dir / offline.LOG_FILE
    kept = (secrets, state_dir / WEBHOOKS_DIR)
    for path, forbidden, remedy in (
        *((each, 0o077, "chmod 700") for each in kept),
        *((each, 0o077, "chmod 600") for directory in kept for each in _children(directory)),
        (log, 0o022, "chmod go-w"),
        (socket, 0o007, "chmod o="),
        (socket.parent, 0o002, "chmod o-w"),
    ):
        mode = _mode(path)
        if mode is not None and mode & forbidden and not mode & stat.S_ISVTX:
            return fail(
                "permissions", f"{path} is open to others ({mode & 0o777:04o}).", f"`{remedy} {path}`"
            )
    return ok("permissions", "secrets, log and socket are the daemon's only")


def _children(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None


def space(state_dir: Path) -> Check:
    """What takes the disk."""
    parts = {path.name: _size([path]) for path in _children(state_dir) if not path.is_symlink()}
    most = sorted(parts.items(), key=lambda each: -each[1])[:SHOWN]
    total = sum(parts.values())
    if not total:
        return ok("space", f"nothing in {state_dir} yet")
    return ok(
        "space", f"{units.size(total)}: {', '.join(f'{name} {units.size(size)}' for name, size in most)}"
    )


def _size(paths: list[Path]) -> int:
    return sum(_size_of(path) for path in paths)


def _size_of(path: Path) -> int:
    total = 0
    for directory, _, names in os.walk(path):
        for name in names:
            total += _blocks(Path(directory, name))
    return total or _blocks(path)


def _blocks(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except OSError:
        return 0


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
