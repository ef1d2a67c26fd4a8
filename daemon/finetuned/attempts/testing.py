"""For tests: the log's side of the attempts, in memory, and specifications of fake work."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import anyio

from finetuned.attempts.ports import Alert, Ending, Intervention, LiveAttempt, StopOrder, Timeouts
from finetuned_sdk.bundle import RunnerIdentity, Spec
from finetuned_sdk.spool import BadLine, Fact


def fake_spec(job: str = "job-1", attempt: int = 1, **changes: Any) -> Spec:
    """An attempt at the job kind ``finetuned_sdk.fake``; changes are fields of ``Spec``."""
    spec = Spec(
        job=job,
        attempt=attempt,
        kind="fake",
        entry="finetuned_sdk.fake:run",
        params={},
        params_model="finetuned_sdk.fake:FakeParams",
        interpreter=sys.executable,
        metadata={"kind": "fake", "name": None, "params": {}, "retry_of": None},
    )
    return replace(spec, **changes)


@dataclass(slots=True)
class Entry:
    """What the log has of one attempt."""

    spec: Spec
    attempt: LiveAttempt
    runners: list[RunnerIdentity] = field(default_factory=list)
    lines: list[Fact | BadLine] = field(default_factory=list)
    ending: Ending | None = None
    interventions: list[Intervention | Alert] = field(default_factory=list)

    @property
    def facts(self) -> list[Fact]:
        """The lines that hold."""
        return [line for line in self.lines if isinstance(line, Fact)]


class MemoryAttemptLog:
    """``finetuned.attempts.ports.AttemptLog`` that forgets when the test ends.

    It refuses what the real one refuses: lines out of order, a second end, lines after the end.
    """

    def __init__(self) -> None:
        self.entries: dict[tuple[str, int], Entry] = {}
        self._changed = anyio.Event()

    def start(self, spec: Spec, timeouts: Timeouts | None = None, *, spent_s: float = 0.0) -> Entry:
        """Begin an attempt, as ``attempt.starting`` does."""
        attempt = LiveAttempt(
            job=spec.job,
            number=spec.attempt,
            purpose=spec.purpose,
            line=0,
            timeouts=timeouts or Timeouts(),
            spent_s=spent_s,
        )
        entry = self.entries[spec.job, spec.attempt] = Entry(spec, attempt)
        return entry

    def cancel(self, job: str, attempt: int, reason: str = "asked to") -> None:
        """Request the end of an attempt."""
        self.stop(job, attempt, StopOrder(reason=reason))

    def stop(self, job: str, attempt: int, order: StopOrder) -> None:
        """Have an attempt stopped."""
        entry = self.entries[job, attempt]
        entry.attempt = replace(entry.attempt, stop=order)

    async def until_ended(self, job: str, attempt: int) -> Ending:
        """Wait for the end of an attempt."""
        while (ending := self.entries[job, attempt].ending) is None:
            await self.until_changed()
        return ending

    async def until_fact(self, job: str, attempt: int, fact_type: str) -> Fact:
        """Wait for the first fact of a type."""
        while True:
            for fact in self.entries[job, attempt].facts:
                if fact.type == fact_type:
                    return fact
            await self.until_changed()

    async def until_changed(self) -> None:
        """Wait until something is recorded."""
        await self._changed.wait()

    async def live(self) -> list[LiveAttempt]:
        """All attempts without an end."""
        return [entry.attempt for entry in self.entries.values() if entry.ending is None]

    async def known(self) -> dict[str, int]:
        """The highest attempt number of each job."""
        return {job: max(n for name, n in self.entries if name == job) for job, _ in self.entries}

    async def spec(self, job: str, attempt: int) -> Spec:
        """What to run."""
        return self.entries[job, attempt].spec

    async def launched(self, job: str, attempt: int, runner: RunnerIdentity) -> None:
        """Note the runner, once."""
        runners = self.entries[job, attempt].runners
        if runner not in runners:
            runners.append(runner)
        self._notify()

    async def record(
        self,
        job: str,
        attempt: int,
        lines: Sequence[Fact | BadLine],
        *,
        last: bool = False,  # noqa: ARG002 - memory is not full
    ) -> None:
        """Keep lines and move the cursor. Raises ``ValueError`` for a line that is there already."""
        entry = self.entries[job, attempt]
        if entry.ending is not None:
            raise ValueError(f"attempt {attempt} of job {job} has ended; nothing can be recorded any more")
        for line in lines:
            if line.line <= entry.attempt.line:
                raise ValueError(f"line {line.line} of attempt {attempt} of job {job} was recorded already")
            entry.attempt = replace(entry.attempt, line=line.line)
            entry.lines.append(line)
        self._notify()

    async def intervened(self, job: str, attempt: int, what: Intervention | Alert) -> None:
        """Note what the watchdog did or saw; what it has stopped is to end from then on."""
        entry = self.entries[job, attempt]
        if entry.ending is not None:
            return
        entry.interventions.append(what)
        if isinstance(what, Intervention) and what.failure is not None and what.action == "request_stop":
            wait_s = entry.attempt.timeouts.pause_s
            order = StopOrder(reason=what.reason, checkpoint=True, patience_s=wait_s, failure=what.failure)
            self.stop(job, attempt, order)
        self._notify()

    async def ended(self, job: str, attempt: int, ending: Ending) -> None:
        """Note the end. Raises ``ValueError`` for a second one."""
        entry = self.entries[job, attempt]
        if entry.ending is not None:
            raise ValueError(f"attempt {attempt} of job {job} has ended already")
        entry.ending = ending
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
