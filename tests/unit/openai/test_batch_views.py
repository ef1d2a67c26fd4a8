"""A job of the kind batch as OpenAI's client reads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai.types import Batch
from tests.unit.domain.worlds import submission

from finetuned.batch_expiry import BatchExpiry, due
from finetuned.commands.batches import LONGEST_LINE, model_in
from finetuned.domain import files, job
from finetuned.domain.errors import InvalidRequestError
from finetuned.domain.job import Job
from finetuned.domain.states import JobState
from finetuned.domain.waits import Wait
from finetuned.job_request import JobRequest
from finetuned.openai.batches import (
    DAY_S,
    EXPIRY,
    BatchRequest,
    completed,
    job_request,
    model_of,
    require_reason,
    require_within,
    window_s,
)
from finetuned.views import batches
from finetuned_batch.params import BatchParams

SECOND = 1_000_000
NOW = 1_700_000_000
AUDIT: dict[str, Any] = {"rows": 4, "extra": {"problems": [], "total_problems": 0}}
PROBLEM = {"code": "invalid_url", "message": "no", "param": "url", "line": 3}
BAD: dict[str, Any] = {"rows": 0, "extra": {"problems": [PROBLEM], "total_problems": 1}}
FIGURES: dict[str, Any] = {
    "completed": 2, "failed": 1, "input_tokens": 30, "output_tokens": 12, "cached_tokens": 5, "reasoning_tokens": 0,
}  # fmt: skip


def submitted(**params: Any) -> Job:
    asked = {"input": "file:file-0123456789", "model": "m", "endpoint": "/v1/completions", **params}
    fact = submission(kind="batch", params=asked, metadata={"team": "a"}, validates=False)
    return job.submitted("job-abcde12345", fact, seq=7, at=NOW * SECOND, actor="somebody")


def at(state: JobState, **changes: Any) -> Job:
    return replace(submitted(), state=state, **changes)


def shown(each: Job) -> Batch:
    """As the client's own model takes it."""
    return Batch.model_validate(batches.batch(each, None), strict=True)


def artifact(name: str) -> dict[str, Any]:
    return {"name": name, "kind": "file:batch_output", "path": "/x", "bytes": 1}


@pytest.mark.parametrize(
    ("each", "status"),
    [
        (submitted(), "validating"),
        (at(JobState.RUNNING, phase="validating"), "validating"),
        (at(JobState.RUNNING, audits=(BAD,)), "validating"),
        (at(JobState.RUNNING, audits=(AUDIT,)), "in_progress"),
        (at(JobState.QUEUED, audits=(AUDIT,)), "in_progress"),
        (at(JobState.PAUSED, audits=(AUDIT,)), "in_progress"),
        (at(JobState.RUNNING, audits=(AUDIT,), phase="finalizing"), "finalizing"),
        (at(JobState.SUCCEEDED, audits=(AUDIT,)), "completed"),
        (at(JobState.FAILED, audits=(BAD,)), "failed"),
        (at(JobState.CANCELLING), "cancelling"),
        (at(JobState.CANCELLED), "cancelled"),
        (at(JobState.CANCELLING, cancel_reason="batch_expired: late"), "finalizing"),
        (at(JobState.CANCELLED, cancel_reason="batch_expired: late"), "expired"),
    ],
)
def test_each_state_has_openais_word(each: Job, status: str) -> None:
    assert shown(each).status == status


def test_a_new_batch_has_nulls_where_there_is_nothing_yet() -> None:
    told = batches.batch(submitted(), Wait("behind others", 2))
    empty = ("errors", "output_file_id", "error_file_id", "in_progress_at", "finalizing_at", "completed_at", "failed_at",
             "expired_at", "cancelling_at", "cancelled_at")  # fmt: skip
    assert {name: told[name] for name in empty} == dict.fromkeys(empty)  # type: ignore[literal-required]
    assert told["id"] == "batch_abcde12345"
    assert told["input_file_id"] == "file-0123456789"
    assert (told["created_at"], told["expires_at"]) == (NOW, NOW + DAY_S)
    assert told["completion_window"] == "24h"
    assert told["metadata"] == {"team": "a"}
    assert told["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert told["x_finetuned"]["wait_reason"] == "behind others"


def test_a_completed_batch_has_its_files_counts_usage_and_times() -> None:
    made = (artifact("batch_abcde12345_output.jsonl"), artifact("batch_abcde12345_error.jsonl"))
    told = shown(
        at(
            JobState.SUCCEEDED,
            audits=(AUDIT,),
            artifacts=made,
            started_at=(NOW + 1) * SECOND,
            finished_at=(NOW + 9) * SECOND,
            progress={"completed": 1},
            result={**FIGURES, "finalizing_at": NOW + 8},
        )
    )
    assert (told.in_progress_at, told.finalizing_at, told.completed_at) == (NOW + 1, NOW + 8, NOW + 9)
    assert told.output_file_id == files.made_id("job-abcde12345", "batch_abcde12345_output.jsonl")
    assert told.error_file_id == files.made_id("job-abcde12345", "batch_abcde12345_error.jsonl")
    assert told.request_counts is not None
    assert told.request_counts.model_dump() == {"total": 4, "completed": 2, "failed": 1}
    assert told.usage is not None
    assert told.usage.total_tokens == 42
    assert told.usage.input_tokens_details.cached_tokens == 5


def test_files_are_told_of_once_the_batch_has_ended() -> None:
    made = (artifact("batch_abcde12345_output.jsonl"),)
    assert shown(at(JobState.RUNNING, audits=(AUDIT,), artifacts=made)).output_file_id is None


def test_a_malformed_input_is_told_line_by_line() -> None:
    failed = at(JobState.FAILED, audits=(BAD,), error={"code": "bad_dataset", "message": "many"})
    told = shown(failed)
    assert told.errors is not None
    assert told.errors.data is not None
    assert [each.model_dump() for each in told.errors.data] == [PROBLEM]


def test_any_other_failure_is_an_error_without_a_line() -> None:
    failed = at(JobState.FAILED, audits=(AUDIT,), error={"code": "engine_failed", "message": "no engine"})
    told = shown(failed)
    assert told.errors is not None
    assert told.errors.data is not None
    assert [(each.code, each.message, each.line) for each in told.errors.data] == [
        ("engine_failed", "no engine", None)
    ]


def test_a_batch_that_nobody_began_tells_the_total_that_was_salvaged() -> None:
    told = shown(at(JobState.CANCELLED, progress={"total_steps": 9, "completed": 0}))
    assert told.request_counts is not None
    assert told.request_counts.total == 9


@pytest.mark.parametrize(("window", "told"), [(None, "none"), (7200, "2h"), (90, "90s")])
def test_a_native_batch_may_have_another_window_or_none(window: int | None, told: str) -> None:
    each = submitted(completion_window=window)
    assert shown(each).completion_window == told
    assert shown(each).expires_at == (None if window is None else NOW + window)


def test_what_is_due_are_live_batches_whose_window_is_over() -> None:
    live = at(JobState.RUNNING)
    end = (NOW + DAY_S) * SECOND
    assert due([live], end - 1) == []
    assert due([live], end) == [live]
    others = [
        at(JobState.CANCELLING),
        at(JobState.SUCCEEDED),
        replace(live, kind="sft"),
        submitted(completion_window=None),
    ]
    assert due(others, end) == []


def test_the_model_is_that_of_the_first_line_that_names_one() -> None:
    assert model_of([b"", b"{", b"[]", b'{"body": {"model": 7}}', b'{"body": {"model": "m"}}']) == "m"


def test_a_request_becomes_a_job_with_the_daemons_limits() -> None:
    body = BatchRequest.model_validate(
        {
            "input_file_id": "file-1",
            "endpoint": "/v1/completions",
            "completion_window": "24h",
            "output_expires_after": {"anchor": "created_at", "seconds": 3600},
            "priority": 3,
        }
    )
    request = job_request(body, "m", max_requests=5, max_bytes=6)
    assert request.kind == "batch"
    assert request.priority == 3
    assert request.params == {
        "input": "file:file-1",
        "endpoint": "/v1/completions",
        "model": "m",
        "completion_window": DAY_S,
        "max_requests": 5,
        "max_bytes": 6,
        "output_expires_after_s": 3600,
    }


@pytest.mark.parametrize("window", ["3600", [], {}, float("inf")])
def test_a_window_that_a_log_holds_and_that_is_no_number_is_the_usual_one(window: Any) -> None:
    assert window_s(submitted(completion_window=window)) == DAY_S


def test_who_cancels_a_batch_does_not_make_it_expired() -> None:
    require_reason("batch_expired: over", actor=EXPIRY)
    require_reason("enough", actor="token:one")
    with pytest.raises(InvalidRequestError) as refused:
        require_reason("batch_expired", actor="token:one")
    assert refused.value.param == "reason"


class World:
    def live_jobs(self) -> list[Job]:
        return [replace(at(JobState.RUNNING), id=each) for each in ("job-broken2345", "job-other23456")]


class Ending:
    """The board, and the commands, of which one fails."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def world(self) -> World:
        return World()

    async def cancel(self, job_id: str, **_said: str) -> None:
        if job_id == "job-broken2345":
            raise TypeError(job_id)
        self.ended.append(job_id)


async def test_a_batch_that_cannot_be_ended_holds_up_no_other() -> None:
    ending: Any = Ending()
    await BatchExpiry(ending, ending, lambda: (NOW + DAY_S) * SECOND).step()
    assert ending.ended == ["job-other23456"]


def test_a_batch_that_says_no_limit_has_the_daemons_and_may_not_have_more() -> None:
    limits = {"max_requests": 5, "max_bytes": 600}
    asked = JobRequest(kind="batch", params={"input": "i", "model": "m", "max_requests": "7"})
    params = completed(asked, **limits).params
    assert params == {"input": "i", "model": "m", "max_requests": "7", "max_bytes": 600}
    with pytest.raises(InvalidRequestError) as refused:
        require_within(BatchParams.model_validate(params), **limits)
    assert refused.value.param == "params.max_requests"
    require_within(BatchParams.model_validate({**params, "max_requests": 5}), **limits)
    other = JobRequest(kind="fake")
    assert completed(other, **limits) is other


@pytest.mark.parametrize("lines", [[LONGEST_LINE + 1], [LONGEST_LINE] * 9])
def test_the_model_is_not_looked_for_in_long_lines(lines: list[int], tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(b" " * (length - 1) + b"\n" for length in lines))
    with pytest.raises(InvalidRequestError, match="MiB") as refused:
        model_in(path)
    assert refused.value.stable_code == "invalid_input_file"
