"""Which trainings may be forked with their imports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetuned_sft.params import SFTParams
from finetuned_training.preloading import PRELOADED, preloading

PRELOAD = preloading("some.trainer")


def params(model: str = "/nowhere/a-model", **changes: object) -> SFTParams:
    return SFTParams.model_validate({"model": model, "dataset": "rows.jsonl", **changes})


@pytest.mark.parametrize(
    "changes", [{}, {"method": "full"}, {"optim": "adamw_torch"}, {"model": "someone/a-model-135M"}]
)
def test_most_are(changes: dict[str, object]) -> None:
    assert PRELOAD(params(**changes)) == ("some.trainer", PRELOADED)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "qlora"},
        {"optim": "adamw_8bit"},
        {"optim": "paged_adamw_8bit"},
        {"model": "someone/a-model-bnb-4bit"},
    ],
)
def test_what_needs_bitsandbytes_is_not(changes: dict[str, object]) -> None:
    assert PRELOAD(params(**changes)) == ()  # type: ignore[arg-type]


def test_a_model_that_is_quantised_as_it_lies_there_is_not(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    assert PRELOAD(params(str(tmp_path))) == ("some.trainer", PRELOADED)
    config.write_text(json.dumps({"quantization_config": {"load_in_4bit": True}}), encoding="utf-8")
    assert PRELOAD(params(str(tmp_path))) == ()
    config.write_text("no JSON", encoding="utf-8")
    assert PRELOAD(params(str(tmp_path))) == ("some.trainer", PRELOADED)
