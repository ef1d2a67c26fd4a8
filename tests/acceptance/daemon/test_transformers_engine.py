"""The embedded engine on a real daemon: jobs and clients ask it, a model and an adapter of it answer, and it ends."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.daemon.process import Daemon, eventually, running

pytestmark = [
    pytest.mark.torch,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

PLUGINS = "finetuned_sdk.fake,finetuned_sdk.fake_engine"
PATIENCE = 240  # seconds: other tests share the cores
OPTIONS = {"cache_tokens": 4096}


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with running(FINETUNED_EXTRA_PLUGINS=PLUGINS) as started:
        yield started


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.acceptance.sft.tiny import make_tokenizer
    from tests.unit.transformers_engine.tiny_engine import opinionated

    directory = tmp_path_factory.mktemp("model") / "tiny"
    opinionated().save_pretrained(directory)
    make_tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def adapter(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.unit.transformers_engine.tiny_engine import save_adapter

    directory = tmp_path_factory.mktemp("adapter") / "mine"
    save_adapter(directory)
    config = directory / "adapter_config.json"
    described = json.loads(config.read_text(encoding="utf-8")) | {"base_model_name_or_path": str(model)}
    config.write_text(json.dumps(described), encoding="utf-8")
    return directory


def ask(daemon: Daemon, model: Path, requests: int = 2) -> dict[str, Any]:
    params = {"model": str(model), "engine": "transformers", "options": OPTIONS, "requests": requests}
    job = daemon.ok("POST", "/v1/jobs", {"kind": "fake-asking", "params": params})["id"]
    return daemon.wait_for(job, timeout=PATIENCE)


def engines(daemon: Daemon) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = daemon.ok("GET", "/v1/jobs?kind=transformers")["data"]
    return found


def test_jobs_ask_a_model_and_its_adapter_of_one_engine(daemon: Daemon, model: Path, adapter: Path) -> None:
    for each in (model, adapter):
        done = ask(daemon, each)
        assert done["state"] == "succeeded", done
        assert all(done["result"]["answers"])
    (engine,) = engines(daemon)
    assert engine["state"] == "running"
    os.kill(engine["attempts"][-1]["pid"], signal.SIGKILL)
    assert ask(daemon, model)["state"] == "succeeded"


def test_a_model_that_cannot_be_loaded_fails_who_asks_it_with_the_reason(
    daemon: Daemon, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    failed = ask(daemon, tmp_path)
    assert failed["state"] == "failed"
    assert failed["error"]["code"] == "engine_failed"
    assert "cannot be loaded" in failed["error"]["message"]


def test_an_engine_that_is_not_needed_any_more_ends_by_itself(daemon: Daemon, model: Path) -> None:
    assert ask(daemon, model)["state"] == "succeeded"
    training = daemon.ok("POST", "/v1/jobs", {"kind": "fake", "params": {"steps": 1}})["id"]
    assert daemon.wait_for(training, timeout=PATIENCE)["state"] == "succeeded"
    eventually(lambda: [each["state"] for each in engines(daemon)] == ["cancelled"], what="the engine's end")
