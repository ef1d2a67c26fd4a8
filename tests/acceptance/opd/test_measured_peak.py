"""The estimate of a distillation's memory beside the peak that a worker measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.sft.test_measured_peak import peak
from tests.acceptance.sft.tiny import make_tokenizer
from tests.tiny_llama import tiny_llama

from finetuned_opd.params import OPDParams
from finetuned_opd.sizing import estimate
from finetuned_sdk import Host

pytestmark = [pytest.mark.torch, pytest.mark.timeout(300)]


def made(directory: Path, **config: int) -> str:
    """A random Llama of so many weights that the model and its steps weigh as much as the libraries."""
    tokenizer = make_tokenizer()
    # Nothing ends a turn, so that every answer is as long as it may be.
    shape = {"vocab_size": 16_384, "num_attention_heads": 8, "num_key_value_heads": 4, "eos_token_id": None}
    model = tiny_llama(tokenizer, max_position_embeddings=2048, tie_word_embeddings=True, **shape, **config)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A student of 34 million weights, and a teacher of 96 million."""
    directory = tmp_path_factory.mktemp("middling")
    student = made(directory / "student", hidden_size=512, intermediate_size=1408, num_hidden_layers=8)
    teacher = made(directory / "teacher", hidden_size=768, intermediate_size=2048, num_hidden_layers=14)
    return student, teacher


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "lora", "per_device_train_batch_size": 8},
        {"method": "full", "per_device_train_batch_size": 4},
    ],
    ids=["lora", "full"],
)
def test_the_estimate_is_within_a_quarter_of_the_measured_peak(
    settings: Mapping[str, Any], models: tuple[str, str], tmp_path: Path
) -> None:
    student, teacher = models
    words = "what colour is the apple river stone cloud horse lamp red green blue white black "
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        (json.dumps({"prompt": words * 2, "completion": words * 4}) + "\n") * 32, encoding="utf-8"
    )
    params = OPDParams.model_validate(
        {
            "model": student,
            "teacher": teacher,
            "dataset": str(rows),
            "max_steps": 2,
            "gradient_accumulation_steps": 1,
            "max_length": 160,
            "max_completion_length": 96,
            **settings,
        }
    )
    found = estimate(params, Host(cpu_count=2))
    measured = peak(tmp_path, params, "opd", teacher=teacher)
    assert found.host_bytes == pytest.approx(measured, rel=0.25), (found, measured)
