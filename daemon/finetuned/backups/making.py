"""Making a backup: everything under a temporary name, synced and read again, before it gets its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from finetuned import __version__
from finetuned.backups import contents, manifest
from finetuned.backups.contents import Named
from finetuned.backups.manifest import File, Listed, Manifest
from finetuned.domain.errors import Rejected, StorageFullError
from finetuned.wire import BackupReport
from finetuned_events import durable, seals
from finetuned_sdk.manifest import manifest_path

LOG: Final = "events.sqlite"
CONFIGURATION: Final = "config.toml"
SPARE: Final = 64 << 20  # bytes that a backup leaves free
REMOVED: Final = "it was removed meanwhile"
PARTS: Final = {
    "models": "model",
    "datasets": "dataset",
    "checkpoints": "checkpoint",
    "archives": "archive",
}  # --include -> what is listed


def make(
    state_dir: Path,
    destination: Path,
    *,
    includes: Collection[str],
    copy_log: Callable[[Path], BackupReport],
    configuration: Path | None = None,
) -> Manifest:
    """Write a backup of ``state_dir`` to the new directory ``destination``; a daemon may run on it meanwhile.

    The log comes first: a file is on disk before the event that names it, so what the copied log names is there,
    unless it was removed in between: then the manifest says so. Raises ``Rejected`` or ``StorageFullError`` with nothing left behind.
    """
    if destination.exists() or destination.is_symlink():
        raise Rejected("backup_exists", f"{destination} exists already; name a new directory.")
    temporary = destination.with_name(f".{destination.name}.partial")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(mode=0o750, parents=True)
        made = _fill(state_dir, temporary, includes, copy_log, configuration)
        manifest.write(temporary, made)
        manifest.sync_tree(temporary)
        manifest.check(temporary, made.files)
        temporary.rename(destination)
        durable.sync_names(destination)
    except OSError as error:
        where = error.filename or destination
        raise Rejected(
            "backup_failed", f"{where}: {error.strerror}. Name another place; nothing was left there."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return made


def _fill(
    state_dir: Path,
    root: Path,
    includes: Collection[str],
    copy_log: Callable[[Path], BackupReport],
    configuration: Path | None,
) -> Manifest:
    report = copy_log(root / LOG)
    size, digest = manifest.measure(root / LOG)
    files = [File(LOG, size, digest)]
    if configuration is not None and configuration.is_file():
        files.append(manifest.copy(configuration, root, CONFIGURATION))
    world = contents.world_of(root / LOG)
    jobs = state_dir / "jobs"
    files += _copied(contents.records(world, jobs), state_dir, root)
    listed = []
    copied = {file.path for file in files}
    wanted = {PARTS[part] for part in includes}
    found = [*contents.archived(root / LOG, state_dir / seals.ARCHIVES), *contents.named(world)]
    _check_room(found, wanted, state_dir, root)
    for each in found:
        present = contents.files(each.path)
        line = _listed(each, present, state_dir, wanted)
        if line.included:
            new = [path for path in present if path.relative_to(state_dir).as_posix() not in copied]
            more = _copied(new, state_dir, root)
            if len(more) < len(new) or contents.files(each.path) != present:
                line = replace(line, included=False, reason=REMOVED)
                for file in more:
                    (root / file.path).unlink()
            else:
                files += more
                copied |= {file.path for file in more}
        listed.append(line)
    return Manifest(
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        release=__version__,
        state_dir=str(state_dir),
        head=dict(report["head"]),
        includes=tuple(sorted(includes)),
        files=tuple(files),
        listed=tuple(listed),
    )


def _copied(paths: Iterable[Path], state_dir: Path, root: Path) -> list[File]:
    files = []
    for path in paths:
        try:
            files.append(manifest.copy(path, root, path.relative_to(state_dir).as_posix()))
        except FileNotFoundError:
            continue  # a checkpoint that was replaced, a job that was deleted, since the log was copied
    return files


def _listed(each: Named, files: Sequence[Path], state_dir: Path, wanted: Collection[str]) -> Listed:
    reason = None
    if not files:
        reason = "it is not there"
    elif not each.path.is_relative_to(state_dir):
        reason = "it lies outside the state directory"
    elif each.what not in wanted:
        reason = f"--include {each.what}s was not given"
    sealed = manifest_of(each.path)
    digest, size = each.sha256, 0
    try:
        digest = digest or (manifest.measure(sealed)[1] if sealed is not None else None)
        size = sum(path.stat().st_size for path in files)
    except FileNotFoundError:
        reason = REMOVED
    return Listed(each.what, each.name, str(each.path), size, digest, reason is None, reason)


def manifest_of(path: Path) -> Path | None:
    """The manifest of a model or checkpoint; ``None`` if it has none."""
    found = manifest_path(path)
    return found if found.is_file() else None


def _check_room(found: Iterable[Named], wanted: Collection[str], state_dir: Path, root: Path) -> None:
    needed = 0
    for each in found:
        if each.what in wanted and each.path.is_relative_to(state_dir):
            for path in contents.files(each.path):
                with suppress(FileNotFoundError):  # removed since
                    needed += path.stat().st_size
    free = shutil.disk_usage(root).free
    if needed + SPARE > free:
        raise StorageFullError(
            f"The backup needs {needed + SPARE:,} bytes at {root.parent}, and {free:,} are free; include less, or free some."
        )
