from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from finetuned.cli.timeline import TYPES, Row, timeline
from finetuned.domain import facts
from finetuned.domain.states import JobState
from finetuned.wire import Event

BEGIN = datetime(2026, 11, 22, 12, tzinfo=UTC)


def story(*steps: tuple[float, str, dict[str, Any]]) -> list[Event]:
    """Events at so many seconds after the beginning."""
    return [
        Event(
            seq=number,
            stream="job/job-1",
            version=number,
            type=kind,
            at=(BEGIN + timedelta(seconds=second)).isoformat(),
            actor="scheduler",
            data=data,
        )
        for number, (second, kind, data) in enumerate(steps, start=1)
    ]


def states(rows: list[Row]) -> list[tuple[str | None, float | None]]:
    return [(row.state, row.seconds) for row in rows if row.state is not None]


RUN = {"attempt": 1, "purpose": "run", "devices": ["cpu:0"], "resume_from": None}


def test_each_state_lasts_until_the_next_and_the_last_has_no_end() -> None:
    rows = timeline(
        story(
            (0, "job.submitted", {"validates": True, "retry_of": None}),
            (1, "attempt.starting", RUN | {"attempt": 0, "purpose": "validate", "devices": []}),
            (2, "attempt.started", {"attempt": 0}),
            (5, "job.queued", {"reason": "validated", "delay_s": 0.0}),
            (6, "attempt.starting", RUN),
            (8, "attempt.started", {"attempt": 1}),
        )
    )
    assert states(rows) == [("validating", 5), ("queued", 1), ("starting", 2), ("running", None)]


def test_an_end_has_no_duration() -> None:
    rows = timeline(
        story(
            (0, "job.submitted", {"validates": False, "retry_of": "job-0"}),
            (3, "job.cancel_requested", {"reason": None}),
            (4, "job.cancelled", {}),
        )
    )
    assert states(rows) == [("queued", 3), ("cancelling", 1), ("cancelled", None)]
    assert [row.text for row in rows] == ["submitted again (retry of job-0)", "asked for", ""]


def test_a_phase_lasts_until_the_next_phase_or_state() -> None:
    rows = timeline(
        story(
            (0, "job.submitted", {"validates": False, "retry_of": None}),
            (1, "attempt.starting", RUN),
            (2, "attempt.started", {"attempt": 1}),
            (3, "job.phase", {"phase": "loading_model"}),
            (7, "job.phase", {"phase": "training"}),
            (9, "evaluation.recorded", {"name": "validation", "metrics": {"exact_match": 0.5}, "step": 4}),
            (20, "job.succeeded", {"result": {"train_loss": 0.25, "eval_loss": None}}),
        )
    )
    assert [(row.phase, row.seconds) for row in rows if row.phase] == [("loading_model", 4), ("training", 13)]
    assert rows[-2].text == "validation at step 4: exact_match 0.5"
    assert rows[-1].text == "train_loss 0.25"


def test_a_crash_says_how_it_ended_and_how_long_it_waits() -> None:
    ended = {
        "attempt": 1, "outcome": "crashed", "exit_code": None, "signal": 9, "oom_killed": True, "cause": "killed",
    }  # fmt: skip
    rows = timeline(
        story(
            (0, "job.submitted", {"validates": False, "retry_of": None}),
            (1, "attempt.starting", RUN),
            (2, "attempt.started", {"attempt": 1}),
            (3, "attempt.ended", ended),
            (3, "job.queued", {"reason": "attempt 1 crashed", "delay_s": 4.0}),
            (7, "attempt.starting", RUN | {"attempt": 2, "resume_from": "/c"}),
            (8, "attempt.error", {"attempt": 2, "code": "oom", "message": "Too big."}),
            (9, "attempt.line_rejected", {"attempt": 2, "line": 4, "reason": "no JSON"}),
            (10, "attempt.ended", {"attempt": 2, "outcome": "failed", "exit_code": 3, "cause": "Too big."}),
            (11, "attempt.ended", {"attempt": 3, "outcome": "lost"}),
            (12, "job.failed", {"code": "oom", "message": "Too big."}),
        )
    )
    assert [row.text for row in rows] == [
        "submitted",
        "attempt 1 on cpu:0",
        "",
        "attempt 1 crashed: signal 9, out of memory, killed",
        "attempt 1 crashed; waits 4.0 s",
        "attempt 2 on cpu:0 from a checkpoint",
        "oom: Too big.",
        "a line of its report was skipped: no JSON",
        "attempt 2 failed: exit code 3",
        "attempt 3 lost",
        "oom: Too big.",
    ]


def test_what_validation_found_and_what_was_made_are_told_in_a_few_words() -> None:
    report = {
        "dataset": "/data/rows.jsonl", "format": "messages", "rows": 300, "truncated_rows": 2,
        "unanswered_rows": 1, "warnings": ["few rows"],
    }  # fmt: skip
    made = {"name": "adapter", "kind": "lora", "path": "/a", "bytes": 3_000_000}
    rows = timeline(
        story(
            (0, "job.submitted", {"validates": True, "retry_of": None}),
            (1, "dataset.audited", {"report": report}),
            (
                2,
                "checkpoint.saved",
                {"attempt": 1, "step": 30, "path": "/c", "bytes": 2_000_000, "metrics": {}},
            ),
            (3, "artifact.published", made),
            (4, "artifact.published", made | {"kind": "adapter"}),
            (5, "job.advice", {"setting": "packing", "message": "Try packing."}),
            (6, "job.deleted", {}),
        )
    )
    assert [row.text for row in rows[1:]] == [
        "rows.jsonl: 300 rows, messages, 2 are cut, 1 without an answer, few rows",
        "checkpoint at step 30 (2.0 MB)",
        "lora adapter (3.0 MB)",
        "adapter (3.0 MB)",
        "advice: Try packing.",
    ]


def test_pauses_and_what_the_watchdog_did_are_told_in_words() -> None:
    rows = timeline(
        story(
            (0, "job.submitted", {"validates": False}),
            (1, "attempt.starting", RUN | {"overrides": {"per_device_train_batch_size": 1}}),
            (2, "attempt.started", {"attempt": 1}),
            (3, "attempt.alert", {"attempt": 1, "subject": "memory", "message": "96 % of its limit"}),
            (
                4,
                "attempt.intervened",
                {"attempt": 1, "action": "dump_stacks", "failure": "stall", "reason": "no step"},
            ),
            (5, "job.checkpoint_requested", {}),
            (6, "job.pause_requested", {"reason": None}),
            (7, "job.paused", {"resume_from": "/x/checkpoint-20", "repeated_steps": 3}),
            (8, "job.queued", {"reason": "resumed", "resume_from": "/x/checkpoint-10", "repeated_steps": 1}),
            (
                9,
                "job.queued",
                {
                    "reason": "memory",
                    "delay_s": 5.0,
                    "overrides": {"per_device_train_batch_size": 2, "a": "b"},
                },
            ),
            (
                10,
                "job.measured",
                {
                    "estimate": {"device_bytes": 2e9},
                    "measured": {"device_bytes": 1e9, "duration_s": 60, "x": None},
                },
            ),
        )
    )
    assert [row.text for row in rows[1:]] == [
        "attempt 1 on cpu:0 with per_device_train_batch_size 1",
        "",
        "alert: 96 % of its limit",
        "the watchdog has its stacks written to the log: no step",
        "a checkpoint was asked for",
        "asked for",
        "from checkpoint-20; 3 steps will be done again",
        "resumed; from checkpoint-10; 1 step will be done again",
        "memory; waits 5.0 s; with per_device_train_batch_size 2, a b",
        "took device 1.0 GB (expected 2.0 GB), duration 1 min 00 s",
    ]
    assert [row.state for row in rows if row.state] == [
        "queued", "starting", "running", "pausing", "paused", "queued",
    ]  # fmt: skip


def test_every_type_of_a_timeline_is_one_that_the_daemon_records() -> None:
    assert set(TYPES) <= set(facts.FACTS)
    assert "job.progress" not in TYPES


def test_an_unknown_beginning_is_told_without_a_state() -> None:
    rows = timeline(story((0, "job.advice", {"message": "x"}), (1, "job.succeeded", {"result": {}})))
    assert states(rows) == []


@given(st.lists(st.sampled_from(sorted(facts.FACTS.keys() - {"job.submitted"})), max_size=12), st.data())
def test_durations_are_never_negative_and_add_up_to_the_whole(kinds: list[str], data: st.DataObject) -> None:
    seconds = sorted(
        data.draw(st.lists(st.integers(0, 1000), min_size=len(kinds) + 1, max_size=len(kinds) + 1))
    )
    everything = {
        "attempt": 1, "purpose": "run", "outcome": "lost", "reason": "r", "phase": "p", "message": "m", "code": "c",
        "name": "n", "metrics": {}, "step": 1, "bytes": 1, "kind": "k", "report": {}, "devices": [],
        "measured": {}, "estimate": {}, "action": "kill",
    }  # fmt: skip
    steps: list[tuple[float, str, dict[str, Any]]] = [(0.0, "job.submitted", {"validates": False})]
    steps += [(float(at), kind, everything) for at, kind in zip(seconds, kinds, strict=False)]
    rows = timeline(story(*steps))
    lasted = [row.seconds for row in rows if row.state is not None and row.seconds is not None]
    assert all(each >= 0 for each in lasted)
    state_rows = [row for row in rows if row.state is not None]
    between = datetime.fromisoformat(state_rows[-1].at) - datetime.fromisoformat(state_rows[0].at)
    if state_rows[-1].state not in {"succeeded", "failed", "cancelled"}:
        assert state_rows[-1].seconds is None
    assert sum(lasted) == between.total_seconds()
    assert {row.state for row in state_rows} <= set(JobState)
