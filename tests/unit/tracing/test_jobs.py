"""The trace of a job that has ended, made of what the log says of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from finetuned.domain import facts
from finetuned.domain.job import Attempt, Job, submitted
from finetuned.domain.states import JobState
from finetuned.tracing.jobs import context, spans

SECOND = 1_000_000  # microseconds
NOTHING = Resource({})


def job(**changes: Any) -> Job:
    """An SFT job that was submitted at 10 s and ended at 60 s."""
    fact = facts.JobSubmitted(
        kind="sft", name=None, params={}, priority=0, metadata={}, devices=1, validates=True, max_attempts=3, models={},
        callbacks=[], estimate=None, retry_of=None, resume_from=None,
    )  # fmt: skip
    accepted = submitted("job-1", fact, seq=1, at=10 * SECOND, actor="uid:1000")
    ended: dict[str, Any] = {
        "state": JobState.SUCCEEDED,
        "updated_at": 60 * SECOND,
        "finished_at": 60 * SECOND,
    }
    return replace(accepted, **ended | changes)


def attempt(number: int, start_s: int, end_s: int, **changes: Any) -> Attempt:
    fields: dict[str, Any] = {
        "number": number, "purpose": "run", "devices": ["cpu:0"], "starting_at": start_s * SECOND,
        "ended_at": end_s * SECOND, "outcome": "succeeded", "pid": 42,
    }  # fmt: skip
    return Attempt(**fields | changes)


def seconds(span: ReadableSpan) -> tuple[float, float]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time / 1e9, span.end_time / 1e9


def test_the_root_spans_from_submission_to_the_end_and_attempts_and_waits_lie_in_it() -> None:
    found = spans(job(attempts=(attempt(0, 11, 15, purpose="validate"), attempt(1, 20, 60))), NOTHING)
    assert [(each.name, seconds(each)) for each in found] == [
        ("wait", (10, 11)),
        ("wait", (15, 20)),
        ("attempt validate", (11, 15)),
        ("attempt run", (20, 60)),
        ("job sft", (10, 60)),
    ]
    root = found[-1]
    assert root.parent is None
    assert all(each.parent == root.context for each in found[:-1])
    assert len({each.context.span_id for each in found if each.context}) == len(found)


def test_the_same_job_gives_the_same_ids_and_another_one_others() -> None:
    ended = job(attempts=(attempt(1, 20, 60),))
    assert [each.context for each in spans(ended, NOTHING)] == [
        each.context for each in spans(ended, NOTHING)
    ]
    assert context("job-1").trace_id != context("job-2").trace_id
    assert context("job-1").is_valid
    assert context("job-1").trace_flags.sampled


def test_a_crashed_attempt_and_a_failed_job_are_errors_with_their_causes() -> None:
    failed = job(
        state=JobState.FAILED,
        error={"code": "gave_up", "message": "Gave up after 1 attempt."},
        attempts=(attempt(1, 20, 60, outcome="crashed", cause="it was killed by signal 9", signal=9),),
    )
    _wait, run, root = spans(failed, NOTHING)
    assert (run.status.status_code, run.status.description) == (StatusCode.ERROR, "it was killed by signal 9")
    assert (root.status.status_code, root.status.description) == (
        StatusCode.ERROR,
        "Gave up after 1 attempt.",
    )
    assert run.attributes is not None
    assert run.attributes["finetuned.attempt.signal"] == 9


def test_a_cancelled_job_is_no_error_and_one_without_an_attempt_is_the_root_alone() -> None:
    (root,) = spans(job(state=JobState.CANCELLED), NOTHING)
    assert root.status.status_code is StatusCode.UNSET
    assert root.attributes is not None
    assert root.attributes["finetuned.job.state"] == "cancelled"
    assert "finetuned.job.name" not in root.attributes


def test_a_retry_is_linked_with_the_job_that_it_retries() -> None:
    (root,) = spans(job(retry_of="job-0"), NOTHING)
    assert [link.context for link in root.links] == [context("job-0")]
