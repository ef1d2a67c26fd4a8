"""The estimate of memory beside the peak that a worker measured: two sequences a pair, and the reference if it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.dpo.conftest import write
from tests.acceptance.sft.conftest import tokenizer_factory
from tests.acceptance.sft.test_measured_peak import model, peak

from finetuned_dpo.params import DPOParams
from finetuned_sdk import Host
from finetuned_training.estimate import estimate

__all__ = ("model", "tokenizer_factory")

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

WORDS = "what colour is the apple river stone cloud horse lamp red green blue white black "


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "lora", "per_device_train_batch_size": 4},
        {"method": "full", "per_device_train_batch_size": 2},
        {"method": "full", "per_device_train_batch_size": 2, "reference_cache": False},
    ],
    ids=["lora", "full", "full-with-the-reference"],
)
def test_the_estimate_is_within_a_quarter_of_the_measured_peak(
    settings: Mapping[str, Any], model: str, tmp_path: Path
) -> None:
    answer = WORDS * 10  # all of a row, as the estimate takes it to be
    expected, measured = estimated_and_measured({"prompt": "", "answer": answer}, settings, model, tmp_path)
    assert expected == pytest.approx(measured, rel=0.25), (expected, measured)


def test_of_pairs_that_are_prompts_for_the_most_part_the_estimate_is_high(model: str, tmp_path: Path) -> None:
    """The head is computed for answers alone, and how much of a row that is the estimate does not know."""
    lora = {"method": "lora", "per_device_train_batch_size": 4}
    pair = {"prompt": WORDS * 5, "answer": WORDS * 5}
    expected, measured = estimated_and_measured(pair, lora, model, tmp_path)
    assert measured < expected < 1.5 * measured, (expected, measured)


def estimated_and_measured(
    pair: Mapping[str, str], settings: Mapping[str, Any], model: str, tmp_path: Path
) -> tuple[int, int]:
    """Bytes of the host's memory, foretold and taken, for pairs of a prompt and two answers that differ in a word."""
    rows = (
        {
            "prompt": f"{number} {pair['prompt']}",
            "chosen": pair["answer"],
            "rejected": f"lamp {pair['answer']}",
        }
        for number in range(16)
    )
    given = {
        "model": model,
        "dataset": write(tmp_path / "pairs.jsonl", rows),
        "max_steps": 2,
        "gradient_accumulation_steps": 1,
        "max_length": 128,
    }
    params = DPOParams.model_validate({**given, **settings})
    expected = estimate(params, Host(cpu_count=2)).host_bytes
    assert expected is not None
    return expected, peak(tmp_path, params, "dpo")
