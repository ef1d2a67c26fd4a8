"""Putting a backup in the place of a state directory. The log comes last: without it nothing is restored.

What root restores belongs to whom the state directory belongs to, or the daemon could not open it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from finetuned.backups import manifest
from finetuned.backups.making import CONFIGURATION, LOG
from finetuned.backups.manifest import Manifest, Owner
from finetuned.domain.errors import Rejected
from finetuned.wire import VerifyReport
from finetuned_sdk.bundle import sync_directory

INCOMING: Final = ".restoring"
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
    """Fill an empty state directory. Raises ``Rejected`` if it is not empty, or the backup does not hold."""
    found = examine(backup, verify)
    owner = _make(state_dir)
    with _alone(state_dir, owner):
        _clear_broken_off(state_dir)
        left = sorted(path.name for path in state_dir.iterdir() if path.name != f"{LOG}.lock")
        if left:
            raise Rejected(
                "state_dir_not_empty",
                f"{state_dir} is not empty ({', '.join(left[:3])}); name an empty one, or put only the log back with --log-only.",
            )
        incoming = state_dir / INCOMING
        incoming.mkdir(mode=0o750)
        sync_directory(state_dir)
        wanted = [file for file in found.files if file.path != CONFIGURATION]
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
    former = [state_dir / name for name in OF_LOG if (state_dir / name).exists()]
    if not former:
        return None
    aside = state_dir / f"before-restore-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    aside.mkdir(mode=0o750)
    _give(aside, owner)
    sync_directory(state_dir)  # or a power failure could leave the former log in a directory without a name
    for path in reversed(
        former
    ):  # the log itself goes last: a -wal file beside another log would damage that
        path.rename(aside / path.name)
    sync_directory(aside)
    sync_directory(state_dir)  # nor the new log with the former one's -wal
    return aside


def _make(state_dir: Path) -> Owner | None:
    """Make the directory if it is not there; whom all in it shall belong to, if root asks."""
    missing = [path for path in (state_dir, *state_dir.parents) if not path.exists()]
    nearest = missing[-1].parent if missing else state_dir
    owner = (nearest.stat().st_uid, nearest.stat().st_gid) if os.geteuid() == 0 else None
    state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    for path in missing:
        _give(path, owner)
    for directory in state_dir.parents:
        with suppress(OSError):  # one that we may not read: somebody else made what is in it
            sync_directory(directory)
    return owner


def _give(path: Path, owner: Owner | None) -> None:
    if owner is not None:
        os.chown(path, *owner, follow_symlinks=False)


def _clear_broken_off(state_dir: Path) -> None:
    """Remove what a restore that was killed has put there: it had begun with an empty directory."""
    if not (state_dir / INCOMING).is_dir() or (state_dir / LOG).exists():
        if (state_dir / INCOMING).is_dir() and not any((state_dir / INCOMING).iterdir()):
            (state_dir / INCOMING).rmdir()  # all of it was there
        return
    for path in state_dir.iterdir():
        if path.name in {INCOMING, "jobs", "datasets", "archives"}:
            shutil.rmtree(path)


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
