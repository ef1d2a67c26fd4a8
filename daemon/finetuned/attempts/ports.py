"""How the supervisor speaks to the log. The domain implements :class:`AttemptLog`; nothing here knows it."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from finetuned_sdk.bundle import RunnerIdentity, Spec
from finetuned_sdk.spool import BadLine, Fact


@dataclass(frozen=True, slots=True, kw_only=True)
class StopOrder:
    """That an attempt is to end, and how: the worker is asked, then its group gets SIGTERM, then SIGKILL.

    ``patience_s`` is how long the worker may take to obey before SIGTERM, ``checkpoint`` whether it is to save first.
    ``failure`` is for what the watchdog has it stopped; ``None`` if somebody asked for it. With ``force`` none of this is
    done: its processes are killed at once.
    """

    reason: str
    checkpoint: bool = False
    patience_s: float = 0.0
    failure: str | None = None
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long which silence is borne, in seconds; see ``finetuned.domain.timeouts``."""

    heartbeat_s: float = 30.0
    start_s: float = 1800.0
    stall_s: float = 600.0
    evaluation_s: float = 3600.0
    saving_s: float = 1800.0
    pause_s: float = 30.0
    max_duration_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveAttempt:
    """An attempt that has begun and whose end is not in the log.

    ``line`` is the last line of its spool that is in the log. ``stop`` says that it is to end. ``checkpoints`` counts
    the checkpoints that were asked for so far. ``spent_s`` is how long earlier attempts of its job ran.
    ``limits``: cpu (cores), memory, gpu_memory, disk (bytes).
    """

    job: str
    number: int
    purpose: str
    line: int
    stop: StopOrder | None = None
    checkpoints: int = 0
    timeouts: Timeouts = field(default_factory=Timeouts)
    spent_s: float = 0.0
    limits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervention:
    """What the watchdog did about an attempt.

    ``action``: dump_stacks, request_stop, terminate or kill; ``failure``: stall, start_timeout, deadline or limit, and
    ``None`` where the attempt was to end for no failure of its own (a pause, a cancel) and did not.
    """

    action: str
    failure: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """What the watchdog saw of an attempt and did nothing about."""

    subject: str
    message: str
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an attempt ended; nothing of it is alive.

    ``lost`` says why when nothing proves how it ended; ``problem`` names what spoils a success: a manifest
    that does not hold, or a worker that could not be started. ``refused`` is the code of what kept it from
    starting, which ``lost`` tells, if another try cannot mend that. ``asked`` is why its bundle asked it to stop, or
    why it never began, as ``lost`` tells then.
    """

    exit_code: int | None = None
    signal: int | None = None
    lost: str | None = None
    problem: str | None = None
    oom_killed: bool = False
    oom_evidence: str | None = None
    usage: Mapping[str, float] = field(default_factory=dict)
    refused: str | None = None
    asked: str | None = None


class SpecUnavailableError(Exception):
    """Nobody can say what the attempt should run: its plugin is not loaded, or it has ended. It is given up.

    With a ``code`` the job is given up as well: no other attempt would find it otherwise.
    """

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class NoRoomError(OSError):
    """The log has no room for it on a full disk: nothing was recorded, and it may be tried again."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.ENOSPC, message)


class AttemptLog(Protocol):
    """The log as attempts see it. Every method returns after its events are on disk, or raises ``NoRoomError``."""

    async def live(self) -> list[LiveAttempt]:
        """All attempts that have begun and not ended."""

    async def known(self) -> Mapping[str, int]:
        """For each job that may get another attempt: the highest number of one so far, or -1."""

    async def spec(self, job: str, attempt: int) -> Spec:
        """What to run. Asked for only while the attempt has no bundle. Raises ``SpecUnavailableError``."""

    async def launched(self, job: str, attempt: int, runner: RunnerIdentity) -> None:
        """The attempt's runner is up. Said again after a restart of the daemon: record it once."""

    async def record(
        self, job: str, attempt: int, lines: Sequence[Fact | BadLine], *, last: bool = False
    ) -> None:
        """Commit lines of the spool; the highest line number is the attempt's new ``line``.

        ``last``: nothing of the attempt is alive, and only its end follows.
        """

    async def intervened(self, job: str, attempt: int, what: Intervention | Alert) -> None:
        """Record what the watchdog did or saw; nothing once the attempt has ended."""

    async def ended(self, job: str, attempt: int, ending: Ending) -> None:
        """The attempt has ended; all its lines were recorded before."""
