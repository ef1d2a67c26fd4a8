"""Weights in 4 bits and optimizers in 8: really trained on this machine's CPU, killed, resumed, and looked at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.dpo.conftest import pair, write
from tests.acceptance.sft.tiny import chat, make_tokenizer
from tests.tiny_llama import tiny_llama

from finetuned_dpo.params import DPOParams
from finetuned_sdk import checkpoints
from finetuned_sdk.bundle import Bundle, Spec
from finetuned_sdk.spool import Fact, parse
from finetuned_sft.params import SFTParams
from finetuned_training.params import TrainingParams

pytest.importorskip("bitsandbytes")

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

PARAMS: Mapping[str, type[TrainingParams]] = {"sft": SFTParams, "dpo": DPOParams}
PATIENCE = 240.0
STEPS = 8

#: an entry that dies in the midst of its steps if it is told to
ENTRY = """
import importlib, os, signal
from finetuned_sdk.worker_context import Context

def train(ctx, params):
    report = Context.progress
    def progress(self, **told):
        report(self, **told)
        if str(told["current_step"]) == os.environ.get("DIE_AT"):
            os.kill(os.getpid(), signal.SIGKILL)
    Context.progress = progress
    importlib.import_module(f"finetuned_{ctx.metadata['kind']}.trainer").train(ctx, params)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Llama whose matrices are large enough for 8-bit states (4,096 numbers)."""
    directory = tmp_path_factory.mktemp("small") / "small-llama"
    tokenizer = make_tokenizer()
    small = tiny_llama(tokenizer, hidden_size=128, intermediate_size=256, tie_word_embeddings=True)
    small.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


Attempt = Callable[..., Bundle]


@pytest.fixture
def attempt(model: str, tmp_path: Path) -> Attempt:
    """Runs one attempt in a process of its own: bitsandbytes keeps what it knows of optimizers by the process."""
    rows = {
        "sft": write(tmp_path / "rows.jsonl", map(chat, range(32))),
        "dpo": write(tmp_path / "pairs.jsonl", map(pair, range(32))),
    }
    (tmp_path / "dying.py").write_text(ENTRY)

    def run(
        kind: str,
        job: str,
        changes: Mapping[str, Any],
        *,
        resume_from: Path | None = None,
        die_at: int | None = None,
    ) -> Bundle:
        given = {
            "model": model,
            "dataset": rows[kind],
            "max_steps": STEPS,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 1,
            "learning_rate": 2e-3,
            "max_length": 64,
            "warmup_steps": 0,
            "dataloader_num_workers": 0,
            "save_steps": 3,
            **{name: rows[kind] if value == "rows" else value for name, value in changes.items()},
        }
        params = PARAMS[kind].model_validate(given)
        bundle = Bundle(tmp_path / "jobs" / job / "attempts" / ("1" if resume_from is None else "2"))
        spec = Spec(
            job=job,
            attempt=1 if resume_from is None else 2,
            kind=kind,
            entry="dying:train",
            params=params.model_dump(mode="json", exclude_unset=True),
            params_model=f"finetuned_{kind}.params:{PARAMS[kind].__name__}",
            interpreter=sys.executable,
            models={"model": model},
            devices=("cpu:0",),
            resume_from=None if resume_from is None else str(resume_from),
            cache=str(tmp_path / "cache"),
            metadata={"kind": kind, "name": None, "params": given, "retry_of": None},
        )
        bundle.create(spec)
        environment = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(tmp_path)}
        if die_at is not None:
            environment["DIE_AT"] = str(die_at)
        done = subprocess.run(
            [sys.executable, "-m", "finetuned_sdk.worker", str(bundle.path)],
            env=os.environ | environment,
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )
        expected = 0 if die_at is None else -signal.SIGKILL
        assert done.returncode == expected, done.stderr.decode()[-3000:]
        assert b"autograd kernel was not registered" not in done.stderr
        return bundle

    return run


def losses(bundle: Bundle) -> dict[int, float]:
    lines, _ = parse(bundle.spool_path.read_bytes(), after=0)
    told = [line.data for line in lines if isinstance(line, Fact) and line.type == "progress"]
    return {each["current_step"]: each["loss"] for each in told if each["loss"] is not None}


def weights(bundle: Bundle) -> dict[str, Any]:
    from safetensors.torch import load_file

    (file,) = (bundle.path / "artifacts").glob("*/*model.safetensors")
    loaded: dict[str, Any] = load_file(file)
    return loaded


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("sft", {"method": "qlora"}),
        ("dpo", {"method": "qlora"}),
        ("sft", {"method": "full", "optim": "adamw_8bit"}),
        ("dpo", {"method": "lora", "optim": "adamw_8bit"}),
    ],
    ids=str,
)
def test_a_run_in_few_bits_that_is_killed_and_resumed_equals_the_straight_one(
    attempt: Attempt, kind: str, changes: Mapping[str, Any]
) -> None:
    import torch

    killed = attempt(kind, "killed", changes, die_at=5)
    newest = checkpoints.newest_complete(checkpoints.complete(killed.checkpoints))
    assert newest is not None
    assert newest.name == "checkpoint-3"
    resumed = attempt(kind, "killed", changes, resume_from=newest)
    straight = attempt(kind, "straight", changes)
    told, expected = losses(resumed), losses(straight)
    both = told.keys() & expected.keys()  # a worker leaves out steps that follow fast
    assert max(both) == STEPS
    assert min(told) >= 4
    assert {step: told[step] for step in both} == {step: expected[step] for step in both}
    ours, theirs = weights(resumed), weights(straight)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_is_looked_at_before_and_between_the_steps_changes_no_gradient_in_4_bits(
    attempt: Attempt,
) -> None:
    """bitsandbytes packs 4-bit weights that are used without a gradient, and packed ones have no backward pass."""
    import torch

    still = {"method": "qlora", "lora_dropout": 0.0}  # an evaluation draws a seed, so dropout would differ
    bare = weights(attempt("sft", "bare", still))
    evaluated = weights(attempt("sft", "evaluated", {**still, "eval_dataset": "rows", "eval_steps": 2}))
    assert all(torch.equal(evaluated[name], bare[name]) for name in bare)
    asked_first = losses(attempt("dpo", "first", {"method": "qlora"}))
    asked_between = losses(attempt("dpo", "between", {"method": "qlora", "reference_cache": False}))
    assert asked_first[STEPS] == pytest.approx(asked_between[STEPS], abs=1e-4)
