"""A tiny Llama, and pairs of answers of which it is to prefer those about colours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.sft.tiny import COLOURS, exchange, save_model

from finetuned_dpo.params import DPOParams
from finetuned_sdk.testing import RecordingContext

MakeParams = Callable[..., DPOParams]
Run = Callable[..., RecordingContext]


def pair(number: int) -> dict[str, Any]:
    """A question, its answer with a colour, and one that names a thing instead."""
    question, answer = exchange(number)
    colour = COLOURS[number % len(COLOURS)]
    return {
        "prompt": [{"role": "user", "content": question}],
        "chosen": [{"role": "assistant", "content": answer}],
        "rejected": [{"role": "assistant", "content": answer.replace(colour, "a lamp")}],
    }


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The directory of a random two-layer Llama, hidden size 32."""
    directory = tmp_path_factory.mktemp("tiny") / "tiny-llama"
    save_model(directory)
    return str(directory)


@pytest.fixture
def make_params(tiny_model: str, tmp_path: Path) -> MakeParams:
    """Parameters of a short run over 32 pairs."""
    pairs = write(tmp_path / "pairs.jsonl", map(pair, range(32)))

    def make(**changes: Any) -> DPOParams:
        base: dict[str, Any] = {
            "model": tiny_model,
            "dataset": pairs,
            "max_steps": 8,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 1,
            "learning_rate": 5e-3,
            "max_length": 64,
            "warmup_steps": 0,
            "dataloader_num_workers": 0,
        }
        return DPOParams.model_validate(base | changes)

    return make


@pytest.fixture
def make_context(tmp_path: Path) -> Callable[..., RecordingContext]:
    """A recording context for a job's parameters; each is an attempt of its own, and all share a cache."""
    made = 0

    def make(params: DPOParams, **kwargs: Any) -> RecordingContext:
        nonlocal made
        made += 1
        models = {name: getattr(params, name) for name in ("model", "adapter") if getattr(params, name)}
        return RecordingContext(
            tmp_path / "state",
            params=params.model_dump(mode="json"),
            kind="dpo",
            job_id=kwargs.pop("job_id", f"job{made}"),
            models=models,
            cache=tmp_path / "cache",
            **kwargs,
        )

    return make


@pytest.fixture
def run(make_context: Callable[..., RecordingContext]) -> Run:
    """Trains and gives back the context with everything that was reported."""

    def run_(params: DPOParams, **kwargs: Any) -> RecordingContext:
        from finetuned_dpo.trainer import train

        ctx = make_context(params, **kwargs)
        train(ctx, params)
        return ctx

    return run_


@pytest.fixture(autouse=True)
def steps_are_reported_when_they_are_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not also once a second, which is as often as the machine is slow."""
    monkeypatch.setattr("finetuned_training.reporting.REPORT_EVERY", float("inf"))
