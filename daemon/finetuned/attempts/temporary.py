"""The directory for temporary files of an attempt: short, of its own, and gone with the attempt.

Short because programs make Unix sockets in it: ``multiprocessing``, and so torch's loader processes, hand
tensors over at ``$TMPDIR/pymp-XXXXXXXX/listener-XXXXXXXX``, and a socket's path has 107 bytes at most.
Standard library only: the runner uses it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from finetuned_sdk.bundle import Bundle

LIMIT: Final = 60  # bytes of the whole path
PREFIX: Final = "ft-"
_RANDOM_BYTES: Final = 4


def create(bundle: Bundle, environment: Mapping[str, str]) -> Path:
    """Make the directory, for its owner only, and have ``tmp`` of the bundle point to it.

    It lies in ``$TMPDIR``, ``/tmp`` or ``/var/tmp``, the first that is short and takes it; in the bundle
    itself if none does. Raises ``OSError`` if that is impossible too.
    """
    for path in _candidates(environment):
        try:
            # The link comes first: whoever tidies up after a runner that was killed finds what there is.
            bundle.temporary.symlink_to(path)
            path.mkdir(mode=0o700)
        except OSError:
            with contextlib.suppress(OSError):
                bundle.temporary.unlink()
        else:
            return path
    bundle.temporary.mkdir(mode=0o700, exist_ok=True)
    return bundle.temporary


def hold(path: Path) -> int | None:
    """Lock the directory until the process ends; the lock's descriptor, ``None`` where it cannot be locked.

    systemd-tmpfiles passes over a locked directory with all in it; else it takes files of a long training that
    nobody has touched for ten days.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # a file system without locks: the work matters more
        os.close(descriptor)
        return None
    return descriptor


def remove(bundle: Bundle) -> None:
    """Remove the directory and all in it; nothing happens if there is none."""
    try:
        target = bundle.temporary.readlink()
    except OSError:  # none, or no link: then it is the directory itself
        shutil.rmtree(bundle.temporary, ignore_errors=True)
        return
    if target.name.startswith(PREFIX):  # a link that the work has turned elsewhere removes nothing there
        shutil.rmtree(target, ignore_errors=True)
    bundle.temporary.unlink(missing_ok=True)


def _candidates(environment: Mapping[str, str]) -> Iterator[Path]:
    for root in (environment.get("TMPDIR", ""), "/tmp", "/var/tmp"):  # noqa: S108 - made with mode 0700 and a random name
        path = Path(root, f"{PREFIX}{os.urandom(_RANDOM_BYTES).hex()}")
        if path.is_absolute() and len(os.fsencode(path)) <= LIMIT:
            yield path
