"""The host's devices and the daemon itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from finetuned.domain.facts.base import Fact, Json


@dataclass(frozen=True, kw_only=True)
class DevicesDetected(Fact):
    """The devices that this host schedules, when they differ from what the log knew."""

    type: ClassVar[str] = "devices.detected"
    devices: list[dict[str, Json]]


@dataclass(frozen=True, kw_only=True)
class DeviceClaimed(Fact):
    """An attempt holds these devices from now on. Recorded together with ``attempt.starting``."""

    type: ClassVar[str] = "device.claimed"
    devices: list[str]
    job: str
    attempt: int


@dataclass(frozen=True, kw_only=True)
class DeviceReleased(Fact):
    """The attempt's end is proven; its devices are free. Recorded together with ``attempt.ended``."""

    type: ClassVar[str] = "device.released"
    devices: list[str]
    job: str
    attempt: int


@dataclass(frozen=True, kw_only=True)
class DaemonStarted(Fact):
    """A daemon opened the log."""

    type: ClassVar[str] = "daemon.started"
    version: str
    pid: int


@dataclass(frozen=True, kw_only=True)
class DaemonStopped(Fact):
    """The daemon closed the log on purpose. Its absence before the next start means it was killed."""

    type: ClassVar[str] = "daemon.stopped"


@dataclass(frozen=True, kw_only=True)
class DaemonDraining(Fact):
    """The daemon starts nothing new; it stops when nothing runs any more."""

    type: ClassVar[str] = "daemon.draining"
    mode: str  #: pause: what runs saves a checkpoint and goes on after the next start; finish: it runs to its end
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class DaemonDrainTakenBack(Fact):
    """The daemon goes on as before its drain."""

    type: ClassVar[str] = "daemon.drain_taken_back"


@dataclass(frozen=True, kw_only=True)
class LogArchived(Fact):
    """The log's beginning was moved into a file. Recorded once the log is sealed behind it."""

    type: ClassVar[str] = "log.archived"
    upto: int  #: position of the last event that was moved
    path: str  #: of the file, on the daemon's machine
