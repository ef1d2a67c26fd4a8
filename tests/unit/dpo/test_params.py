"""The parameters of a DPO job: what does not go together is refused with the remedy."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from finetuned_dpo.params import F_DIVERGENCE_LOSSES, DPOParams, LossType
from finetuned_training.settings import resolve

NEEDED = {"model": "m", "dataset": "pairs.jsonl"}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0]}, "one weight for each loss_type"),
        ({"loss_type": ["exo_pair"]}, "exo_pair needs label_smoothing above 0"),
        ({"label_smoothing": 0.1}, "label_smoothing applies to aot, aot_unpaired, exo_pair, robust only"),
        ({"f_divergence_type": "forward_kl", "loss_type": ["bco_pair"]}, "f_divergence_type applies to"),
        ({"lora_dropout": 0.1}, "TRL trains without dropout; drop it"),
        ({"loss_type": []}, "at least 1"),
        ({"loss_type": ["simpo"]}, "Input should be 'sigmoid'"),
        ({"beta": 0}, "greater than 0"),
        ({"packing": True}, "Extra inputs"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        DPOParams(**NEEDED, **given)


def test_adapters_take_ten_times_the_rate_of_full_tuning_and_no_dropout() -> None:
    def settings(**given: Any) -> Any:
        return resolve(DPOParams(**NEEDED, **given), cpu_count=2, gpu=False, bf16_supported=False)

    assert settings().learning_rate == pytest.approx(10 * settings(method="full").learning_rate)
    assert settings().lora_dropout == 0.0
    assert settings(learning_rate=0.5).learning_rate == 0.5


@pytest.mark.torch
def test_the_losses_and_their_limits_are_those_of_trl() -> None:
    import inspect

    import trl

    source = inspect.getsource(trl.DPOTrainer)
    known = {name for name in get_args(LossType) if f'"{name}"' in source}
    assert known == set(get_args(LossType))
    assert repr(sorted(F_DIVERGENCE_LOSSES)) == repr(
        sorted(eval(source.split("f_divergence_loss_types = ")[1].split("\n")[0]))
    )
