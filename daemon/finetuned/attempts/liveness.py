"""Whether an attempt that lives also gets on: pure, from what was seen of it at one look after another.

Death is not looked for here: a pidfd tells of it at once. This is about processes that live and do no work.

Time counts only while somebody looks: the clock here stands still while the daemon is stopped, suspended or starved, and
begins anew with each daemon. So neither a clock that is set nor a pause of the whole machine makes anybody a stalled one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from finetuned.attempts.ports import Timeouts
from finetuned_sdk import phases
from finetuned_sdk.heartbeat import Heartbeat

LOOK_INTERVAL: Final = 5.0  # seconds between two looks at most
BEAT_INTERVAL: Final = 10.0  # seconds between two beats of a worker at most
SECOND_LOOK: Final = 10.0  # seconds at most from the stack dump to the request to stop
_LOOKS_A_LIMIT: Final = 8  # of the shortest limit
_BEATS_A_LIMIT: Final = 3

Action = Literal["alert", "dump_stacks", "request_stop"]
Failure = Literal["stall", "start_timeout", "deadline"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What can be seen of an attempt at one moment.

    ``now`` is monotonic and ``ran_s`` the time since its launch, both in seconds. ``work`` counts the lines of its spool
    that tell of work, ``step`` is the last that they tell of and ``phase`` the last that was entered. ``is_stopped``:
    somebody sent the worker SIGSTOP; ``has_ended``: it is dead, and its runner has not noticed yet.
    """

    now: float
    ran_s: float = 0.0
    heartbeat: Heartbeat | None = None
    work: int = 0
    step: int | None = None
    phase: str | None = None
    is_stopped: bool = False
    has_ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is to be done about an attempt, and why. ``failure`` is ``None`` for a mere alert."""

    action: Action
    reason: str
    failure: Failure | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Stuck:
    failure: Failure
    reason: str
    limit_s: float


class Liveness:
    """One attempt, look after look. ``beats_s`` is how often its worker writes a heartbeat; ``None``: it writes none."""

    def __init__(
        self, timeouts: Timeouts, *, purpose: str, beats_s: float | None, spent_s: float = 0.0
    ) -> None:
        self._timeouts = timeouts
        self._validates = purpose == "validate"
        self._beats_s = beats_s
        self._spent_s = spent_s
        self._cap = 2 * look_interval(timeouts)
        self._last: Signs | None = None
        self._watched = 0.0  # seconds of looking
        self._sign_at = 0.0  # of that clock: when there was a sign of work
        self._beat_at = 0.0  # and when the newest beat was seen
        self._told_silence = False
        self._dumped_at: float | None = None

    def look(self, signs: Signs) -> Finding | None:
        """What is to be done now. After ``request_stop`` nobody needs to look any more."""
        if signs.heartbeat is None and self._last is not None:  # it is being written at this moment
            signs = replace(signs, heartbeat=self._last.heartbeat)
        self._note(signs)
        self._last = signs
        return self._overdue(signs) or self._stuck_for_long(signs) or self._silence(signs)

    def _note(self, signs: Signs) -> None:
        last = self._last
        if last is None:
            return
        passed = min(max(0.0, signs.now - last.now), self._cap)
        self._watched += passed
        if _work(signs) != _work(last):
            self._sign_at = self._watched
        if _beat(signs) != _beat(last):
            self._beat_at, self._told_silence = self._watched, False

    def _limit(self, signs: Signs) -> tuple[phases.Limit, float | None]:
        """Which time-out the attempt is under, and its seconds; ``None`` if nothing is too long.

        The heartbeat and the spool may be a moment apart; then the longer one counts.
        """
        beat, step = signs.heartbeat, _step(signs)
        told = {signs.phase, None if beat is None else beat.phase} - {None}
        names = [phases.limit_of(phase, step) for phase in told or {None}]
        limits = [(name, self._seconds(name)) for name in names]
        return max(limits, key=lambda limit: float("inf") if limit[1] is None else limit[1])

    def _seconds(self, name: phases.Limit) -> float | None:
        seconds: float | None = getattr(self._timeouts, name)
        return seconds

    def _overdue(self, signs: Signs) -> Finding | None:
        allowed, ran = self._timeouts.max_duration_s, self._spent_s + signs.ran_s
        if allowed is None or ran < allowed:
            return None
        reason = f"it ran for {ran:.0f} s in all, and max_duration_s allows {allowed:g} s"
        return Finding(action="request_stop", failure="deadline", reason=reason)

    def _stuck_for_long(self, signs: Signs) -> Finding | None:
        """First its stacks are looked at; then, if it has still not come back to life, it is stopped."""
        stuck = self._stuck(signs)
        if stuck is None:
            self._dumped_at = None
            return None
        if self._dumped_at is None:
            self._dumped_at = self._watched
            return Finding(action="dump_stacks", failure=stuck.failure, reason=stuck.reason)
        if self._watched - self._dumped_at < min(SECOND_LOOK, stuck.limit_s / 2):
            return None
        return Finding(action="request_stop", failure=stuck.failure, reason=stuck.reason)

    def _stuck(self, signs: Signs) -> _Stuck | None:
        silent = self._watched - self._sign_at
        where = _where(signs)
        if (
            signs.has_ended
            and self._timeouts.heartbeat_s is not None
            and silent >= self._timeouts.heartbeat_s
        ):
            reason = f"its worker has ended, and its runner has not said so for {silent:.0f} s"
            return _Stuck("stall", reason, self._timeouts.heartbeat_s)
        if self._validates:
            longest = _longest(self._timeouts.start_s, self._timeouts.evaluation_s)
            if longest is None or silent < longest or self._claims_work(signs, longest):
                return None
            return _Stuck("stall", f"its validation told of nothing for {silent:.0f} s{where}", longest)
        name, limit = self._limit(signs)
        if limit is None:
            return None
        if silent < limit or self._claims_work(signs, limit):
            return None
        if name == "start_s":
            reason = f"no first step, and no sign of work for {silent:.0f} s{where}"
            return _Stuck("start_timeout", reason, limit)
        return _Stuck("stall", f"no step for {silent:.0f} s{where}", limit)

    def _claims_work(self, signs: Signs, limit: float) -> bool:
        """Whether the worker itself, in a fresh beat, says that its last step is not as long ago as it looks."""
        beat, beats_s = signs.heartbeat, self._beats_s
        if beat is None or beats_s is None or self._watched - self._beat_at > 2.5 * beats_s:
            return False
        return beat.beat_at - beat.step_at < limit

    def _silence(self, signs: Signs) -> Finding | None:
        silent, limit = self._watched - self._beat_at, self._timeouts.heartbeat_s
        if self._beats_s is None or self._told_silence or limit is None or silent < limit:
            return None
        self._told_silence = True
        reason = f"its process lives, and has given no sign of life for {silent:.0f} s{_where(signs)}"
        return Finding(action="alert", reason=reason, figures={"silent_s": round(silent, 1)})


def look_interval(timeouts: Timeouts) -> float:
    """Seconds between two looks at an attempt with these limits."""
    return min(LOOK_INTERVAL, _shortest(timeouts) / _LOOKS_A_LIMIT)


def beat_interval(timeouts: Timeouts) -> float:
    """Seconds between two heartbeats of the worker of an attempt with these limits."""
    return min(BEAT_INTERVAL, _shortest(timeouts) / _BEATS_A_LIMIT)


def _shortest(timeouts: Timeouts) -> float:
    limits = (
        timeouts.heartbeat_s,
        timeouts.start_s,
        timeouts.stall_s,
        timeouts.evaluation_s,
        timeouts.saving_s,
        timeouts.max_duration_s,
    )
    return max(0.1, min((limit for limit in limits if limit is not None), default=LOOK_INTERVAL))


def _longest(*limits: float | None) -> float | None:
    known = [limit for limit in limits if limit is not None]
    return max(known) if len(known) == len(limits) else None


def _work(signs: Signs) -> tuple[int, float | None]:
    return signs.work, None if signs.heartbeat is None else signs.heartbeat.step_at


def _beat(signs: Signs) -> float | None:
    return None if signs.heartbeat is None else signs.heartbeat.beat_at


def _step(signs: Signs) -> int | None:
    beat = signs.heartbeat
    return signs.step if beat is None or beat.step is None else beat.step


def _where(signs: Signs) -> str:
    """Where it stands, in words to put behind a sentence."""
    beat, step = signs.heartbeat, _step(signs)
    phase = signs.phase if beat is None or beat.phase is None else beat.phase
    told = [*([phase] if phase else []), *([f"after step {step}"] if step is not None else [])]
    stopped = "; its process is stopped, as by SIGSTOP" if signs.is_stopped else ""
    return (f" ({', '.join(told)})" if told else "") + stopped
