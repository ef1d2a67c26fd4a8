"""The doctor's checks: each looks at one thing and says what it found, and what to do if that is wrong.

Every check is a function of what it looks at, so that tests can show it a machine that is ill.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from finetuned.cli import units
from finetuned.cli.shapes import Check

Verdict = Literal["ok", "warn", "fail"]

OLDEST_PYTHON = (3, 11)
LITTLE_DISK = 10_000_000_000  # bytes: a few checkpoints of a small model
LITTLE_SHM = 1_000_000_000  # bytes: data loaders hand batches over in shared memory
FEW_FILES = 4096
CLOCK_SLACK = 5.0  # seconds
MANY_RESTARTS = 3  # since somebody started the unit
SYSTEMCTL_TIMEOUT = 10  # seconds
CONNECT_TIMEOUT = 2  # seconds
NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "fuse.sshfs", "fuse.s3fs"}
)
NVIDIA_VENDOR, DISPLAY_CLASS = "0x10de", "0x03"

Run = Callable[[Sequence[str]], str]


def ok(name: str, message: str) -> Check:
    """All is well."""
    return {"name": name, "verdict": "ok", "message": message, "remedy": None}


def warn(name: str, message: str, remedy: str) -> Check:
    """It works, and may not go on to."""
    return {"name": name, "verdict": "warn", "message": message, "remedy": remedy}


def fail(name: str, message: str, remedy: str) -> Check:
    """It does not work."""
    return {"name": name, "verdict": "fail", "message": message, "remedy": remedy}


# ---- the program -------------------------------------------------------------------------------------------


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """The interpreter."""
    shown = ".".join(map(str, version))
    if version[:2] < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        return fail("python", f"This is Python {shown}.", f"Use Python {wanted} or newer.")
    return ok("python", f"Python {shown}")


def packages(
    names: Iterable[str] | None = None, version_of: Callable[[str], str] = metadata.version
) -> Check:
    """What finetuned itself needs."""
    missing, found = [], []
    for name in _required() if names is None else names:
        try:
            found.append(f"{name} {version_of(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return fail(
            "packages",
            f"{', '.join(missing)} cannot be found.",
            "Install again: `pip install --upgrade finetuned`.",
        )
    return ok("packages", ", ".join(found))


def _required() -> list[str]:
    lines = [line for line in metadata.requires("finetuned") or () if "extra ==" not in line]
    return sorted(line.split(";")[0].rstrip("0123456789.,<>=!~ ") for line in lines)


def trainer(there: Callable[[str], object] = find_spec) -> Check:
    """What the trainers need, without importing it."""
    missing = [name for name in ("torch", "transformers", "trl", "peft") if there(name) is None]
    if missing:
        return warn(
            "trainer",
            f"{', '.join(missing)} cannot be found: jobs cannot train.",
            "`pip install 'finetuned[train]'`",
        )
    return ok("trainer", f"torch {metadata.version('torch')}")


# ---- its files ---------------------------------------------------------------------------------------------


def state_directory(path: Path) -> Check:
    """Whether the daemon's directory is there, and only its owner's."""
    name = "state directory"
    if not path.exists():
        parent = next(each for each in path.parents if each.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            return ok(name, f"{path} is not there yet; the daemon makes it.")
        return fail(name, f"{path} cannot be made: {parent} may not be written.", "Set FINETUNED_STATE_DIR.")
    found = path.stat()
    if not stat.S_ISDIR(found.st_mode):
        return fail(name, f"{path} is no directory.", "Move it away, or set FINETUNED_STATE_DIR.")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o022:
        return fail(name, f"Others may write in {path} ({mode:04o}).", f"`chmod go-w {path}`")
    if mode & 0o005:
        return warn(
            name,
            f"Everybody on this machine may look into {path} ({mode:04o}): at data, models and what jobs print.",
            f"`chmod o-rwx {path}`",
        )
    if found.st_uid != os.geteuid():
        return ok(name, f"{path} belongs to uid {found.st_uid}, who runs the daemon.")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return fail(name, f"{path} may not be written ({mode:04o}).", f"`chmod u+rwx {path}`")
    return ok(name, f"{path} ({mode:04o})")


def file_system(path: Path, mounts: Iterable[tuple[str, str]]) -> Check:
    """What kind of file system the log is on. ``mounts`` are mount points with their kinds."""
    around = [(point, kind) for point, kind in mounts if path.is_relative_to(point)]
    kind = max(around, key=lambda each: len(each[0]))[1] if around else "unknown"
    if kind in NETWORK_FILE_SYSTEMS:
        return fail(
            "file system",
            f"{path} is on {kind}: a network's locks do not keep a log whole.",
            "Set FINETUNED_STATE_DIR to a directory on a disk of this machine.",
        )
    return ok("file system", kind)


def disk(path: Path, *, least: int, free: int | None = None) -> Check:
    """Whether there is room for what jobs write."""
    there = path if path.exists() else next(each for each in path.parents if each.exists())
    left = shutil.disk_usage(there).free if free is None else free
    text = f"{units.size(left)} free at {there}"
    if left < least:
        return fail(
            "disk",
            f"{text}: below min_free_disk_bytes, new jobs are refused.",
            "Delete old jobs (`finetune delete JOB`), or set keep_jobs_days or keep_jobs_bytes.",
        )
    if left < LITTLE_DISK:
        return warn("disk", text, "Each checkpoint needs as much as its model; free some room.")
    return ok("disk", text)


def log(path: Path) -> Check:
    """SQLite's quick check of the log. The whole chain is `finetune log verify`'s business."""
    if not path.exists():
        return ok("log", "There is none yet.")
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            head, at = connection.execute("SELECT max(seq), max(at) FROM events").fetchone()
    except sqlite3.OperationalError as error:
        return warn(
            "log", f"{path} cannot be read: {error}.", "Run this as the daemon's user to have it checked."
        )
    except sqlite3.DatabaseError as error:
        return fail("log", f"{path}: {error}.", "Keep the file, and go back to a backup that verifies.")
    if verdict != "ok":
        return fail(
            "log",
            f"{path}: {verdict}.",
            "`finetune log verify` says more; go back to a backup that verifies.",
        )
    ahead = (at or 0) / 1_000_000 - time.time()
    if ahead > CLOCK_SLACK:
        return fail(
            "log",
            f"Its newest event is {units.duration(ahead)} in the future: the clock was put back.",
            "Set the clock: `timedatectl set-ntp true`.",
        )
    return ok("log", f"sound, event {head or 0} is the newest")


# ---- the machine -------------------------------------------------------------------------------------------


def open_files(limits: tuple[int, int] | None = None) -> Check:
    """How many files a process may hold open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE) if limits is None else limits
    if hard != resource.RLIM_INFINITY and hard < FEW_FILES:
        return warn(
            "open files",
            f"At most {hard} may be open.",
            "Raise it: `ulimit -Hn`, or LimitNOFILE of the unit.",
        )
    return ok("open files", f"{soft}, at most {'any number' if hard == resource.RLIM_INFINITY else hard}")


def shared_memory(path: Path = Path("/dev/shm"), size: int | None = None) -> Check:  # noqa: S108 - the kernel's, not a temporary file
    """What data loaders hand batches over in."""
    if size is None:
        if not path.exists():
            return warn(
                "shared memory", f"{path} is not there.", "Mount a tmpfs there; data loaders need it."
            )
        size = shutil.disk_usage(path).total
    if size < LITTLE_SHM:
        return warn(
            "shared memory",
            f"{path} has {units.size(size)}.",
            "Give a container more: `docker run --shm-size=8g`.",
        )
    return ok("shared memory", units.size(size))


def clock(run: Run) -> Check:
    """Whether the clock is kept right."""
    try:
        synchronized = run(["timedatectl", "show", "--property=NTPSynchronized", "--value"]).strip()
    except (OSError, subprocess.SubprocessError):
        return ok("clock", "Nothing here says whether it is kept right.")
    if synchronized == "no":
        return warn("clock", "It is not synchronized.", "`timedatectl set-ntp true`")
    return ok(
        "clock", "synchronized" if synchronized == "yes" else "Nothing here says whether it is kept right."
    )


def port(address: tuple[str, int] | None, *, daemon_there: bool) -> Check:
    """Whether the TCP door can be opened."""
    if address is None:
        return ok("port", "TCP is switched off.")
    shown = f"{address[0]}:{address[1]}"
    if daemon_there and _answers(address):
        return ok("port", f"{shown} takes connections")
    try:
        family, kind, *_, where = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind(where)
    except OSError as error:
        why = "another program has it" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        return fail(
            "port", f"{shown}: {why}.", "Set another by `listen` or FINETUNED_LISTEN; '' switches TCP off."
        )
    if daemon_there:
        return ok(
            "port", f"{shown} is free: the daemon that answers listens elsewhere, or has TCP switched off"
        )
    return ok("port", f"{shown} is free")


def _answers(address: tuple[str, int]) -> bool:
    """Whether somebody takes a connection there."""
    with contextlib.suppress(OSError), socket.create_connection(address, timeout=CONNECT_TIMEOUT):
        return True
    return False


def systemd(run: Run, *, booted: bool | None = None) -> Check:
    """What systemd says of the unit, the system's or one's own."""
    if not (Path("/run/systemd/system").exists() if booted is None else booted):
        return ok("service", "This machine has no systemd.")
    states = {scope: _unit_state(run, scope) for scope in ("--system", "--user")}
    for scope, state in states.items():
        if state == "failed":
            return fail("service", "The unit has failed.", f"`journalctl {scope} -u finetuned -e` says why.")
        if state == "active":
            return _active(run, scope)
    return ok("service", "not running as one; `finetune install-service` makes it so")


def _active(run: Run, scope: str) -> Check:
    """A unit that runs: which release, how often it was started again, and whether its watchdog is on."""
    properties = ["NRestarts", "WatchdogUSec", "ExecStart"]
    told = run(
        ["systemctl", scope, "show", "finetuned.service", *(f"--property={each}" for each in properties)]
    )
    values = dict(line.partition("=")[::2] for line in told.splitlines())
    restarts = int(values["NRestarts"]) if values.get("NRestarts", "").isdecimal() else 0
    text = f"active ({scope.strip('-')})"
    program = values.get("ExecStart", "").partition("path=")[2].partition(" ;")[0]
    if program:
        text += f", {Path(program).resolve()}"
    if values.get("WatchdogUSec") in {"0", "infinity"}:
        text += ", without a watchdog"
    if restarts >= MANY_RESTARTS:
        return warn(
            "service",
            f"{text}; systemd has started it again {restarts} times.",
            f"`journalctl {scope} -u finetuned -e` says why it ended.",
        )
    return ok("service", f"{text}, started again {restarts} times" if restarts else text)


def _unit_state(run: Run, scope: str) -> str:
    try:
        return run(["systemctl", scope, "is-active", "finetuned.service"]).strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def command(arguments: Sequence[str]) -> str:
    """What a program prints, whatever its exit code."""
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=SYSTEMCTL_TIMEOUT)
    return done.stdout
