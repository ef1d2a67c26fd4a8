"""Putting a backup in the place of a state directory. The log comes last: without it nothing is restored.

What root restores belongs to whom the state directory belongs to, or the daemon could not open it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from finetuned.attempts import identity
from finetuned.backups import contents, manifest
from finetuned.backups.making import CONFIGURATION, LOG
from finetuned.backups.manifest import Manifest, Owner
from finetuned.domain.errors import Rejected
from finetuned.telemetry import marks
from finetuned.wire import VerifyReport
from finetuned_events import durable
from finetuned_sdk.bundle import Bundle, BundleError, sync_directory

INCOMING: Final = ".restoring"
JOBS: Final = "jobs"
OF_LOG: Final = (LOG, f"{LOG}-wal", f"{LOG}-shm")

Verify = Callable[[Path], VerifyReport]


def examine(backup: Path, verify: Verify) -> Manifest:
    """Read a backup through: every file, and the log's whole chain. Raises ``Rejected``."""
    found = manifest.read(backup)
    manifest.check(backup, found.files)
    report = verify(backup)
    if not report["ok"]:
        raise manifest.damaged(f"The log of {backup} does not verify: {report['problems'][0]}")
    if report["head"] != found.head:
        raise manifest.damaged(
            f"The log of {backup} ends at event {report['head']['seq']}, its manifest elsewhere."
        )
    return found


def restore(backup: Path, state_dir: Path, verify: Verify) -> Manifest:
    """Fill an empty state directory.

    Raises ``Rejected`` if it is not empty, the backup does not hold, or what it is of still runs beside the new place.
    """
    found = examine(backup, verify)
    _require_ended(backup, found, state_dir)
    owner = _make(state_dir)
    with _alone(state_dir, owner):
        wanted = [file for file in found.files if file.path != CONFIGURATION]
        _clear_broken_off(state_dir, {Path(file.path).parts[0] for file in wanted})
        left = sorted(path.name for path in state_dir.iterdir() if path.name != f"{LOG}.lock")
        if left:
            raise Rejected(
                "state_dir_not_empty",
                f"{state_dir} is not empty ({', '.join(left[:3])}); name an empty one, or put only the log back with --log-only.",
            )
        incoming = state_dir / INCOMING
        incoming.mkdir(mode=0o750)
        sync_directory(state_dir)
        for file in wanted:
            if manifest.copy(backup / file.path, incoming, file.path, owner=owner) != file:
                raise manifest.damaged(f"{backup / file.path} changed while it was read.")
        for directory, _, _ in os.walk(incoming):
            _give(Path(directory), owner)
        manifest.sync_tree(incoming)
        for path in sorted(incoming.iterdir(), key=lambda each: each.name == LOG):
            if path.name == LOG:  # a power failure must not leave it without what it names
                sync_directory(state_dir)
            path.rename(state_dir / path.name)
        sync_directory(state_dir)
        incoming.rmdir()
        sync_directory(state_dir)
    return found


def restore_log(backup: Path, state_dir: Path, verify: Verify) -> tuple[Manifest, Path | None]:
    """Put only the backup's log in the place of the present one; where that one lies now. Nothing is deleted."""
    found = examine(backup, verify)
    _require_ended(backup, found, state_dir)
    owner = _make(state_dir)
    with _alone(state_dir, owner):
        new = state_dir / f".{LOG}.restoring"
        new.unlink(missing_ok=True)
        manifest.copy(backup / LOG, state_dir, new.name, owner=owner)
        aside = _set_aside(state_dir, owner)
        new.rename(state_dir / LOG)
        sync_directory(state_dir)
    return found, aside


def _set_aside(state_dir: Path, owner: Owner | None) -> Path | None:
    """Link the former log into a directory of its own, and take its -wal away: that would damage another log.

    What is in the -wal goes into the log first. So the former log is whole where it was until the new one takes its
    name, and a daemon that starts after a kill in between goes on with the one or the other.
    """
    former = [state_dir / name for name in OF_LOG if (state_dir / name).exists()]
    if not former:
        return None
    aside = state_dir / f"before-restore-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    aside.mkdir(mode=0o750)
    _give(aside, owner)
    for path in former:
        os.link(path, aside / path.name)
    if _is_folded_in(state_dir / LOG):
        for name in OF_LOG[1:]:
            (aside / name).unlink(missing_ok=True)
    sync_directory(aside)
    sync_directory(state_dir)  # or a power failure could leave the former log in a directory without a name
    for name in OF_LOG[1:]:
        (state_dir / name).unlink(missing_ok=True)
    sync_directory(state_dir)  # nor the new log with the former one's -wal
    return aside


def _is_folded_in(log: Path) -> bool:
    """Whether all that was in the log's -wal is in the log by now; not if there is nothing that SQLite can read."""
    if not log.exists():
        return False
    try:
        with closing(sqlite3.connect(log, isolation_level=None)) as former:
            busy, frames, moved = former.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
    except sqlite3.Error:  # damaged: a reason to restore
        return False
    return not busy and frames == moved > 0


def _make(state_dir: Path) -> Owner | None:
    """Make the directory if it is not there; whom all in it shall belong to, if root asks."""
    missing = [path for path in (state_dir, *state_dir.parents) if not path.exists()]
    nearest = missing[-1].parent if missing else state_dir
    owner = (nearest.stat().st_uid, nearest.stat().st_gid) if os.geteuid() == 0 else None
    state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    for path in missing:
        _give(path, owner)
    durable.sync_names(state_dir)
    return owner


def _give(path: Path, owner: Owner | None) -> None:
    if owner is not None:
        os.chown(path, *owner, follow_symlinks=False)


def _clear_broken_off(state_dir: Path, names: Collection[str]) -> None:
    """Remove what a restore of these ``names`` that was killed has put there: it had begun with an empty directory."""
    if not (state_dir / INCOMING).is_dir() or (state_dir / LOG).exists():
        if (state_dir / INCOMING).is_dir() and not any((state_dir / INCOMING).iterdir()):
            (state_dir / INCOMING).rmdir()  # all of it was there
        return
    for path in state_dir.iterdir():
        if path.name not in {INCOMING, *names}:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _require_ended(backup: Path, found: Manifest, state_dir: Path) -> None:
    """Raise ``Rejected`` if jobs that the backup takes for live run here, below another directory.

    A daemon on the copy would take their attempts for its own, and kill what they seem to have left.
    """
    former = Path(found.state_dir)
    if former.resolve() == state_dir.resolve():
        return
    live = {job.id for job in contents.world_of(backup / LOG).live_jobs()}
    running = {mark.job for jobs in (former / JOBS, backup / JOBS) for mark in _marks(jobs)} & live
    running |= {path.parents[1].name for path in (backup / JOBS).glob("*/attempts/*") if _runs(path)}
    if running:
        raise Rejected(
            "attempts_running",
            f"{min(running)} of this backup still runs here, below {former}; a daemon on {state_dir} would take it"
            " for its own. Restore on another machine, or once it has ended or is paused; `--check` only reads.",
        )


def _marks(jobs: Path) -> Iterable[marks.Mark]:
    return marks.read(jobs).values()


def _runs(bundle: Path) -> bool:
    try:
        runner = Bundle(bundle).read_runner()
    except BundleError:
        return False
    return runner is not None and identity.is_alive(runner)


@contextmanager
def _alone(state_dir: Path, owner: Owner | None) -> Iterator[None]:
    """Hold the log's lock, as a daemon does. Raises ``Rejected`` while one runs."""
    descriptor = os.open(state_dir / f"{LOG}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Rejected(
                "daemon_running",
                f"A daemon runs on {state_dir}; stop it, and restore then (its trainers may go on).",
            ) from None
        if owner is not None:
            os.fchown(descriptor, *owner)
        yield
    finally:
        os.close(descriptor)
