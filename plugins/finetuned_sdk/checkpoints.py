"""Checkpoints: complete or not there. A checkpoint counts once its manifest holds."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from finetuned_sdk import manifest
from finetuned_sdk.bundle import sync_directory
from finetuned_sdk.manifest import Manifest, ManifestError
from finetuned_sdk.retention import Candidate
from finetuned_sdk.spool import plain


def publish(
    directory: Path, home: Path, *, step: int, metrics: Mapping[str, float | None]
) -> tuple[Path, Manifest]:
    """Move a finished directory into ``home`` and seal it there; where it lies now, and its manifest.

    ``home`` must be on the same file system. The files are on disk before the name is, and the name before
    the manifest. Raises ``ManifestError`` if the directory holds links.
    """
    content = manifest.scan(directory, step=step, metrics=plain(metrics))
    target = _free_name(home, step)
    directory.rename(target)
    sync_directory(home)
    sync_directory(directory.parent)
    manifest.write(target, content)
    return target, content


def complete(home: Path, *, checksums: bool = False) -> list[Path]:
    """The complete checkpoints in ``home``, oldest step first."""
    if not home.is_dir():
        return []
    found = [
        (step, path) for path in home.iterdir() if (step := _step(path, checksums=checksums)) is not None
    ]
    return [path for _, path in sorted(found)]


def newest_complete(paths: Iterable[Path]) -> Path | None:
    """The checkpoint with the highest step among those whose every byte matches its manifest."""
    # By claimed step first, so that only the one that will be used is read through, as a rule.
    claimed = [(step, path) for path in paths if (step := _step(path, checksums=False)) is not None]
    return _first_whole(path for _, path in sorted(claimed, reverse=True))


def newest_in(bundles: Iterable[Path]) -> Path | None:
    """The newest whole checkpoint of attempts' directories, whether or not anybody was told of it.

    Every byte matches its manifest. The highest step counts; of equal steps that of the newest attempt.
    """
    claimed = [
        (step, int(bundle.name) if bundle.name.isdecimal() else -1, path)
        for bundle in bundles
        for path in _children(bundle / "checkpoints")
        if (step := _step(path, checksums=False)) is not None
    ]
    return _first_whole(path for _, _, path in sorted(claimed, reverse=True))


def of_job(bundle: Path, attempt: int) -> list[Candidate]:
    """The complete checkpoints of ``attempt``, whose directory ``bundle`` is, and of those before it, in no order.

    Complete by their sizes; contents are not read.
    """
    return [
        Candidate(path, number, step, _metrics(path))
        for number, each in [*_earlier(bundle), (attempt, bundle)]
        for path in _children(each / "checkpoints")
        if (step := _step(path, checksums=False)) is not None
    ]


def is_whole(path: Path) -> bool:
    """Whether every byte of a checkpoint matches its manifest."""
    return _step(path, checksums=True) is not None


def clear_leftovers(bundle: Path) -> None:
    """Delete what dead attempts before this one left half done: scratch files, and checkpoints without a manifest.

    Errors are borne: nothing depends on it but room on the disk.
    """
    for _, each in _earlier(bundle):
        clear(_children(each / "work"))
        clear(path for path in _children(each / "checkpoints") if not (path / manifest.NAME).exists())


def clear(paths: Iterable[Path]) -> None:
    """Delete files and directories; errors are borne."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def step_of(path: Path) -> int:
    """The step of a complete checkpoint; 0 if it is none any more."""
    return _step(path, checksums=False) or 0


def discard(directory: Path) -> None:
    """Delete a checkpoint: first what makes it complete, then the rest."""
    manifest.manifest_path(directory).unlink(missing_ok=True)
    sync_directory(directory)
    shutil.rmtree(directory)


def _first_whole(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if _step(path, checksums=True) is not None), None)


def _children(home: Path) -> list[Path]:
    return list(home.iterdir()) if home.is_dir() else []


def _number(bundle: Path) -> int:
    """An attempt's number is its directory's name; of a bundle by itself, as tests and tools make it, 0."""
    return int(bundle.name) if bundle.name.isdecimal() else 0


def _earlier(bundle: Path) -> list[tuple[int, Path]]:
    """The directories of the attempts before this one, with their numbers."""
    numbered = [(_number(path), path) for path in _children(bundle.parent) if path.name.isdecimal()]
    return sorted((number, path) for number, path in numbered if number < _number(bundle) and path.is_dir())


def _metrics(path: Path) -> dict[str, float | None]:
    found = manifest.read(path).about.get("metrics")
    if not isinstance(found, Mapping):
        return {}
    return {str(name): value for name, value in found.items() if isinstance(value, int | float)}


def _step(path: Path, *, checksums: bool) -> int | None:
    try:
        about: Mapping[str, Any] = manifest.verify(path, checksums=checksums).about
    except ManifestError:
        return None
    step = about.get("step")
    return step if isinstance(step, int) else None


def _free_name(home: Path, step: int) -> Path:
    target, copy = home / f"checkpoint-{step}", 1
    while target.exists():
        copy += 1
        target = home / f"checkpoint-{step}-{copy}"
    return target
