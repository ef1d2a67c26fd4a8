"""What a device does not have is refused before the start, with what does instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetuned_dpo.params import DPOParams
from finetuned_sdk import Device, Host, RefusedError
from finetuned_sft.params import SFTParams
from finetuned_training import checks
from finetuned_training.params import TrainingParams

GPU = Host(devices=(Device(id="gpu:0", kind="gpu", name="H200", memory_bytes=1 << 37),))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A model that is stored in 4 bits, and a dataset."""
    (tmp_path / "config.json").write_text(
        json.dumps({"quantization_config": {"quant_method": "bitsandbytes"}})
    )
    (tmp_path / "rows.jsonl").write_text("{}\n")
    return {"model": str(tmp_path), "dataset": str(tmp_path / "rows.jsonl")}


def without(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None if name == missing else name)


@pytest.mark.parametrize("params", [SFTParams, DPOParams])
@pytest.mark.parametrize(
    ("given", "param", "remedy"),
    [
        ({"method": "qlora"}, "method", "use method=lora"),
        *(({"optim": name}, "optim", "use optim=adamw_torch_fused") for name in checks.BITSANDBYTES),
    ],
)
def test_without_bitsandbytes_its_methods_and_optimizers_are_refused(
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, str],
    params: type[TrainingParams],
    given: dict[str, Any],
    param: str,
    remedy: str,
) -> None:
    without(monkeypatch, "bitsandbytes")
    with pytest.raises(RefusedError, match=remedy) as caught:
        checks.check_training(params.model_validate(files | given), GPU)
    assert (caught.value.param, caught.value.code) == (param, "missing_dependency")


@pytest.mark.parametrize(
    ("given", "param", "remedy"),
    [
        ({"optim": "paged_adamw_8bit"}, "optim", "use optim=adamw_8bit"),
        ({"optim": "paged_adamw_32bit"}, "optim", "use optim=adamw_torch_fused"),
        ({"fp16": True}, "fp16", "drop fp16"),
    ],
)
def test_what_needs_a_gpu_is_refused_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], given: dict[str, Any], param: str, remedy: str
) -> None:
    without(monkeypatch, "nothing")
    with pytest.raises(RefusedError, match=remedy) as caught:
        checks.check_training(SFTParams.model_validate(files | given), Host())
    assert caught.value.param == param
    checks.check_training(SFTParams.model_validate(files | given), GPU)


def test_the_weights_of_a_model_in_few_bits_are_not_trained(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str]
) -> None:
    without(monkeypatch, "nothing")
    for method in ("lora", "qlora"):
        checks.check_training(SFTParams.model_validate({**files, "method": method}), Host())
    with pytest.raises(RefusedError, match=r"stored in few bits \(bitsandbytes\).*use method=lora"):
        checks.check_training(SFTParams.model_validate({**files, "method": "full"}), Host())


def test_the_optimizers_that_are_refused_are_those_that_transformers_takes_from_bitsandbytes() -> None:
    known = set(TrainingParams.model_fields["optim"].annotation.__args__[0].__args__)  # type: ignore[union-attr]
    assert {*checks.BITSANDBYTES} == {
        name for name in known if "8bit" in name or "paged" in name or "lion" in name
    }
    assert checks.PAGED.keys() == {name for name in known if name.startswith("paged")}
