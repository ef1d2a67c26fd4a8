"""``finetune run --from JOB``: with what the job begins, and the jobs that it cannot begin with."""

from __future__ import annotations

from typing import Any

import pytest
from tests.acceptance.cli.conftest import Run
from tests.acceptance.cli.fake_daemon import FakeDaemon, a_job

ADAPTER = {"model": "tuned", "adapter_path": "/x/adapter", "model_path": None, "merged_path": None}
WHOLE = {"model": "tuned", "adapter_path": None, "model_path": "/x/model", "merged_path": None}


def made(daemon: FakeDaemon, result: dict[str, Any] | None, state: str = "succeeded", **models: str) -> None:
    """A job on the base ``llama``, and the registered models by the jobs that made them."""
    daemon.jobs["job-1"] = a_job("job-1", kind="sft", params={"model": "llama"}, result=result, state=state)
    daemon.models = [
        {"id": name.replace("_", "-"), "job": job.replace("_", "-")} for name, job in models.items()
    ]
    kind = {
        "name": "dpo",
        "params_schema": {
            "properties": {name: {"type": "string"} for name in ("model", "adapter", "method")}
        },
        "dataset_params": [],
    }
    daemon.kinds.append(kind)


def begun_with(daemon: FakeDaemon, finetune: Run, *options: str) -> dict[str, Any]:
    outcome = finetune("run", "dpo", "--from", "job-1", *options)
    assert outcome.code == 0, outcome.err
    body = next(body for method, path, body in daemon.requests if (method, path) == ("POST", "/v1/jobs"))
    params: dict[str, Any] = body["params"]
    return params


def test_an_adapter_is_gone_on_with_over_its_base(daemon: FakeDaemon, finetune: Run) -> None:
    made(daemon, ADAPTER, tuned="job_1")
    assert begun_with(daemon, finetune) == {"model": "llama", "adapter": "tuned"}


def test_a_whole_model_is_the_base(daemon: FakeDaemon, finetune: Run) -> None:
    made(daemon, WHOLE, tuned="job_1")
    assert begun_with(daemon, finetune) == {"model": "tuned"}


def test_to_train_every_weight_the_merged_model_is_taken(daemon: FakeDaemon, finetune: Run) -> None:
    made(daemon, {**ADAPTER, "merged_path": "/x/merged"}, tuned="job_1", tuned_merged="job_1")
    assert begun_with(daemon, finetune, "--param", "method=full") == {
        "method": "full",
        "model": "tuned-merged",
    }


@pytest.mark.parametrize(
    ("result", "state", "models", "options", "reason"),
    [
        (None, "running", {}, (), "job-1 is running; name a job that succeeded"),
        (None, "failed", {}, (), "job-1 is failed; name a job that succeeded"),
        ({"rows": 3}, "succeeded", {}, (), "job-1 has made no model"),
        (ADAPTER, "succeeded", {}, (), "tuned, which job-1 made, is no longer registered"),
        (ADAPTER, "succeeded", {"tuned": "job_9"}, (), "tuned is by now what job-9 made, not job-1"),
        (ADAPTER, "succeeded", {"tuned": "job_1"}, ("--param", "method=full"), "with merge_adapter=true"),
        (ADAPTER, "succeeded", {"tuned": "job_1"}, ("--model", "other"), "and so does --model"),
        (ADAPTER, "succeeded", {"tuned": "job_1"}, ("--param", "adapter=other"), "and so does adapter"),
    ],
)
def test_what_is_no_place_to_begin_is_refused_with_the_reason(
    daemon: FakeDaemon,
    finetune: Run,
    result: dict[str, Any] | None,
    state: str,
    models: dict[str, str],
    options: tuple[str, ...],
    reason: str,
) -> None:
    made(daemon, result, state, **models)
    outcome = finetune("run", "dpo", "--from", "job-1", *options)
    assert outcome.code == 2
    assert reason in outcome.err
    assert not [path for method, path, _ in daemon.requests if (method, path) == ("POST", "/v1/jobs")]


def test_a_job_that_there_is_not_is_said_to_be_none(daemon: FakeDaemon, finetune: Run) -> None:
    made(daemon, ADAPTER, tuned="job_1")
    assert finetune("run", "dpo", "--from", "job-2").code == 3
