from __future__ import annotations

from typing import Any

import pytest
from tests.unit.domain.worlds import Scene, end

from finetuned.domain import attempt_decisions, decisions, facts, tries
from finetuned.domain.errors import NotFoundError, Rejected
from finetuned.domain.states import JobState


def test_a_job_without_a_validator_is_queued_at_once() -> None:
    scene = Scene()
    assert scene.submit().state is JobState.QUEUED


def test_a_job_runs_from_submission_to_its_result() -> None:
    scene = Scene()
    scene.submit(validates=True)
    assert scene.state() == "validating"

    scene.schedule()
    assert scene.state() == "validating"
    assert scene.start() == 0
    scene.report("job-1", facts.AttemptResult(attempt=0, values={}))
    scene.end()
    assert scene.state() == "queued"

    scene.schedule()
    assert scene.state() == "starting"
    assert scene.world.slots["cpu:0"].holder == ("job-1", 1)
    scene.run_to_success(train_loss=0.5)
    job = scene.world.jobs["job-1"]
    assert job.state is JobState.SUCCEEDED
    assert job.result == {"train_loss": 0.5}
    assert job.started_at is not None
    assert job.finished_at is not None
    assert scene.world.slots["cpu:0"].holder is None


def test_validation_holds_no_device_and_does_not_count_as_the_start_of_the_job() -> None:
    scene = Scene()
    scene.submit(validates=True)
    scene.schedule()
    scene.start()
    assert scene.world.slots["cpu:0"].holder is None
    assert scene.world.jobs["job-1"].started_at is None


def test_bad_data_fail_the_job_in_validation() -> None:
    scene = Scene()
    scene.submit(validates=True)
    scene.schedule()
    number = scene.start()
    scene.report("job-1", facts.AttemptError(attempt=number, code="bad_dataset", message="row 3: no answer"))
    scene.end(exit_code=1)
    job = scene.world.jobs["job-1"]
    assert job.state is JobState.FAILED
    assert job.error == {"code": "bad_dataset", "message": "row 3: no answer"}


def test_a_validation_that_crashes_is_tried_again_under_a_new_number() -> None:
    scene = Scene()
    scene.submit(validates=True)
    scene.schedule()
    scene.end(exit_code=None, signal=9)
    assert scene.state() == "validating"
    scene.schedule()
    attempt = scene.world.jobs["job-1"].attempt
    assert attempt is not None
    assert (attempt.number, attempt.purpose) == (1, "validate")


def test_more_devices_than_the_host_has_are_refused_at_submission() -> None:
    scene = Scene(devices=2)
    with pytest.raises(Rejected, match="has 2; ask for fewer") as refusal:
        scene.submit(devices=3)
    assert refusal.value.stable_code == "too_many_devices"


def test_the_same_job_id_is_not_accepted_twice() -> None:
    scene = Scene()
    scene.submit()
    with pytest.raises(Rejected, match="already"):
        scene.submit()


def test_a_crash_queues_the_job_again_from_its_newest_checkpoint_with_backoff() -> None:
    scene = Scene()
    scene.submit()
    scene.schedule()
    scene.start()
    scene.end(exit_code=None, signal=9, resume_from="/c/checkpoint-7")
    job = scene.world.jobs["job-1"]
    assert job.state is JobState.QUEUED
    assert job.resume_from == "/c/checkpoint-7"
    assert 2.5 <= job.delay_s <= 5.0
    assert "signal 9" in (job.queued_reason or "")
    assert scene.world.slots["cpu:0"].holder is None

    scene.schedule()
    attempt = scene.world.jobs["job-1"].attempt
    assert attempt is not None
    assert (attempt.number, attempt.resume_from) == (2, "/c/checkpoint-7")


def test_a_job_that_keeps_crashing_is_given_up_with_each_attempts_cause() -> None:
    scene = Scene()
    scene.submit(max_attempts=2)
    for signal in (9, 11):
        scene.schedule()
        scene.start()
        scene.end(exit_code=None, signal=signal)
    job = scene.world.jobs["job-1"]
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error["code"] == "gave_up"
    assert (
        "attempt 1: it was killed by signal 9; attempt 2: it was killed by signal 11" in job.error["message"]
    )


def test_a_cause_that_all_attempts_share_is_said_once() -> None:
    scene = Scene()
    scene.submit(max_attempts=2)
    for _ in range(2):
        scene.schedule()
        scene.end(exit_code=None, lost="The plugin is not loaded; install it.")
    error = scene.world.jobs["job-1"].error
    assert error is not None
    assert error["message"] == (
        "Gave up after 2 attempts that ended alike: The plugin is not loaded; install it."
        " `finetune logs job-1` shows its output."
    )


def test_what_no_other_attempt_would_find_otherwise_fails_the_job_with_its_code_at_once() -> None:
    scene = Scene()
    scene.submit(max_attempts=3)
    scene.schedule()
    scene.end(exit_code=None, lost="/s/hf can be read by others; chmod 600 it.", refused="secret_unsafe")
    job = scene.world.jobs["job-1"]
    assert (job.state, len(job.attempts), job.attempts[0].outcome) == (JobState.FAILED, 1, "failed")
    assert job.error == {
        "code": "secret_unsafe",
        "message": "/s/hf can be read by others; chmod 600 it. Then `finetune retry job-1`.",
    }
    assert scene.world.slots["cpu:0"].holder is None


def test_a_job_that_was_to_end_is_cancelled_and_not_failed_by_what_kept_it_from_starting() -> None:
    scene = Scene()
    scene.submit()
    scene.schedule()
    scene.fold(decisions.cancel(scene.world, "job-1", actor="a"))
    scene.end(exit_code=None, lost="It is gone.", refused="secret_not_found")
    assert scene.state() == "cancelled"


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ({"exit_code": 3}, "exit code 3"),
        ({"exit_code": None, "signal": 9, "oom_killed": True}, "out-of-memory killer"),
        ({"exit_code": 0}, "without a result"),
        ({"exit_code": None, "problem": "no such interpreter"}, "no such interpreter"),
        ({"lost": "the machine was restarted", "exit_code": None}, "the machine was restarted"),
    ],
)
def test_each_way_to_die_is_named_in_the_reason_to_queue_again(how: dict[str, Any], cause: str) -> None:
    scene = Scene()
    scene.submit()
    scene.schedule()
    scene.start()
    scene.end(**how)
    assert cause in (scene.world.jobs["job-1"].queued_reason or "")


def test_a_result_with_a_broken_manifest_is_no_success() -> None:
    scene = Scene()
    scene.submit(max_attempts=1)
    scene.schedule()
    number = scene.start()
    scene.report("job-1", facts.AttemptResult(attempt=number, values={}))
    scene.end(problem="adapter/weights.bin has another size than its manifest says")
    assert scene.state() == "failed"


def test_an_error_worth_retrying_queues_the_job_again() -> None:
    scene = Scene()
    scene.submit()
    scene.schedule()
    number = scene.start()
    scene.report(
        "job-1", facts.AttemptError(attempt=number, code="worker_error", message="hm", retryable=True)
    )
    scene.end(exit_code=1)
    assert scene.state() == "queued"


def test_a_success_registers_the_models_that_were_made() -> None:
    scene = Scene()
    scene.submit()
    scene.schedule()
    number = scene.start()
    made = facts.AttemptModel(
        attempt=number, name="bot", path="/m", kind="adapter", base="smollm2", lineage={"rows": 3}
    )
    scene.report("job-1", made)
    scene.report("job-1", facts.AttemptResult(attempt=number, values={}))
    assert scene.world.models == {}
    scene.end()
    model = scene.world.models["bot"]
    assert (model.path, model.base, model.job) == ("/m", "smollm2", "job-1")
    assert model.lineage["rows"] == 3


def test_a_queued_job_is_cancelled_at_once() -> None:
    scene = Scene()
    scene.submit()
    scene.fold(decisions.cancel(scene.world, "job-1", actor="uid:1000"))
    assert scene.state() == "cancelled"


def test_a_running_job_is_cancelled_when_its_end_is_proven_and_not_before() -> None:
    scene = Scene()
    scene.submit()
    scene.schedule()
    scene.start()
    scene.fold(decisions.cancel(scene.world, "job-1", actor="uid:1000", reason="too slow"))
    assert scene.state() == "cancelling"
    assert scene.world.slots["cpu:0"].holder == ("job-1", 1)
    scene.end(exit_code=None, signal=15)
    job = scene.world.jobs["job-1"]
    assert job.state is JobState.CANCELLED
    assert job.attempts[-1].cause == "too slow"
    assert scene.world.slots["cpu:0"].holder is None


def test_a_result_that_comes_while_cancelling_does_not_undo_the_cancellation() -> None:
    scene = Scene()
    scene.submit()
    scene.schedule()
    number = scene.start()
    scene.fold(decisions.cancel(scene.world, "job-1", actor="uid:1000"))
    scene.report("job-1", facts.AttemptResult(attempt=number, values={}))
    scene.end()
    assert scene.state() == "cancelled"


def test_cancelling_twice_changes_nothing_and_an_ended_job_is_refused() -> None:
    scene = Scene()
    scene.submit()
    scene.schedule()
    scene.start()
    scene.fold(decisions.cancel(scene.world, "job-1", actor="a"))
    assert decisions.cancel(scene.world, "job-1", actor="b") == []
    scene.end()
    with pytest.raises(Rejected, match="nothing left to cancel"):
        decisions.cancel(scene.world, "job-1", actor="a")


def test_late_messages_of_an_older_attempt_change_nothing() -> None:
    scene = Scene()
    scene.submit()
    scene.schedule()
    scene.start()
    scene.end(exit_code=None, signal=9)
    scene.schedule()
    scene.start()
    before = scene.world.jobs["job-1"]
    assert scene.report("job-1", facts.JobProgress({"loss": 1.0}), attempt=1, line=99) == 0
    assert scene.end(attempt=1) == 0
    assert scene.world.jobs["job-1"] == before


def test_a_spool_line_counts_once() -> None:
    scene = Scene()
    scene.submit()
    scene.schedule()
    scene.start()
    assert scene.report("job-1", facts.JobProgress({"loss": 1.0}), line=2) == 1
    assert scene.report("job-1", facts.JobProgress({"loss": 1.0}), line=2) == 0
    attempt = scene.world.jobs["job-1"].attempt
    assert attempt is not None
    assert attempt.line == 2


def test_the_runners_identity_is_recorded_once() -> None:
    scene = Scene()
    scene.submit()
    scene.schedule()
    fact = facts.AttemptLaunched(attempt=1, pid=7, boot_id="b", start_time=9, process_group=7)
    assert len(scene.fold(attempt_decisions.launched(scene.world, "job-1", fact))) == 1
    assert attempt_decisions.launched(scene.world, "job-1", fact) == []


def test_a_live_job_cannot_be_deleted_and_an_ended_one_is_gone() -> None:
    scene = Scene()
    scene.submit()
    with pytest.raises(Rejected, match="cancel it first"):
        decisions.delete(scene.world, "job-1", actor="a")
    scene.fold(decisions.cancel(scene.world, "job-1", actor="a"))
    scene.fold(decisions.delete(scene.world, "job-1", actor="a"))
    with pytest.raises(NotFoundError):
        scene.world.job("job-1")


def test_a_job_whose_model_is_registered_cannot_be_deleted() -> None:
    scene = Scene()
    scene.submit()
    scene.schedule()
    number = scene.start()
    scene.report(
        "job-1", facts.AttemptModel(attempt=number, name="bot", path="/m", kind="adapter", base=None)
    )
    scene.report("job-1", facts.AttemptResult(attempt=number, values={}))
    scene.end()
    with pytest.raises(Rejected, match="finetune models rm bot"):
        decisions.delete(scene.world, "job-1", actor="a")
    scene.fold(decisions.delete_model(scene.world, "bot", actor="a"))
    assert decisions.delete(scene.world, "job-1", actor="a")


def test_tokens_are_made_and_closed_once() -> None:
    scene = Scene()
    created = facts.TokenCreated(id="tok-1", scope="read", sha256="x")
    scene.fold(decisions.create_token(created, actor="uid:0"))
    scene.fold(decisions.revoke_token(scene.world, "tok-1", actor="uid:0"))
    assert scene.world.tokens["tok-1"].revoked_at is not None
    assert decisions.revoke_token(scene.world, "tok-1", actor="uid:0") == []
    with pytest.raises(NotFoundError, match="no token"):
        decisions.revoke_token(scene.world, "tok-2", actor="uid:0")


def test_devices_are_recorded_only_when_they_changed_and_a_held_one_never_vanishes() -> None:
    scene = Scene()
    same = [{"id": "cpu:0", "kind": "cpu", "name": "slot 0", "memory_bytes": 1}]
    assert decisions.devices_detected(scene.world, same) == []
    scene.submit()
    scene.schedule()
    other = [{"id": "gpu:x", "kind": "gpu", "name": "H200", "memory_bytes": 9}]
    scene.fold(decisions.devices_detected(scene.world, other))
    assert set(scene.world.slots) == {"gpu:x", "cpu:0"}
    assert decisions.devices_detected(scene.world, other) == []
    scene.start()
    scene.end(exit_code=1)
    assert set(scene.world.slots) == {"gpu:x"}


def test_the_backoff_doubles_up_to_its_cap() -> None:
    assert [tries.backoff_s(done, 1.0) for done in (1, 2, 3)] == [5.0, 10.0, 20.0]
    assert tries.backoff_s(30, 1.0) == tries.BACKOFF_LONGEST_S
    assert tries.backoff_s(1, 0.0) == 2.5


def test_an_end_whose_consequences_cannot_be_recorded_frees_the_devices_and_fails_the_job() -> None:
    scene = Scene()
    scene.submit()
    scene.schedule()
    scene.start()
    scene.fold(
        attempt_decisions.ended_unusably(scene.world, "job-1", 1, end(), "the name of a model holds a zero")
    )
    job = scene.world.jobs["job-1"]
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error["code"] == "unusable_result"
    assert scene.world.slots["cpu:0"].holder is None
    assert attempt_decisions.ended_unusably(scene.world, "job-1", 1, end(), "again") == []


def test_a_job_whose_checkpoint_a_live_retry_goes_on_from_cannot_be_deleted() -> None:
    scene = Scene()
    scene.submit()
    scene.fold(decisions.cancel(scene.world, "job-1", actor="a"))
    scene.submit("job-2", retry_of="job-1", resume_from="/c/checkpoint-4")
    with pytest.raises(Rejected, match="live retry"):
        decisions.delete(scene.world, "job-1", actor="a")
    scene.fold(decisions.cancel(scene.world, "job-2", actor="a"))
    assert decisions.delete(scene.world, "job-1", actor="a")


def test_causes_are_cut_to_what_an_event_can_hold() -> None:
    scene = Scene()
    scene.submit(max_attempts=1)
    scene.schedule()
    scene.start()
    scene.end(exit_code=None, lost="x" * 2_000_000)
    error = scene.world.jobs["job-1"].error
    assert error is not None
    assert len(error["message"]) < 2_000
