"""The estimate of memory beside the peak that a worker measured: the formulas are held to the libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_llama import tiny_llama

from finetuned.machine import devices
from finetuned_sdk import Host
from finetuned_sdk.bundle import Bundle, Spec
from finetuned_sdk.spool import Fact, parse
from finetuned_sft.params import SFTParams
from finetuned_training.estimate import estimate
from finetuned_training.params import TrainingParams

Json = Any


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tokenizer_factory: Any) -> str:
    """A random Llama of 40 million weights, so that the model and its steps weigh as much as the libraries."""
    tokenizer = tokenizer_factory()
    weights = tiny_llama(
        tokenizer,
        vocab_size=16_384,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    directory = tmp_path_factory.mktemp("middling") / "middling-llama"
    weights.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "settings",
    [
        {"method": "lora", "per_device_train_batch_size": 8, "max_length": 128},
        {"method": "full", "per_device_train_batch_size": 4, "max_length": 128},
        {"method": "lora", "packing": True, "per_device_train_batch_size": 1, "max_length": 512},
    ],
    ids=["lora", "full", "packing"],
)
def test_the_estimate_is_within_a_quarter_of_the_measured_peak(
    settings: Mapping[str, Json], model: str, make_rows: Any, tmp_path: Path
) -> None:
    words = "what colour is the apple river stone cloud horse lamp red green blue white black "
    rows = make_rows("rows.jsonl", ({"text": words * 10} for _ in range(32)))
    given = {"model": model, "dataset": rows, "max_steps": 2, "gradient_accumulation_steps": 1, **settings}
    params = SFTParams.model_validate(given)
    expected = estimate(params, Host(cpu_count=2)).host_bytes
    measured = peak(tmp_path, params)
    assert expected == pytest.approx(measured, rel=0.25), (expected, measured)


def peak(directory: Path, params: TrainingParams, kind: str = "sft", **models: str) -> int:
    """Train in a worker process of its own; the host's memory that it says it took."""
    bundle = Bundle(directory / "jobs" / "job" / "attempts" / "1")
    given = {**params.model_dump(mode="json", exclude_unset=True), "dataloader_num_workers": 1}
    spec = Spec(
        job="job",
        attempt=1,
        kind=kind,
        entry=f"finetuned_{kind}.trainer:train",
        params=given,
        params_model=f"{type(params).__module__}:{type(params).__name__}",
        interpreter=sys.executable,
        models={"model": params.model, **models},
        devices=("cpu:0",),
        metadata={"kind": kind, "name": None, "params": given, "retry_of": None},
    )
    bundle.create(spec)
    environment = {**os.environ, **devices.environment(["cpu:0"], slots=1)}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "finetuned_sdk.worker", str(bundle.path)],
        cwd=bundle.work,
        env=environment,
        capture_output=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    lines, _end = parse(bundle.spool_path.read_bytes(), after=0)
    (result,) = (line.data for line in lines if isinstance(line, Fact) and line.type == "result")
    return int(result["measured"]["host_bytes"])
