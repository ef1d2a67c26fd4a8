"""A tiny student, a teacher that is another tiny model, and prompts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.sft.tiny import exchange, save_model

from finetuned_opd.params import OPDParams
from finetuned_sdk.testing import RecordingContext

MakeParams = Callable[..., OPDParams]
Run = Callable[..., RecordingContext]


def row(number: int) -> dict[str, Any]:
    """A question and its answer."""
    question, answer = exchange(number)
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": answer}],
    }


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The directory of a random two-layer Llama, hidden size 32: the student."""
    directory = tmp_path_factory.mktemp("tiny") / "tiny-llama"
    save_model(directory)
    return str(directory)


@pytest.fixture(scope="session")
def tiny_teacher(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The directory of another Llama with the same vocabulary, wider and of other weights."""
    import torch
    from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

    directory = tmp_path_factory.mktemp("teacher") / "tiny-teacher"
    config = AutoConfig.from_pretrained(tiny_model)
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = 48, 96, 3
    config.head_dim = 12
    torch.manual_seed(1)
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # opinions strong enough to be learned in a few steps
        model.lm_head.weight.mul_(8)
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(directory)
    return str(directory)


@pytest.fixture
def make_params(tiny_model: str, tiny_teacher: str, tmp_path: Path) -> MakeParams:
    """Parameters of a short run over 32 prompts."""
    prompts = write(tmp_path / "prompts.jsonl", map(row, range(32)))

    def make(**changes: Any) -> OPDParams:
        base: dict[str, Any] = {
            "model": tiny_model,
            "dataset": prompts,
            "max_steps": 6,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 1,
            "learning_rate": 5e-3,
            "max_length": 96,
            "max_completion_length": 12,
            "warmup_steps": 0,
            "dataloader_num_workers": 0,
        }
        others = {"teacher_endpoint", "self_distillation", "precomputed_scores"}
        if not others & changes.keys():
            base["teacher"] = tiny_teacher
        return OPDParams.model_validate(base | changes)

    return make


@pytest.fixture
def make_context(tmp_path: Path) -> Callable[..., RecordingContext]:
    """A recording context for a job's parameters; each is an attempt of its own, and all share a cache."""
    made = 0

    def make(params: OPDParams, **kwargs: Any) -> RecordingContext:
        nonlocal made
        made += 1
        names = ("model", "adapter", "teacher", "teacher_adapter")
        return RecordingContext(
            tmp_path / "state",
            params=params.model_dump(mode="json"),
            kind="opd",
            job_id=kwargs.pop("job_id", f"job{made}"),
            models={name: getattr(params, name) for name in names if getattr(params, name)},
            cache=tmp_path / "cache",
            **kwargs,
        )

    return make


@pytest.fixture
def run(make_context: Callable[..., RecordingContext]) -> Run:
    """Trains and gives back the context with everything that was reported."""

    def run_(params: OPDParams, **kwargs: Any) -> RecordingContext:
        from finetuned_opd.trainer import train

        ctx = make_context(params, **kwargs)
        train(ctx, params)
        return ctx

    return run_


@pytest.fixture(autouse=True)
def steps_are_reported_when_they_are_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not also once a second, which is as often as the machine is slow."""
    monkeypatch.setattr("finetuned_training.reporting.REPORT_EVERY", float("inf"))
