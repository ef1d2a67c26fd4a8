"""What a batch that was cancelled, has expired or has failed leaves: its finished lines, and why the others are not.

It is worked out from the input and the segments alone, so it is the same whatever was killed when.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from finetuned_batch import outcome, segments
from finetuned_batch import requests as inputs
from finetuned_batch.outcome import Unfinished
from finetuned_batch.params import BatchParams
from finetuned_batch.requests import Limits
from finetuned_batch.segments import Results
from finetuned_sdk.salvage import Leftovers, Salvaged

EXPIRED: Final = "batch_expired"  # how the reason of a cancel begins by which a batch expires


def salvage(left: Leftovers) -> Salvaged:
    """The files of a batch that did not come to its end. Nothing of one whose input is malformed: it asked nothing.

    Raises ``JobError`` or ``OSError``.
    """
    params = BatchParams.model_validate(left.params)
    limits = Limits(params.endpoint, params.model, params.max_requests, params.max_bytes)
    found = inputs.read(Path(left.datasets.get("input", params.input)), limits)
    if found.total_problems:
        return Salvaged()
    results = Results(segments.of_attempts(left.attempts))
    left.artifacts.mkdir(parents=True, exist_ok=True)
    paths = outcome.write(left.artifacts, left.job, found, results, _unfinished(left))
    figures = {**results.tally.figures(), "current_step": results.tally.done, "total_steps": len(found.rows)}
    return Salvaged(artifacts=tuple((path, outcome.KIND) for path in paths), progress=figures)


def _unfinished(left: Leftovers) -> Unfinished:
    if not left.was_cancelled:
        return Unfinished(
            "batch_failed", f"The batch failed before this request had its answer: {left.reason or 'unknown'}"
        )
    if (left.reason or "").startswith(EXPIRED):
        return Unfinished(
            EXPIRED, "The batch's completion window was over before this request had its answer."
        )
    return Unfinished("batch_cancelled", "The batch was cancelled before this request had its answer.")
