"""The work of a batch: check its input, ask what has no result yet, and make its files.

Nothing is asked before the whole file was found to be well-formed. What an earlier attempt has got counts.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio

from finetuned_batch import outcome, segments, suspects
from finetuned_batch import requests as inputs
from finetuned_batch.asking import ASKING, Asking, Speed
from finetuned_batch.order import ordered
from finetuned_batch.params import BatchParams
from finetuned_batch.requests import Limits, Problem, Requests
from finetuned_batch.segments import Results, SegmentWriter
from finetuned_batch.suspects import Suspects
from finetuned_sdk.context import AuditReport
from finetuned_sdk.errors import BadDatasetError, RowProblem

if TYPE_CHECKING:
    from finetuned_sdk.context import WorkerContext

VALIDATING: Final = "validating"
FINALIZING: Final = "finalizing"
#: how long after the last one a report is written: this share of the batch's time so far, and so many seconds at most
REPORTED: Final = 0.01
LONGEST_SILENCE: Final = 5.0


def run(ctx: WorkerContext, params: BatchParams) -> None:
    """Run the batch. Raises ``BadDatasetError`` for a malformed input, and ``JobError`` if there is no engine."""
    before = segments.of_attempts(ctx.work_dir.parents[1])
    found = _checked(ctx, params, is_new=not before)
    results = Results(before)
    segment = SegmentWriter(ctx.work_dir / segments.NAME)
    report = _Report(ctx, len(found.rows), results)
    try:
        if not anyio.run(_ask, ctx, params, found, results, segment, report):
            return
    finally:
        segment.close()
    report.finalizing_at = int(time.time())
    ctx.phase(FINALIZING)
    report.tell(final=True)
    results = Results(segments.of_attempts(ctx.work_dir.parents[1]))
    for path in outcome.write(ctx.artifact_dir, ctx.job_id, found, results):
        ctx.artifact(path, kind=outcome.KIND)
    ctx.result(**report.figures, **results.tally.figures())


async def _ask(
    ctx: WorkerContext,
    params: BatchParams,
    found: Requests,
    results: Results,
    segment: SegmentWriter,
    report: _Report,
) -> bool:
    missing = [row for row in found.rows if row.key not in results.places]
    source = os.open(found.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        asking = Asking(
            ctx,
            source,
            params.endpoint,
            params.model,
            params.window,
            segment,
            results.tally,
            report.tell,
            Suspects(suspects.of_attempts(ctx.work_dir.parents[1]), ctx.work_dir / suspects.NAME),
        )
        ctx.phase(ASKING)
        report.tell(final=True)
        return await asking.run(ordered(missing))
    finally:
        os.close(source)


class _Report:
    """Tells of the batch's progress. Times are seconds since the epoch."""

    def __init__(self, ctx: WorkerContext, total: int, results: Results) -> None:
        self._ctx = ctx
        self._total = total
        self._tally = results.tally
        self._speed = Speed(results.tally)
        self._begun = time.monotonic()
        self.finalizing_at: int | None = None

    @property
    def figures(self) -> dict[str, int | None]:
        """What the result has beside the tally."""
        return {"total": self._total, "finalizing_at": self.finalizing_at}

    def tell(self, *, final: bool = False) -> None:
        """Report how many are done."""
        self._ctx.progress(
            current_step=self._tally.done,
            total_steps=self._total,
            final=final,
            interval=min(LONGEST_SILENCE, REPORTED * (time.monotonic() - self._begun)),
            tokens_per_second=self._speed.tokens_per_second,
            finalizing_at=self.finalizing_at,
            **self._tally.figures(),
        )


def _checked(ctx: WorkerContext, params: BatchParams, *, is_new: bool) -> Requests:
    """The requests of the input. Raises ``BadDatasetError`` if any line is malformed."""
    ctx.phase(VALIDATING)
    found = inputs.read(Path(ctx.dataset_path("input")), limits_of(params), advancing=ctx.advancing)
    if is_new:
        ctx.audit(_audit(params, found))
    if found.total_problems:
        problems = [RowProblem(each.line or 0, each.message) for each in found.problems]
        raise BadDatasetError(
            params.input, problems, remedy="Nothing was asked; correct the file.", total=found.total_problems
        )
    return found


def limits_of(params: BatchParams) -> Limits:
    """What the input is held to."""
    return Limits(params.endpoint, params.model, params.max_requests, params.max_bytes)


def _audit(params: BatchParams, found: Requests) -> AuditReport:
    extra = {"problems": [_told(each) for each in found.problems], "total_problems": found.total_problems}
    return AuditReport(dataset=params.input, format="batch", rows=len(found.rows), extra=extra)


def _told(problem: Problem) -> dict[str, str | int | None]:
    return {
        "code": problem.code,
        "message": problem.message,
        "param": problem.param,
        "line": problem.line,
    }
