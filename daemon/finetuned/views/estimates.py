"""Dry runs as the wire shows them."""

from __future__ import annotations

from dataclasses import asdict

from finetuned import wire
from finetuned.estimates.dry_run import DryRun


def dry_run(each: DryRun) -> wire.DryRun:
    """What would come of a request."""
    return {
        "object": "dry_run",
        "kind": each.kind,
        "accepted": each.accepted,
        "params": dict(each.params),
        "devices": each.devices,
        "estimate": asdict(each.estimate),
        "duration": {
            "seconds": each.duration.seconds,
            "source": each.duration.source,
            "jobs": each.duration.jobs,
            "steps": each.duration.steps,
        },
        "checks": [
            {
                "name": check.name,
                "verdict": check.verdict,
                "message": check.message,
                "figures": dict(check.figures),
            }
            for check in each.checks
        ],
        "fixes": [{"params": dict(fix.params), "estimate": asdict(fix.estimate)} for fix in each.fixes],
        "start": {
            "now": each.start.now,
            "devices": list(each.start.devices),
            "wait_reason": each.start.reason,
            "queue_position": each.start.position,
            "after_validation": each.start.after_validation,
        },
    }
