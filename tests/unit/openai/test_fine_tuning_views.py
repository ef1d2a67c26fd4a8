"""Jobs, their events and their checkpoints as OpenAI's client reads them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint

from finetuned.domain import facts, files, job, model_names
from finetuned.domain.job import Job
from finetuned.domain.registers import Model
from finetuned.domain.states import JobState
from finetuned.domain.waits import Wait
from finetuned.openai import fine_tuning_ids
from finetuned.views import fine_tuning, fine_tuning_events
from finetuned_events import Event

SECOND = 1_000_000
TOLD: list[tuple[facts.Fact, str, str]] = [
    (facts.JobQueued(reason="its data are valid"), "info", "Files validated, moving job to queued state"),
    (facts.JobQueued(reason="attempt 1 ended: killed"), "warn", "Job is queued: attempt 1 ended: killed"),
    (facts.AttemptStarted(attempt=0, hello={}), "info", "Validating training file: file-0123456789"),
    (facts.AttemptStarted(attempt=1, hello={}), "info", "Fine-tuning job started"),
    (facts.JobPauseRequested(reason="lunch"), "info", "Fine-tuning job is pausing: lunch"),
    (facts.JobPaused(), "info", "Fine-tuning job paused"),
    (facts.JobCancelRequested(), "info", "Fine-tuning job is being cancelled"),
    (facts.JobCancelled(), "info", "Fine-tuning job cancelled"),
    (facts.JobFailed(code="bad_dataset", message="Row 2 is none."), "error", "Row 2 is none."),
    (facts.JobAdvice(setting="x", message="Set x."), "info", "Set x."),
    (facts.AttemptAlert(attempt=1, subject="memory", message="Little is left."), "warn", "Little is left."),
]


def submitted(kind: str = "sft", **params: Any) -> Job:
    fact = facts.JobSubmitted(
        kind=kind, name=None, params={"model": "org/tiny", "dataset": "file:file-0123456789", **params}, priority=3,
        metadata={"team": "a", "number": 5}, devices=1, validates=True, max_attempts=3, models={}, callbacks=[],
        estimate=None, retry_of=None, resume_from=None,
    )  # fmt: skip
    return job.submitted("job-abcde12345", fact, seq=7, at=1_700_000_000 * SECOND, actor="somebody")


def attempted(each: Job) -> Job:
    """With a validation and a run that has begun."""
    attempts = [
        job.Attempt(number=number, purpose=purpose, devices=[], starting_at=0)
        for number, purpose in enumerate(("validate", "run"))
    ]
    return replace(each, attempts=tuple(attempts))


def event(fact: facts.Fact, seq: int = 12) -> Event:
    return Event(
        seq=seq, stream="job/job-abcde12345", version=2, type=fact.type, at=1_700_000_005 * SECOND, actor="a",
        cause=None, data=fact.to_data(), schema=1,
    )  # fmt: skip


def strict(model: type[Any], document: Any) -> Any:
    """What the client reads, once its own model has found nothing wrong with it."""
    return model.model_validate(document, strict=True)


def test_a_job_has_every_field_of_openais_and_one_of_ours() -> None:
    shown = fine_tuning.job(submitted(), Wait(reason="no device is free", position=2))
    assert dict(shown) == {
        "id": "ftjob-abcde12345",
        "object": "fine_tuning.job",
        "model": "org/tiny",
        "created_at": 1_700_000_000,
        "finished_at": None,
        "fine_tuned_model": None,
        "organization_id": "finetuned",
        "result_files": [],
        "status": "validating_files",
        "training_file": "file-0123456789",
        "validation_file": None,
        "trained_tokens": None,
        "hyperparameters": {"n_epochs": 3, "batch_size": 16, "learning_rate_multiplier": 1.0},
        "method": {
            "type": "supervised",
            "supervised": {
                "hyperparameters": {"n_epochs": 3, "batch_size": 16, "learning_rate_multiplier": 1.0}
            },
        },
        "error": None,
        "seed": 42,
        "estimated_finish": None,
        "integrations": [],
        "metadata": {"team": "a", "number": "5"},
        "user_provided_suffix": None,
        "usage_metrics": None,
        "shared_with_openai": False,
        "x_finetuned": {
            "job": "job-abcde12345",
            "state": "validating",
            "phase": None,
            "priority": 3,
            "attempt": 0,
            "max_attempts": 3,
            "wait_reason": "no device is free",
            "queue_position": 2,
            "pause_reason": None,
            "cancel_reason": None,
            "progress": None,
        },
    }
    assert strict(FineTuningJob, shown).status == "validating_files"


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("validating", "validating_files"),
        ("queued", "queued"),
        ("starting", "running"),
        ("running", "running"),
        ("pausing", "pausing"),
        ("paused", "paused"),
        ("cancelling", "cancelled"),
        ("succeeded", "succeeded"),
        ("failed", "failed"),
        ("cancelled", "cancelled"),
    ],
)
def test_each_state_has_a_status(state: str, status: str) -> None:
    assert fine_tuning.job(replace(submitted(), state=JobState(state)), None)["status"] == status
    assert set(fine_tuning.STATUSES) == set(JobState)


def test_a_job_that_has_succeeded_names_its_model_as_the_register_does() -> None:
    for name, suffix in ((None, ""), ("bot-abcde12345", "bot"), ("colours", "colours")):
        each = replace(
            submitted(**({} if name is None else {"output_name": name})),
            state=JobState.SUCCEEDED,
            finished_at=1_700_000_900 * SECOND,
            result={"model": name or "tiny-job-abcde12345"},
            progress={"num_tokens": 4096.0},
            artifacts=({"name": "step_metrics.csv", "kind": f"{files.MADE}{fine_tuning.RESULTS}"},),
        )
        shown = fine_tuning.job(each, None)
        registered = Model(
            name=name or f"tiny-{each.id}", path="/m", kind="adapter", base="org/tiny", job=each.id, lineage={},
            created_at=0,
        )  # fmt: skip
        assert shown["fine_tuned_model"] == f"ft:tiny:finetuned:{suffix}:abcde12345"
        assert shown["fine_tuned_model"] == model_names.fine_tuned(registered)
        assert shown["user_provided_suffix"] == (suffix or None)
        assert (shown["finished_at"], shown["trained_tokens"]) == (1_700_000_900, 4096)
        assert shown["result_files"] == [files.made_id(each.id, "step_metrics.csv")]
        strict(FineTuningJob, shown)


def test_a_job_that_trained_nothing_names_no_model() -> None:
    tuned = replace(submitted(tune_only=True), state=JobState.SUCCEEDED, result={"batches_tried": []})
    assert fine_tuning.job(tuned, None)["fine_tuned_model"] is None


def test_the_next_model_of_a_suffix_does_not_take_the_name_of_the_one_before() -> None:
    names = {model_names.suffixed("bot", each) for each in ("job-aaaaaaaaaa", "job-bbbbbbbbbb")}
    assert len(names) == 2


def test_a_failure_says_which_parameter_was_wrong_where_it_was_one() -> None:
    def error(code: str) -> Any:
        failed = replace(submitted(), state=JobState.FAILED, error={"code": code, "message": "m"})
        return strict(FineTuningJob, fine_tuning.job(failed, None)).error.model_dump()

    assert error("bad_dataset") == {"code": "bad_dataset", "message": "m", "param": "training_file"}
    assert error("crash") == {"code": "crash", "message": "m", "param": None}


def test_a_running_job_says_when_it_will_be_done() -> None:
    each = replace(submitted(), state=JobState.RUNNING, progress={"eta_seconds": 60.4, "num_tokens": 5})
    shown = fine_tuning.job(each, None)
    assert (shown["estimated_finish"], shown["trained_tokens"]) == (1_700_000_060, None)


def test_methods_and_integrations_are_shown_as_they_were_asked_for() -> None:
    tracker = {
        "name": "tracker",
        "params": {"report_to": "wandb", "project": "p", "run_name": "n", "tags": ["a"]},
    }
    taught = fine_tuning.job(
        submitted("opd", teacher="org/big", beta=0.5, callbacks=[tracker], report_to=["swanlab"]), None
    )
    trained = {"n_epochs": 1, "batch_size": 16, "learning_rate_multiplier": 1.0, "beta": 0.5}
    assert taught["method"] == {
        "type": "distillation",
        "distillation": {"hyperparameters": trained, "teacher": "org/big"},
    }
    assert taught["hyperparameters"] is None
    assert taught["integrations"] == [
        {"type": "wandb", "wandb": {"project": "p", "tags": ["a"], "name": "n"}},
        {"type": "swanlab"},
    ]
    assert fine_tuning.job(submitted("dpo"), None)["method"]["type"] == "dpo"
    assert fine_tuning.job(submitted(adapter="bot"), None)["model"] == "bot"


@pytest.mark.parametrize(("fact", "level", "message"), TOLD, ids=[message for _, _, message in TOLD])
def test_an_event_is_a_sentence(fact: facts.Fact, level: str, message: str) -> None:
    shown = fine_tuning_events.event(attempted(submitted()), event(fact))
    assert (shown["level"], shown["message"]) == (level, message)
    assert (shown["type"], shown["data"]) == ("message", {})
    assert (shown["id"], shown["created_at"]) == ("ftevent-12", 1_700_000_005)
    strict(FineTuningJobEvent, shown)


def test_a_step_is_told_in_numbers_too() -> None:
    figures = {"current_step": 3, "total_steps": 9, "loss": 1.25, "mean_token_accuracy": 0.5, "phase": "x"}
    shown = fine_tuning_events.event(submitted(), event(facts.JobProgress(figures)))
    assert shown["message"] == "Step 3/9: training loss=1.25"
    assert shown["type"] == "metrics"
    assert shown["data"]["step"] == 3
    assert (shown["data"]["train_loss"], shown["data"]["train_mean_token_accuracy"]) == (1.25, 0.5)
    assert "phase" not in shown["data"]
    evaluated = facts.EvaluationRecorded(name="eval", metrics={"eval_loss": 2.0}, step=4)
    shown = fine_tuning_events.event(submitted(), event(evaluated))
    assert shown["message"] == "Validated at step 4: full validation loss=2"
    assert (shown["data"]["step"], shown["data"]["full_valid_loss"]) == (4, 2.0)


def test_every_type_that_is_told_has_a_sentence_for_each_of_its_facts() -> None:
    others = {
        facts.JobSubmitted.type,
        facts.CheckpointSaved.type,
        facts.AttemptModel.type,
        facts.JobSucceeded.type,
    }
    told = {fact.type for fact, _, _ in TOLD} | {facts.JobProgress.type, facts.EvaluationRecorded.type}
    assert told | others == set(fine_tuning_events.TYPES)
    saved = facts.CheckpointSaved(attempt=1, step=8, path="/c", bytes=1)
    made = facts.AttemptModel(attempt=1, name="bot", path="/m", kind="adapter", base="b")
    messages = [
        fine_tuning_events.event(submitted(), event(each))["message"]
        for each in (saved, made, facts.JobSucceeded(result={}))
    ]
    assert messages == [
        "Checkpoint created at step 8: ft:tiny:finetuned::abcde12345:ckpt-step-8",
        "Saved the fine-tuned model bot, which is there when the job has succeeded",
        "The job has successfully completed; the model is ft:tiny:finetuned::abcde12345",
    ]


def test_a_checkpoint_has_openais_metrics() -> None:
    kept = {"attempt": 1, "step": 88, "path": "/c", "bytes": 5, "at": 1_700_000_001 * SECOND}
    shown = fine_tuning.checkpoint(submitted(), {**kept, "metrics": {"loss": 0.5, "eval_loss": 0.75}})
    assert dict(shown) == {
        "id": "ftckpt_abcde12345-1-88",
        "object": "fine_tuning.job.checkpoint",
        "created_at": 1_700_000_001,
        "fine_tuned_model_checkpoint": "ft:tiny:finetuned::abcde12345:ckpt-step-88",
        "fine_tuning_job_id": "ftjob-abcde12345",
        "metrics": {"step": 88, "train_loss": 0.5, "valid_loss": 0.75, "full_valid_loss": 0.75},
        "step_number": 88,
    }
    assert FineTuningJobCheckpoint.model_validate(shown).metrics.train_loss == 0.5


def test_a_checkpoints_name_leads_back_to_its_job_and_step() -> None:
    each = submitted(output_name="bot-abcde12345")
    assert model_names.checkpoint_in(model_names.of_checkpoint(each, 88)) == (each.id, 88)
    assert model_names.checkpoint_in(model_names.of_job(each)) is None
    assert model_names.checkpoint_in("tiny:ckpt-step-88") is None


def test_ids_lead_there_and_back() -> None:
    assert fine_tuning_ids.job_of(fine_tuning_ids.of_job("job-abcde12345")) == "job-abcde12345"
    assert fine_tuning_ids.position_of(fine_tuning_ids.of_event(12)) == 12
    for wrong in ("job-abcde12345", "ftevent-", "ftevent-x", "12", "ftevent-²"):
        assert fine_tuning_ids.position_of(wrong) is None
        assert fine_tuning_ids.job_of(wrong) is None
