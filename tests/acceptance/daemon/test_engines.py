"""Engines come when they are asked for, are shared, come again when they die, and leave when nobody asks."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.daemon.process import Daemon, eventually, running

PLUGINS = "finetuned_sdk.fake,finetuned_sdk.fake_engine,tests.acceptance.daemon.gated"


def ask(daemon: Daemon, model: Path, **params: Any) -> str:
    body = {
        "kind": "fake-asking",
        "params": {"model": str(model), "engine": "fake-engine", **params},
        "priority": params.pop("priority", 0),
    }
    job_id: str = daemon.ok("POST", "/v1/jobs", body)["id"]
    return job_id


def engines(daemon: Daemon) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = daemon.ok("GET", "/v1/jobs?kind=fake-engine")["data"]
    return found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    return directory


@pytest.fixture
def other(tmp_path: Path) -> Path:
    directory = tmp_path / "other"
    directory.mkdir()
    return directory


def test_a_job_that_asks_gets_an_engine_which_the_next_one_shares(model: Path) -> None:
    with running(FINETUNED_EXTRA_PLUGINS=PLUGINS) as daemon:
        for _ in range(2):
            done = daemon.wait_for(ask(daemon, model))
            assert done["state"] == "succeeded", done
            assert done["result"]["answers"] == ["answer 0", "answer 1", "answer 2"]
        (engine,) = engines(daemon)
        assert engine["state"] == "running"


def test_an_engine_that_dies_comes_again_and_no_answer_is_missing(model: Path) -> None:
    with running(FINETUNED_EXTRA_PLUGINS=PLUGINS) as daemon:
        done = daemon.wait_for(ask(daemon, model, requests=5, options={"dies_after": 3}))
        assert done["state"] == "succeeded", done
        assert done["result"]["answers"] == [f"answer {number}" for number in range(5)]
        assert len(done["attempts"]) == 1


def test_an_engine_that_cannot_load_fails_who_asks_it_with_its_own_words(model: Path, other: Path) -> None:
    with running(FINETUNED_EXTRA_PLUGINS=PLUGINS) as daemon:
        failed = daemon.wait_for(ask(daemon, model, options={"fails_to_load": True}))
        assert failed["state"] == "failed"
        assert failed["error"]["code"] == "engine_failed"
        assert "The fake engine was told to fail" in failed["error"]["message"]
        assert daemon.wait_for(ask(daemon, other))["state"] == "succeeded"


def test_an_engine_that_nobody_asks_leaves_its_device_to_the_next_job(model: Path, other: Path) -> None:
    with running(FINETUNED_EXTRA_PLUGINS=PLUGINS) as daemon:
        daemon.wait_for(ask(daemon, model))
        assert daemon.wait_for(ask(daemon, other))["state"] == "succeeded"
        training = daemon.ok("POST", "/v1/jobs", {"kind": "fake", "params": {"steps": 1}})["id"]
        assert daemon.wait_for(training)["state"] == "succeeded"
        assert [each["state"] for each in engines(daemon)] == ["cancelled", "cancelled"]


def test_who_waits_for_an_engine_is_told_what_that_waits_for(model: Path) -> None:
    with running(FINETUNED_EXTRA_PLUGINS=PLUGINS) as daemon:
        training = daemon.held()
        asking = ask(daemon, model)
        eventually(lambda: "its engine" in (daemon.job(asking)["wait_reason"] or ""), what="a reason")
        eventually(lambda: engines(daemon), what="the engine")
        (engine,) = engines(daemon)
        eventually(
            lambda: training in (daemon.job(asking)["wait_reason"] or ""), what="the holder of the device"
        )
        assert engine["id"] in daemon.job(asking)["wait_reason"]
        daemon.open_gate()
        assert daemon.wait_for(asking)["state"] == "succeeded"


def test_who_waited_for_an_engine_is_told_to_wait_no_longer_once_it_is_there(model: Path) -> None:
    with running(FINETUNED_EXTRA_PLUGINS=PLUGINS) as daemon:
        daemon.held(steps=4)  # it has the device: who asks looks before there is an engine
        asking = ask(daemon, model)

        def phases() -> list[str]:
            told = daemon.ok("GET", f"/v1/jobs/{asking}/events?types=job.phase")["data"]
            return [each["data"]["phase"] for each in told]

        eventually(lambda: "waiting_for_engine" in phases(), what="the wait")
        daemon.open_gate()
        daemon.wait_for(asking)
        assert phases()[-2:] == ["waiting_for_engine", "asking"]


def test_a_killed_daemon_costs_no_answer_and_no_engine(model: Path) -> None:
    with running(FINETUNED_EXTRA_PLUGINS=PLUGINS) as daemon:
        asking = ask(daemon, model, requests=200, options={"token_seconds": 0.01})
        eventually(lambda: len(daemon.steps(asking)) > 5, what="some answers")
        daemon.kill()
        daemon.start()
        done = daemon.wait_for(asking)
        assert done["result"]["answers"] == [f"answer {number}" for number in range(200)]
        (engine,) = engines(daemon)
        assert [each["number"] for each in engine["attempts"]] == [1]


def test_a_killed_engine_is_replaced_under_a_job_that_goes_on(model: Path) -> None:
    with running(FINETUNED_EXTRA_PLUGINS=PLUGINS) as daemon:
        asking = ask(daemon, model, requests=100, options={"token_seconds": 0.01})
        eventually(lambda: len(daemon.steps(asking)) > 5, what="some answers")
        (engine,) = engines(daemon)
        os.kill(engine["attempts"][-1]["pid"], signal.SIGKILL)
        done = daemon.wait_for(asking)
        assert done["result"]["answers"] == [f"answer {number}" for number in range(100)]
