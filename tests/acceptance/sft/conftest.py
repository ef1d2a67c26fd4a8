"""A tiny Llama with a tokenizer of its own, made on the spot: nothing is downloaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.sft.tiny import CHATML, MARKED_CHATML, chat, exchange, make_tokenizer, save_model

from finetuned_sdk.testing import RecordingContext
from finetuned_sft.params import SFTParams

__all__ = ("CHATML", "MARKED_CHATML", "MakeContext", "MakeRows", "MakeTokenizer", "chat", "exchange")

MakeRows = Callable[[str, Iterable[Mapping[str, Any]]], str]
MakeContext = Callable[..., RecordingContext]
MakeTokenizer = Callable[..., Any]


@pytest.fixture(scope="session")
def tokenizer_factory() -> MakeTokenizer:
    """Makes a byte-level BPE tokenizer trained on the fixture's words."""
    return make_tokenizer


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The directory of a random two-layer Llama, hidden size 32."""
    directory = tmp_path_factory.mktemp("tiny") / "tiny-llama"
    save_model(directory)
    return str(directory)


@pytest.fixture
def make_rows(tmp_path: Path) -> MakeRows:
    """Writes rows to a JSONL file and gives its path."""

    def make(name: str, rows: Iterable[Mapping[str, Any]]) -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return make


@pytest.fixture
def make_context(tmp_path: Path) -> MakeContext:
    """Makes a recording context for a job's parameters; each is an attempt of its own."""
    made = 0

    def make(params: SFTParams, **kwargs: Any) -> RecordingContext:
        nonlocal made
        made += 1
        models = {name: getattr(params, name) for name in ("model", "adapter") if getattr(params, name)}
        return RecordingContext(
            tmp_path / "state",
            params=params.model_dump(mode="json"),
            kind="sft",
            job_id=kwargs.pop("job_id", f"job{made}"),
            models=models,
            **kwargs,
        )

    return make


@pytest.fixture(autouse=True)
def steps_are_reported_when_they_are_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not also once a second, which is as often as the machine is slow."""
    monkeypatch.setattr("finetuned_training.reporting.REPORT_EVERY", float("inf"))
