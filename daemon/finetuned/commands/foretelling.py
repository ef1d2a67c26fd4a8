"""What is told of a request before anything is run of it."""

from __future__ import annotations

from dataclasses import replace

from finetuned.domain import facts
from finetuned.domain.job import Job
from finetuned.estimates import checks, history
from finetuned.estimates.dry_run import DryRun, Start
from finetuned.submission import Prepared


def advice(prepared: Prepared) -> list[facts.JobAdvice]:
    """What was found tight, for the job's timeline."""
    return [
        facts.JobAdvice(setting=check.name, message=check.message, figures=dict(check.figures))
        for check in prepared.checks
        if check.verdict in {checks.WARNING, checks.REFUSED}
    ]


def dry_run(prepared: Prepared, start: Start, ended: list[Job]) -> DryRun:
    """What would come of a request. Reads the file system; ``ended`` are the newest jobs of its kind that succeeded."""
    kind, params, host = prepared.kind, prepared.params, prepared.host
    worst = checks.worst(prepared.checks)
    duration = history.foretell(
        kind,
        params,
        steps=kind.steps(params, host) if kind.steps else None,
        device="gpu" if host.has_gpu else "cpu",
        declared=prepared.estimate.duration_s,
        ended=ended,
    )
    return DryRun(
        kind=kind.name,
        accepted=worst != checks.REFUSED or prepared.fact.ignores_estimate,
        params=kind.effective(params, host) if kind.effective else params.model_dump(mode="json"),
        devices=prepared.fact.devices,
        estimate=replace(prepared.estimate, duration_s=duration.seconds),
        duration=duration,
        checks=prepared.checks,
        fixes=[] if worst == checks.OK else prepared.fixes(),
        start=start,
    )
