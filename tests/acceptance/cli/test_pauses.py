"""``pause``, ``resume``, ``checkpoint``, and what jobs show of them."""

from __future__ import annotations

import pytest
from tests.acceptance.cli.conftest import Run
from tests.acceptance.cli.fake_daemon import FakeDaemon, a_job


@pytest.fixture(autouse=True)
def a_running_job(daemon: FakeDaemon) -> None:
    daemon.jobs["job-1"] = a_job("job-1", state="running", progress={"current_step": 123})


def body(daemon: FakeDaemon, path: str) -> object:
    """The body of the last POST to a path."""
    return [sent for method, asked, sent in daemon.requests if (method, asked) == ("POST", path)][-1]


def test_pause_stays_until_the_job_is_paused_and_tells_what_it_costs(
    daemon: FakeDaemon, finetune: Run
) -> None:
    daemon.becomes = {"state": "paused", "repeated_steps": 3}
    outcome = finetune("pause", "job-1", "--wait", "5min", "--reason", "lunch")
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1] == "job-1 is paused at step 123; 3 steps will be done again."
    assert "finetune resume job-1" in outcome.err
    assert body(daemon, "/v1/jobs/job-1/pause") == {"reason": "lunch", "wait_s": 300.0}


@pytest.mark.parametrize(
    ("steps", "words"),
    [(0, "no step will be done again"), (1, "1 step will be done again"), (None, "step 123.")],
)
def test_the_steps_of_a_pause_are_said_in_words(
    daemon: FakeDaemon, finetune: Run, steps: int | None, words: str
) -> None:
    daemon.becomes = {"state": "paused", "repeated_steps": steps}
    assert words in finetune("pause", "job-1").out


def test_pause_as_json_is_the_paused_job(daemon: FakeDaemon, finetune: Run) -> None:
    assert finetune("pause", "job-1", "--json").json["state"] == "paused"


def test_a_job_that_ends_while_it_pauses_is_told_with_exit_code_1(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.becomes = {"state": "succeeded"}
    outcome = finetune("pause", "job-1")
    assert (outcome.code, "it ended before it could pause" in outcome.out) == (1, True)


def test_a_detached_pause_does_not_stay(daemon: FakeDaemon, finetune: Run) -> None:
    outcome = finetune("pause", "job-1", "--detach")
    assert (outcome.code, outcome.out) == (0, "job-1 is pausing.\n")


def test_resume_names_the_checkpoint_and_the_steps_that_are_done_again(
    daemon: FakeDaemon, finetune: Run
) -> None:
    daemon.jobs["job-1"] |= {"state": "paused", "repeated_steps": 20}
    outcome = finetune("resume", "job-1", "--from-checkpoint", "1/checkpoint-100")
    assert outcome.out == "job-1 is queued; 20 steps will be done again.\n"
    assert body(daemon, "/v1/jobs/job-1/resume") == {"from_checkpoint": "1/checkpoint-100"}
    refused = finetune("resume", "job-1")
    assert (refused.code, refused.out) == (4, "")
    assert "job-1 is queued" in refused.err


def test_checkpoint_returns_at_once_or_waits_until_it_is_saved(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.becomes = {"state": "running"}
    assert "finetune checkpoints job-1" in finetune("checkpoint", "job-1").out
    assert finetune("checkpoint", "job-1", "--wait").out == "job-1 has saved step 7 (2.0 MB).\n"
    assert finetune("checkpoint", "job-1", "--wait", "--json").json["id"] == "job-1"


def test_a_job_that_leaves_before_it_saves_is_told_with_exit_code_1(
    daemon: FakeDaemon, finetune: Run
) -> None:
    outcome = finetune("checkpoint", "job-1", "--wait")
    assert (outcome.code, outcome.out) == (1, "job-1 is paused and has saved no checkpoint since.\n")


# ---- what may be taken, and for how long -------------------------------------------------------------------------


def test_run_takes_limits_and_time_outs_with_their_units(daemon: FakeDaemon, finetune: Run) -> None:
    outcome = finetune(
        "run", "sft", "--model", "tiny", "--max-duration", "8h", "--stall-timeout", "1h30m", "--memory", "24GB",
        "--gpu-memory", "16GiB", "--cpu", "2.5", "--preemptible", "--keep-batch",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    sent = body(daemon, "/v1/jobs")
    assert isinstance(sent, dict)
    assert sent["timeouts"] == {"max_duration_s": 28_800.0, "stall_s": 5400.0}
    assert sent["limits"] == {"cpu": 2.5, "memory": 24_000_000_000, "gpu_memory": 16 << 30}
    assert (sent["preemptible"], sent["reduces_batch"]) == (True, False)


def test_run_without_them_leaves_them_to_the_daemon(daemon: FakeDaemon, finetune: Run) -> None:
    finetune("run", "sft", "--model", "tiny")
    sent = body(daemon, "/v1/jobs")
    assert isinstance(sent, dict)
    assert not {"timeouts", "limits", "preemptible", "reduces_batch"} & sent.keys()


@pytest.mark.parametrize(
    ("option", "value", "remedy"),
    [
        ("--max-duration", "soon", "write 90s, 30min, 8h"),
        ("--max-duration", "8hh", "write 90s, 30min, 8h"),
        ("--memory", "lots", "write 24GB, 24GiB"),
        ("--disk", "3ib", "write 24GB, 24GiB"),
    ],
)
def test_what_is_no_duration_or_size_is_refused_with_how_to_write_one(
    daemon: FakeDaemon, finetune: Run, option: str, value: str, remedy: str
) -> None:
    outcome = finetune("run", "sft", "--model", "tiny", option, value)
    assert (outcome.code, daemon.requests) == (2, [])
    assert remedy in outcome.err


# ---- show ----------------------------------------------------------------------------------------------------------


def test_show_says_how_a_paused_job_goes_on_and_what_it_may_take(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.jobs["job-1"] |= {
        "state": "paused", "pause_reason": "lunch", "repeated_steps": 3, "preemptible": True, "reduces_batch": False,
        "timeouts": {"stall_s": 600.0, "max_duration_s": 7200.0}, "limits": {"cpu": 2.0, "memory": 24_000_000_000},
        "overrides": {"per_device_train_batch_size": 1},
        "alerts": [{"attempt": 1, "subject": "memory", "message": "96 % of its limit", "figures": {}, "at": None}],
    }  # fmt: skip
    out = finetune("show", "job-1").out
    assert "lunch; 3 steps will be done again; `finetune resume job-1` lets it go on" in out
    assert "2 cores, memory 24.0 GB" in out
    assert "max_duration 2 h 00 min" in out
    assert "stall" not in out  # as the daemon has it
    assert "per_device_train_batch_size 1" in out
    assert "attempt 1: 96 % of its limit" in out
    assert "stays as it is when memory runs out" in out
    assert "higher priority" in out


def test_show_tells_each_attempts_kind_of_failure_and_why_one_is_being_stopped(
    daemon: FakeDaemon, finetune: Run
) -> None:
    attempt = {
        "number": 1, "purpose": "run", "devices": ["cpu:0"], "pid": 1, "resume_from": None, "starting_at": None,
        "started_at": None, "ended_at": "2026-11-22T12:00:00.000000Z", "outcome": "failed", "exit_code": 1,
        "signal": None, "cause": "no memory left", "failure": "out_of_memory", "stopping": None, "overrides": {},
    }  # fmt: skip
    live = attempt | {
        "number": 2, "ended_at": None, "outcome": None, "cause": None, "failure": None,
        "stopping": {"failure": "stall", "reason": "no step for 600 s"},
    }  # fmt: skip
    daemon.jobs["job-1"] |= {"attempts": [attempt, live]}
    out = finetune("show", "job-1").out
    assert "out of memory: no memory left" in out
    assert "being stopped: no step for 600 s" in out
