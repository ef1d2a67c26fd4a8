"""A distillation on a real daemon: killed in a step, left by its teacher, begun with what a training made, looked at."""

from __future__ import annotations

import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.cli.conftest import Run, finetune
from tests.acceptance.daemon.process import Daemon, eventually, running
from tests.acceptance.opd.conftest import row, tiny_model, tiny_teacher, write
from tests.acceptance.opd.test_endpoint_pause import AWAY, PROBES, Failing
from tests.acceptance.sft.conftest import chat
from tests.scoring_server import hang

from finetuned_opd.score_cache import FILE

__all__ = ("finetune", "tiny_model", "tiny_teacher")

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

PATIENCE = 240  # seconds: other tests share the cores
BATCH = 4
FIGURES = (
    "kl_reverse",
    "token_agreement",
    "top_overlap",
    "teacher_mass",
    "entropy",
    "sampler_gap",
    "completions/mean_length",
    "completions/clipped_ratio",
)
SECONDS = ("seconds_generate", "seconds_teacher", "seconds_loss", "seconds_update")


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    with running(FINETUNED_EXTRA_PLUGINS="tests.acceptance.daemon.held_step") as started:
        monkeypatch.setenv("FINETUNED_SOCKET", str(started.socket))
        yield started


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    return write(tmp_path / "prompts.jsonl", map(row, range(24)))


def params(model: str, dataset: str, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "model": model,
        "dataset": dataset,
        "max_steps": 6,
        "per_device_train_batch_size": BATCH,
        "gradient_accumulation_steps": 1,
        "learning_rate": 5e-3,
        "max_length": 96,
        "max_completion_length": 12,
        "save_steps": 2,
        "seed": 7,
        "dataloader_num_workers": 0,
        # It draws from the random numbers that a resume has to restore.
        **({} if changes.get("method") == "full" else {"lora_dropout": 0.1}),
    }
    return {**values, **changes}


def options(given: dict[str, Any]) -> list[str]:
    return [word for name, value in given.items() for word in ("--param", f"{name}={value}")]


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
        each["current_step"]: {name: each.get(name) for name in ("loss", *FIGURES)}
        for each in reports
        if each["loss"] is not None
    }


def kept_scores(daemon: Daemon) -> dict[bytes, tuple[int, int]]:
    """Where each entry of the cache of teachers' scores stands, and when it was used. One that is put again moves."""
    file = daemon.state / "cache" / "teacher-scores" / FILE
    with (
        suppress(sqlite3.OperationalError),
        closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database,
    ):
        rows = database.execute("SELECT key, rowid, used FROM scores").fetchall()
        return {key: (at, used) for key, at, used in rows}
    return {}  # it is not there yet, or is being made


def test_a_job_that_was_killed_in_a_step_ends_as_one_that_was_left_alone_and_asks_its_teacher_once(
    daemon: Daemon, tiny_model: str, tiny_teacher: str, prompts: str
) -> None:
    held = [{"name": "held_step", "params": {"gate": str(daemon.gate), "step": 4}}]
    given = params(tiny_model, prompts, teacher=tiny_teacher, callbacks=held)
    first_id = daemon.submit("opd", **given)
    # The fourth step has its samples and their scores, and is not made: the newest checkpoint is of the second.
    eventually(lambda: daemon.job(first_id)["checkpoints"], timeout=PATIENCE, what="a checkpoint")
    eventually(
        lambda: len(kept_scores(daemon)) == 4 * BATCH, timeout=PATIENCE, what="the fourth step's scores"
    )
    before = kept_scores(daemon)
    daemon.kill_attempts(first_id)
    daemon.open_gate()
    first = succeeded(daemon, first_id)
    runs = [each for each in first["attempts"] if each["purpose"] == "run"]
    assert len(runs) == 2
    assert runs[1]["resume_from"] is not None

    after = kept_scores(daemon)
    assert len(after) == 6 * BATCH  # what was sampled again was the same, and its scores were there
    assert {key: after[key][0] for key in before} == {key: at for key, (at, _) in before.items()}
    assert sum(after[key][1] > used for key, (_, used) in before.items()) == 2 * BATCH

    second_id = daemon.submit("opd", **given)
    second = succeeded(daemon, second_id)
    assert weights(first) == weights(second)
    assert first["result"]["train_loss"] == second["result"]["train_loss"]
    resumed, straight = told(daemon, first_id), told(daemon, second_id)
    both = resumed.keys() & straight.keys()
    assert max(both) == 6
    assert {step: resumed[step] for step in both} == {step: straight[step] for step in both}
    assert {key: at for key, (at, _) in kept_scores(daemon).items()} == {
        key: at for key, (at, _) in after.items()
    }
    assert all(used > after[key][1] for key, (_, used) in kept_scores(daemon).items())


def test_a_job_whose_teacher_goes_away_is_paused_with_the_reason_and_goes_on_when_it_is_resumed(
    daemon: Daemon, finetune: Run, tiny_model: str, tiny_teacher: str, prompts: str
) -> None:
    failing = Failing(tiny_teacher)
    with failing.server:
        given = params(tiny_model, prompts, teacher_endpoint=failing.server.url, save_steps=99)
        failing.fail_after(PROBES + 3 * BATCH, AWAY)
        job_id = daemon.submit("opd", **given)
        paused = daemon.wait_for(job_id, "paused", timeout=PATIENCE)
        assert f"The teacher at {failing.server.url}/v1/completions cannot be asked" in paused["pause_reason"]
        assert (paused["repeated_steps"], paused["devices"], paused["error"]) == (0, [], None)
        assert [each["step"] for each in paused["checkpoints"]] == [3]
        assert not daemon.attempt_processes(job_id)
        shown = finetune("show", job_id).out
        assert "cannot be asked" in shown
        steps = finetune("next", job_id, "--json").json["data"]
        assert [each["action"] for each in steps] == ["repair", "resume", "cancel"]

        failing.mend()
        straight = succeeded(daemon, daemon.submit("opd", **given))  # on the device that is free now
        assert finetune("resume", job_id).code == 0
        resumed = succeeded(daemon, job_id)
        assert weights(resumed) == weights(straight)
        assert resumed["result"]["train_loss"] == straight["result"]["train_loss"]
        done = [step for step in daemon.steps(job_id) if step]
        assert done == sorted(set(done))  # none is made again


def test_a_job_that_waits_for_its_teacher_is_paused_and_cancelled_when_it_is_asked(
    daemon: Daemon, tiny_model: str, tiny_teacher: str, prompts: str
) -> None:
    failing = Failing(tiny_teacher)
    with failing.server:
        given = params(tiny_model, prompts, teacher_endpoint=failing.server.url, save_steps=99)
        failing.fail_after(PROBES + 2 * BATCH, hang)
        job_id = daemon.submit("opd", **given)
        # The third step's requests are on their way, and are not answered.
        asked = PROBES + 3 * BATCH
        eventually(lambda: len(failing.server.requests) == asked, timeout=PATIENCE, what="the third step")
        daemon.ok("POST", f"/v1/jobs/{job_id}/pause")
        paused = daemon.wait_for(job_id, "paused", timeout=PATIENCE)
        assert [each["step"] for each in paused["checkpoints"]] == [2]
        assert paused["repeated_steps"] == 0

        failing.fail_after(PROBES + 1 * BATCH, hang)
        daemon.ok("POST", f"/v1/jobs/{job_id}/resume")
        asked += PROBES + 2 * BATCH
        eventually(lambda: len(failing.server.requests) == asked, timeout=PATIENCE, what="the fourth step")
        daemon.ok("POST", f"/v1/jobs/{job_id}/cancel")
        assert daemon.wait_for(job_id, timeout=PATIENCE)["state"] == "cancelled"
        assert not daemon.attempt_processes(job_id)


def test_a_job_is_submitted_watched_and_told_of_at_every_door(
    daemon: Daemon, finetune: Run, tiny_model: str, tiny_teacher: str, prompts: str
) -> None:
    given = params(
        tiny_model, prompts, teacher=tiny_teacher, eval_split=0.25, eval_steps=6, max_steps=12, method="full",
        learning_rate=2e-2, output_name="distilled",
    )  # fmt: skip
    watched = finetune("run", "opd", *options(given), "--json", "--watch")
    assert watched.code == 0, watched.err
    job = watched.lines[-1]
    estimate = watched.lines[0]["estimate"]
    assert estimate["host_bytes"] > 0
    assert {"teacher", "sampling"} <= estimate["breakdown"].keys()
    for report in told(daemon, job["id"]).values():
        assert all(isinstance(report[name], float) for name in FIGURES)
    series = {each["name"] for each in finetune("metrics", job["id"], "--json").json["series"]}
    assert {*FIGURES, *SECONDS, *(f"evaluation/eval/eval_{name}" for name in FIGURES)} <= series
    assert [each["step"] for each in job["evaluations"]] == [0, 6, 12]
    result = job["result"]
    assert result["eval_kl_reverse_after"] < result["eval_kl_reverse_before"]
    assert {"eval_token_agreement_before", "eval_token_agreement_after"} <= result.keys()
    assert "eval_kl_reverse_after" in finetune("show", job["id"]).out
    card = (Path(result["model_path"]) / "README.md").read_text(encoding="utf-8")
    assert "| eval_kl_reverse_after | " in card


def test_what_next_suggests_after_a_training_is_accepted_and_the_chain_is_kept(
    daemon: Daemon,
    finetune: Run,
    tiny_model: str,
    tiny_teacher: str,
    prompts: str,
    tmp_path: Path,
) -> None:
    taught: dict[str, Any] = {
        "dataset": write(tmp_path / "rows.jsonl", map(chat, range(20))),
        "max_steps": 3,
        "max_length": 64,
        "learning_rate": 5e-3,
    }
    sft = succeeded(daemon, daemon.submit("sft", model=tiny_model, output_name="taught", **taught))
    filled = {"teacher=MODEL": f"teacher={tiny_teacher}", "PROMPTS": prompts, "FILE": prompts}

    def ran(job_id: str, action: str, **changes: Any) -> dict[str, Any]:
        """The job that the suggestion makes, its placeholders filled and some parameters added."""
        steps = {each["action"]: each["command"] for each in finetune("next", job_id, "--json").json["data"]}
        command = [filled.get(word, word) for word in shlex.split(steps[action])]
        assert command[:5] == ["finetune", "run", "opd", "--from", job_id]
        few = options({"max_steps": 2, "max_length": 96, "max_completion_length": 12, **changes})
        done = finetune(*command[1:], *few, "--json", "--watch")
        assert done.code == 0, done.err
        job: dict[str, Any] = done.lines[-1]
        return job

    job = ran(sft["id"], "distil", output_name="distilled")
    begun = {name: job["params"][name] for name in ("model", "adapter") if job["params"].get(name)}
    assert begun == {"model": tiny_model, "adapter": "taught"}
    chain = finetune("models", "lineage", "distilled", "--json").json
    assert (chain["model"]["job"]["id"], chain["model"]["job"]["kind"]) == (job["id"], "opd")
    made_by = {
        each["name"]: each["job"] and (each["job"]["id"], each["job"]["kind"]) for each in chain["bases"]
    }
    assert made_by == {"taught": (sft["id"], "sft"), tiny_model: None}

    again = ran(job["id"], "train_on")
    assert again["state"] == "succeeded"


def test_a_teacher_that_cannot_teach_is_refused_on_submission(
    daemon: Daemon, finetune: Run, tiny_model: str, prompts: str
) -> None:
    outcome = finetune("run", "opd", *options(params(tiny_model, prompts, teacher="nobody")))
    assert outcome.code != 0
    assert "There is no model nobody" in outcome.err
