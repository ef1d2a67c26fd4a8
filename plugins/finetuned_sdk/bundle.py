"""The bundle of one attempt: a directory that holds all that daemon, runner and worker tell each other.

::

    spec.json       what to run; written by the daemon before anything starts
    runner.json     who runs it, or why nobody ever will; made by link(2), so that exactly one claim wins
    engine.json     the engine that the worker may ask, where it asks one; written by the daemon
    control.json    what the daemon wants of the worker; polled by the worker
    spool.ndjson    the worker's facts (``finetuned_sdk.spool``)
    heartbeat       the worker's signs of life (``finetuned_sdk.heartbeat``)
    limits.json     how the runner keeps the limits of memory and processors, where the job has such
    output.log      stdout and stderr of the worker, rotated by the runner (output.log.OFFSET)
    exit.json       how the worker ended; written by the runner when nothing of it is left
    checkpoints/ artifacts/ work/
    tmp             link to the attempt's directory for temporary files while it runs; made by the runner

Standard library only: the runner imports this module and must start in milliseconds.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from finetuned_sdk.context import CallbackSpec

PROTOCOL: Final = 2  # 2: the runner passes SIGUSR1 on to its worker; heartbeat; control.checkpoints
ATTEMPT_VARIABLE: Final = "FINETUNED_ATTEMPT"  # in the environment of all that belongs to an attempt
RUNNER_VARIABLE: Final = "FINETUNED_RUNNER_PID"  # tells the worker which parent to expect
EXIT_ROOM: Final = 1 << 14  # bytes, more than a record of the end has
STOPPED_EXIT_CODE: Final = 75  # the worker stopped because it was asked to; EX_TEMPFAIL of sysexits.h

_Record = TypeVar("_Record", "Spec", "RunnerIdentity", "Revocation", "ExitRecord", "Control")


class BundleError(Exception):
    """A file of the bundle is missing or does not read as it should."""

    code = "bad_bundle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What to run. Never holds a secret: those reach runner and worker by a file descriptor.

    ``secrets`` maps the names that the job gives its secrets to what they refer to (``secret:hf``).
    ``entry`` is ``"module:function"`` of the work, ``params_model`` ``"module:Class"`` of the pydantic model
    that the worker validates ``params`` with. ``models`` maps model parameters to directories or hub ids, ``datasets``
    parameters that refer to a dataset to its ``name``, ``version`` (SHA-256) and ``path``.
    ``grace_s`` is how long the worker may take after SIGTERM before it is killed, in seconds.
    ``fence`` is random: it tells this attempt's processes from all others. ``limits``: cpu (cores), memory, gpu_memory,
    disk (bytes). ``heartbeat_s`` is how often the worker writes its heartbeat, in seconds. ``output_files`` of
    ``output_file_bytes`` each are kept of what the worker prints, the newest. ``cache`` is a directory that all jobs
    of the daemon share. ``preload`` names the modules that the worker may be forked with, imported already; none: it is
    started as a program.
    """

    job: str
    attempt: int
    kind: str
    entry: str
    params: Mapping[str, Any]
    params_model: str
    interpreter: str
    purpose: str = "run"  # or "validate"
    models: Mapping[str, str] = field(default_factory=dict)
    datasets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    callbacks: tuple[CallbackSpec, ...] = ()
    resume_from: str | None = None
    devices: tuple[str, ...] = ()
    allow_remote_code: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    nice: int = 0
    oom_score_adj: int = 500
    grace_s: float = 10.0
    limits: Mapping[str, float] = field(default_factory=dict)
    heartbeat_s: float = 10.0
    output_file_bytes: int = 10_000_000
    output_files: int = 7
    cache: str | None = None
    preload: tuple[str, ...] = ()
    sdk: str | None = None
    fence: str = field(default_factory=lambda: os.urandom(16).hex())
    protocol: int = PROTOCOL

    @property
    def tag(self) -> str:
        """The value of ``FINETUNED_ATTEMPT`` in the attempt's processes."""
        return f"{self.job}/{self.attempt}/{self.fence}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerIdentity:
    """A process for good: its pid may be used again, never with the same boot and start time (clock ticks)."""

    boot_id: str
    pid: int
    start_time: int
    process_group: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """Why the daemon gave up on a start. ``code``: of what no other attempt of the job would find otherwise.

    ``asked``: why the attempt was to end, where that is all there was against its start.
    """

    reason: str = "its start was given up"
    code: str | None = None
    asked: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRecord:
    """How the worker ended. ``problem`` says why it could not be started at all.

    ``oom_evidence`` says by what ``oom_killed`` is known. ``usage``: ``user_s``, ``system_s``, ``wall_s``,
    ``max_rss_bytes`` of the largest process, ``group_rss_bytes`` that all together were seen to hold at most. ``at``:
    microseconds since the epoch.
    """

    exit_code: int | None
    signal: int | None
    oom_killed: bool = False
    oom_evidence: str | None = None
    problem: str | None = None
    usage: Mapping[str, float] = field(default_factory=dict)
    at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What the daemon wants. ``counter`` grows with each change, so that a reader sees that one is new.

    ``checkpoints`` counts the checkpoints that were asked for without a stop.
    """

    state: Literal["run", "stop"] = "run"
    counter: int = 0
    reason: str = ""
    checkpoint: bool = False
    checkpoints: int = 0


class Bundle:
    """The paths and files of one attempt. Requests to its worker may be made from several threads, through one object."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.spec_path = self.path / "spec.json"
        self.runner_path = self.path / "runner.json"
        self.exit_path = self.path / "exit.json"
        self.exit_room_path = self.path / ".exit.json-room"
        self.control_path = self.path / "control.json"
        self.engine_path = self.path / "engine.json"
        self.spool_path = self.path / "spool.ndjson"
        self.heartbeat_path = self.path / "heartbeat"
        self.limits_path = self.path / "limits.json"
        self.output_path = self.path / "output.log"
        self.checkpoints = self.path / "checkpoints"
        self.artifacts = self.path / "artifacts"
        self.work = self.path / "work"
        self.temporary = self.path / "tmp"
        self._requests = threading.Lock()  # control.json is read, changed and written anew

    def create(self, spec: Spec) -> None:
        """Make the directory with its specification; made again without harm after a crash."""
        for directory in (self.checkpoints, self.artifacts, self.work):
            directory.mkdir(parents=True, exist_ok=True)
        write_json(self.spec_path, asdict(spec))
        for directory in tuple(self.path.parents)[:3]:  # attempts/, <job>/, and jobs/ with the job's own name
            sync_directory(directory)

    def read_spec(self) -> Spec:
        """The specification. Raises ``BundleError`` if it is missing, broken or of a newer protocol."""
        data = read_json(self.spec_path)
        if data is None:
            raise BundleError(f"{self.spec_path} is missing.")
        if data.get("protocol", 0) > PROTOCOL:
            raise BundleError(
                f"{self.spec_path} has protocol {data['protocol']}, this release reads up to {PROTOCOL};"
                " run it with the release that wrote it."
            )
        data["callbacks"] = tuple(CallbackSpec(**callback) for callback in data.get("callbacks", ()))
        data["devices"] = tuple(data.get("devices", ()))
        data["preload"] = tuple(data.get("preload", ()))
        return _record(Spec, data, self.spec_path)

    def claim(self, identity: RunnerIdentity) -> bool:
        """Become the attempt's runner. ``False``: another one is, or the daemon gave up on this start."""
        return self._link_runner(asdict(identity))

    def revoke(self, revocation: Revocation | None = None) -> bool:
        """Give up on the start: no runner can claim the bundle any more. ``False``: one has, or it was given up before."""
        return self._link_runner({**asdict(revocation or Revocation()), "revoked": True})

    def read_runner(self) -> RunnerIdentity | None:
        """Who claimed the bundle; ``None`` if nobody has or the start was revoked."""
        data = read_json(self.runner_path)
        return (
            None if data is None or data.get("revoked") else _record(RunnerIdentity, data, self.runner_path)
        )

    def read_revocation(self) -> Revocation | None:
        """Why the daemon gave up on this start; ``None`` if it did not."""
        data = read_json(self.runner_path)
        return _record(Revocation, data, self.runner_path) if data and data.get("revoked") else None

    @property
    def is_revoked(self) -> bool:
        """Whether the daemon gave up on this start."""
        return self.read_revocation() is not None

    def read_exit(self) -> ExitRecord | None:
        """How the worker ended, once nothing of it is left."""
        data = read_json(self.exit_path)
        return None if data is None else _record(ExitRecord, data, self.exit_path)

    def reserve_exit(self) -> None:
        """Take up the room that the worker's end needs, so that it is there on a full disk. Raises ``OSError``."""
        descriptor = os.open(self.exit_room_path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            os.posix_fallocate(descriptor, 0, EXIT_ROOM)
        finally:
            os.close(descriptor)

    def write_exit(self, record: ExitRecord) -> None:
        """Put the worker's end on disk, into the room that was kept for it if there is some."""
        content = _encode(asdict(record))
        try:
            descriptor = os.open(self.exit_room_path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            write_json(self.exit_path, asdict(record))
            return
        try:
            _write_whole(descriptor, content)
            os.ftruncate(descriptor, len(content))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.exit_room_path.replace(self.exit_path)
        sync_directory(self.path)

    def read_control(self) -> Control:
        """What the daemon wants now."""
        data = read_json(self.control_path)
        return Control() if data is None else _record(Control, data, self.control_path)

    def request_stop(self, reason: str, *, checkpoint: bool) -> None:
        """Ask the worker to stop at its next step boundary, after a checkpoint if one is wanted."""
        with self._requests:
            now = self.read_control()
            wanted = replace(now, state="stop", counter=now.counter + 1, reason=reason, checkpoint=checkpoint)
            write_json(self.control_path, asdict(wanted))

    def request_checkpoint(self, count: int) -> None:
        """Ask the worker for a checkpoint without a stop; ``count`` of them were asked for so far."""
        with self._requests:
            now = self.read_control()
            if count > now.checkpoints:
                wanted = replace(now, counter=now.counter + 1, checkpoints=count)
                write_json(self.control_path, asdict(wanted))

    def _link_runner(self, data: Mapping[str, Any]) -> bool:
        # The temporary file is named for this very thread's call: two claims may be made at once.
        temporary = self.path / f".runner-{os.getpid()}-{os.urandom(4).hex()}"
        try:
            _write(temporary, _encode(data))
            temporary.chmod(0o640)
            os.link(temporary, self.runner_path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(self.path)
        return True


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file; ``None`` if there is no file. Raises ``BundleError`` if it is not one."""
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise BundleError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise BundleError(f"{path} holds no JSON object.")
    return data


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file so that a reader, or a crash, sees the old content or the new and nothing between."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}-{os.urandom(4).hex()}")
    try:
        _write(temporary, _encode(data))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames and new names in a directory last."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def now_us() -> int:
    """Wall-clock time in microseconds since the epoch; for display, never for time-outs."""
    return time.time_ns() // 1000


def _encode(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, indent=1, sort_keys=True).encode() + b"\n"


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    try:
        _write_whole(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_whole(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _record(cls: type[_Record], data: Mapping[str, Any], path: Path) -> _Record:
    # Unknown keys are left out: an old worker may be told more by a newer daemon.
    known = {f.name for f in fields(cls)}
    try:
        return cls(**{key: value for key, value in data.items() if key in known})
    except TypeError as error:
        raise BundleError(f"{path} is incomplete: {error}") from error
