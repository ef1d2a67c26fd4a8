"""How attempts fail, and what follows: one table of the kinds of failure and what is done about each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple


class Failure(StrEnum):
    """Why an attempt did not come to its end. ``RULES`` says what follows."""

    CRASH = "crash"  #: its process ended by a signal, an exit code or an exception
    OUT_OF_MEMORY = "out_of_memory"  #: memory of a device ran out, or an allocation on the host failed
    HOST_OUT_OF_MEMORY = "host_out_of_memory"  #: the kernel killed it for want of memory
    STALL = "stall"  #: no step for longer than its phase may take
    START_TIMEOUT = "start_timeout"  #: no first step within the time that a start may take
    LOST = "lost"  #: it is dead, and nobody saw how
    STOPPED = "stopped"  #: it ended as told, by somebody who is neither its watchdog nor a pause nor a cancel
    DIVERGED = "diverged"  #: the loss is no number any more, or grew beyond the threshold
    DISK_FULL = "disk_full"  #: there was no room for what it wrote
    BAD_INPUT = "bad_input"  #: its parameters or its data; the same again would fail again
    DEADLINE = "deadline"  #: it used up the time that it may run
    LIMIT = "limit"  #: it took more than its limits allow


@dataclass(frozen=True, slots=True)
class Rule:
    """What follows a failure. ``reduces`` halves the batch of the next attempt, where the job and its kind can.

    ``spared`` attempts that end like this use up no try: they are not the job's doing. With ``if_it_got_on`` only those
    are spared that left a later checkpoint than they began from.
    """

    retried: bool
    reduces: bool = False
    spared: int = 0
    if_it_got_on: bool = False


class End(NamedTuple):
    """How an attempt ended: the kind of its failure, and whether it left a later checkpoint than it began from."""

    failure: str | None
    got_on: bool = False


#: A resumed run does what the one before did, so a loss that diverged would diverge again, and rows that could not
#: be read cannot be read. Out of memory on a device is retried only with a smaller batch (``needs_reduction``).
RULES: Final[Mapping[Failure, Rule]] = {
    Failure.CRASH: Rule(retried=True),
    Failure.OUT_OF_MEMORY: Rule(retried=True, reduces=True),
    Failure.HOST_OUT_OF_MEMORY: Rule(retried=True, reduces=True),
    Failure.STALL: Rule(retried=True),
    Failure.START_TIMEOUT: Rule(retried=True),
    # Power cuts over weeks are no reason to give up a job that gets on between them; a job that takes its host down
    # before it gets anywhere is one, and so is one that does it this often.
    Failure.LOST: Rule(retried=True, spared=20, if_it_got_on=True),
    # As a shutdown of the system does to what the daemon left running: no more the job's doing than a power cut.
    Failure.STOPPED: Rule(retried=True, spared=20, if_it_got_on=True),
    Failure.DIVERGED: Rule(retried=False),
    # Each waits until there is room again, so that this many mean that the job itself fills the disk.
    Failure.DISK_FULL: Rule(retried=True, spared=20),
    Failure.BAD_INPUT: Rule(retried=False),
    Failure.DEADLINE: Rule(retried=False),
    Failure.LIMIT: Rule(retried=False),
}

#: what a worker's error code says about the kind of failure; an error that is neither is a crash if it is worth
#: another try, and bad input if it is not
OF_CODES: Final[Mapping[str, Failure]] = {
    "out_of_memory": Failure.OUT_OF_MEMORY,
    "loss_diverged": Failure.DIVERGED,
    "disk_full": Failure.DISK_FULL,
    "limit_exceeded": Failure.LIMIT,
}

#: the code of ``job.failed`` where the failure itself is the reason
CODES: Final[Mapping[Failure, str]] = {
    Failure.DEADLINE: "deadline_exceeded",
    Failure.LIMIT: "limit_exceeded",
}


def of_error(code: str, *, retryable: bool) -> Failure:
    """The kind of failure behind an error that a worker reported."""
    found = OF_CODES.get(code, Failure.CRASH)
    hopeless = not retryable and RULES[found].retried and not needs_reduction(found)
    return Failure.BAD_INPUT if hopeless else found


def counted(ends: Sequence[End]) -> int:
    """How many tries are used up by attempts that ended like this."""
    return len(ends) - sum(_spared(ends, failure, rule) for failure, rule in RULES.items())


def _spared(ends: Sequence[End], failure: Failure, rule: Rule) -> int:
    alike = sum(end.failure == failure and (end.got_on or not rule.if_it_got_on) for end in ends)
    return min(alike, rule.spared)


def needs_reduction(failure: Failure) -> bool:
    """Whether another try is only worth it with a smaller batch."""
    return failure is Failure.OUT_OF_MEMORY
