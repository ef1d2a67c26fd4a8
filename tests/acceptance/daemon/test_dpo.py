"""The preference trainer on a real daemon: killed, paused, begun with what another job made; its figures at every door."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.cli.conftest import Run, finetune
from tests.acceptance.daemon.process import Daemon, eventually, running
from tests.acceptance.dpo.conftest import pair, tiny_model, write
from tests.acceptance.sft.conftest import chat

__all__ = ("finetune", "tiny_model")

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

PATIENCE = 240  # seconds: other tests share the cores
STEPS = 40
FIGURES = (
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
    "logps/accuracies",
    "forward_kl_k1",
)


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    with running(FINETUNED_EXTRA_PLUGINS="tests.acceptance.daemon.held_step") as started:
        monkeypatch.setenv("FINETUNED_SOCKET", str(started.socket))
        yield started


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    return write(tmp_path / "pairs.jsonl", map(pair, range(40)))


def params(model: str, dataset: str, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "model": model,
        "dataset": dataset,
        "eval_split": 0.2,
        "max_steps": STEPS,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "learning_rate": 5e-3,
        "max_length": 64,
        "save_steps": STEPS // 4,
        "seed": 7,
        "dataloader_num_workers": 0,
    }
    return {**values, **changes}


def succeeded(daemon: Daemon, job_id: str) -> dict[str, Any]:
    job = daemon.wait_for(job_id, timeout=PATIENCE)
    assert job["state"] == "succeeded", (job["error"], daemon.log())
    return job


def weights(job: dict[str, Any]) -> bytes:
    (file,) = Path(job["result"]["adapter_path"] or job["result"]["model_path"]).glob("*model.safetensors")
    return file.read_bytes()


def told(daemon: Daemon, job_id: str) -> dict[int, dict[str, Any]]:
    """The newest report of each step."""
    reports = [event["data"] for event in daemon.events(job_id) if event["type"] == "job.progress"]
    return {
        each["current_step"]: {name: each[name] for name in ("loss", *FIGURES)}
        for each in reports
        if each["loss"] is not None
    }


def phases(daemon: Daemon, job_id: str) -> list[str]:
    return [event["data"]["phase"] for event in daemon.events(job_id) if event["type"] == "job.phase"]


def interrupted(daemon: Daemon, how: str, job_id: str) -> None:
    """The job, interrupted in the midst of its steps, where a gate holds it, goes on."""
    eventually(lambda: daemon.job(job_id)["checkpoints"], timeout=PATIENCE, what="a checkpoint")
    if how == "kill":
        daemon.kill_attempts(job_id)
        daemon.open_gate()
        eventually(lambda: daemon.job(job_id)["attempt"] == 2, timeout=PATIENCE, what="another attempt")
        return
    daemon.ok("POST", f"/v1/jobs/{job_id}/pause")
    daemon.open_gate()
    daemon.wait_for(job_id, "paused", timeout=PATIENCE)
    daemon.ok("POST", f"/v1/jobs/{job_id}/resume")


@pytest.mark.parametrize(("how", "method"), [("kill", "full"), ("pause", "lora")])
def test_an_interrupted_job_ends_as_one_that_was_left_alone_and_asks_the_reference_once(
    daemon: Daemon, tiny_model: str, pairs: str, how: str, method: str
) -> None:
    held = [{"name": "held_step", "params": {"gate": str(daemon.gate), "step": STEPS // 2}}]
    given = params(tiny_model, pairs, method=method, learning_rate=1e-3, callbacks=held)
    first_id = daemon.submit("dpo", **given)
    interrupted(daemon, how, first_id)
    first = succeeded(daemon, first_id)
    assert first["attempt"] == 2
    assert first["attempts"][-1]["resume_from"] is not None
    cached = sorted(path.name for path in (daemon.state / "cache" / "reference-scores").iterdir())
    assert len(cached) == 2  # of the training pairs and of the held-out ones
    second_id = daemon.submit("dpo", **given)
    second = succeeded(daemon, second_id)
    assert weights(first) == weights(second)
    assert first["result"]["eval_margins_before"] == second["result"]["eval_margins_before"]
    assert first["result"]["eval_margins_after"] == second["result"]["eval_margins_after"]
    resumed, straight = told(daemon, first_id), told(daemon, second_id)
    both = resumed.keys() & straight.keys()
    assert max(both) == STEPS
    assert {step: resumed[step] for step in both} == {step: straight[step] for step in both}
    # The reference was asked by the first attempt alone: neither the resumed one nor the second job did.
    assert phases(daemon, first_id).count("scoring_reference") == 2
    assert "scoring_reference" not in phases(daemon, second_id)
    assert sorted(path.name for path in (daemon.state / "cache" / "reference-scores").iterdir()) == cached


def test_a_job_is_submitted_watched_and_told_of_at_every_door(
    daemon: Daemon, finetune: Run, tiny_model: str, pairs: str
) -> None:
    given = params(tiny_model, pairs, max_steps=12, eval_steps=6, output_name="preferring")
    options = [word for name, value in given.items() for word in ("--param", f"{name}={value}")]
    watched = finetune("run", "dpo", *options, "--json", "--watch")
    assert watched.code == 0, watched.err
    job = watched.lines[-1]
    estimate = watched.lines[0]["estimate"]
    assert estimate["host_bytes"] > 0
    for report in told(daemon, job["id"]).values():
        assert all(isinstance(report[name], float) for name in FIGURES)
    shown = {each["name"] for each in finetune("metrics", job["id"], "--json").json["series"]}
    assert {*FIGURES, *(f"evaluation/eval/eval_{name}" for name in FIGURES)} <= shown
    assert [each["step"] for each in job["evaluations"]] == [0, 6, 12]
    assert all(f"eval_{name}" in each["metrics"] for each in job["evaluations"] for name in FIGURES)
    page = finetune("show", job["id"]).out
    assert "eval_margins_after" in page
    result = job["result"]
    assert result["eval_margins_after"] > result["eval_margins_before"]
    card = (Path(result["adapter_path"]) / "README.md").read_text(encoding="utf-8")
    assert "| eval_margins_after | " in card


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_job_begins_with_what_an_earlier_one_made_and_the_chain_is_kept(
    daemon: Daemon, finetune: Run, tiny_model: str, pairs: str, tmp_path: Path, method: str
) -> None:
    rows = write(tmp_path / "rows.jsonl", map(chat, range(20)))
    taught: dict[str, Any] = {
        "dataset": rows,
        "max_steps": 3,
        "max_length": 64,
        "learning_rate": 5e-3,
        "method": method,
    }
    sft = succeeded(daemon, daemon.submit("sft", model=tiny_model, output_name="taught", **taught))
    options = [
        word
        for name, value in params(tiny_model, pairs, max_steps=2, output_name="preferring").items()
        if name != "model"
        for word in ("--param", f"{name}={value}")
    ]
    outcome = finetune(
        "run", "dpo", "--from", sft["id"], "--param", f"method={method}", *options, "--json", "--watch"
    )
    assert outcome.code == 0, outcome.err
    job = outcome.lines[-1]
    begun = {name: job["params"][name] for name in ("model", "adapter") if job["params"].get(name)}
    assert begun == ({"model": tiny_model, "adapter": "taught"} if method == "lora" else {"model": "taught"})
    # What it begins with is its reference: nothing is preferred yet.
    assert told(daemon, job["id"])[1]["rewards/margins"] == pytest.approx(0, abs=1e-5)

    chain = finetune("models", "lineage", "preferring", "--json").json
    assert (chain["model"]["job"]["id"], chain["model"]["job"]["kind"]) == (job["id"], "dpo")
    made_by = {
        each["name"]: each["job"] and (each["job"]["id"], each["job"]["kind"]) for each in chain["bases"]
    }
    assert made_by == {"taught": (sft["id"], "sft"), tiny_model: None}
    said = finetune("models", "lineage", "preferring").out
    assert said.index(sft["id"]) < said.index("preferring") < said.index(job["id"])
    assert job["id"] in finetune("models", "show", "preferring").out

    suggested = {
        step["action"]: step["command"] for step in finetune("next", sft["id"], "--json").json["data"]
    }
    assert suggested["prefer"].startswith(f"finetune run dpo --from {sft['id']} ")


def test_pairs_without_a_difference_are_named_before_a_device_is_taken(
    daemon: Daemon, tiny_model: str, tmp_path: Path
) -> None:
    same = {**pair(1), "rejected": pair(1)["chosen"]}
    dataset = write(tmp_path / "same.jsonl", [pair(0), same])
    job = daemon.wait_for(daemon.submit("dpo", **params(tiny_model, dataset)), timeout=PATIENCE)
    assert (job["state"], job["error"]["code"]) == ("failed", "bad_dataset")
    assert "row 2: its two answers are the same" in job["error"]["message"]
    assert not [event for event in daemon.events() if event["type"] == "device.claimed"]
