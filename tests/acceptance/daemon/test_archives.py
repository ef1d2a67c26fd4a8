"""The log's beginning is archived while a real daemon works, which dies and starts again on what is left."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.acceptance.daemon.process import running
from tests.acceptance.daemon.test_backups import check, finetune


@pytest.mark.timeout(300)
def test_a_job_that_runs_loses_no_step_and_the_daemon_starts_again_on_a_sealed_log() -> None:
    with running() as daemon:
        ended = daemon.submit(steps=3, register_as="kept")
        daemon.wait_for(ended, timeout=90)
        shown = daemon.job(ended)
        live = daemon.held()

        report = finetune(daemon, "log", "archive", "--upto", "0h")
        assert (report["first"], report["last"]) == (1, daemon.events(live)[0]["seq"] - 1)
        assert live in report["held_back_by"]
        daemon.kill()
        daemon.open_gate()
        daemon.start()
        assert daemon.wait_for(live, timeout=90)["state"] == "succeeded"
        assert daemon.steps(live) == list(range(1, 31))
        assert daemon.job(ended) == shown
        assert [model["id"] for model in daemon.ok("GET", "/v1/models")["data"]] == ["kept"]
        assert daemon.ok("POST", "/v1/log/verify")["ok"]
        assert daemon.ok("POST", "/v1/log/rebuild")["equal"]
        assert check(daemon, "archives")["verdict"] == "ok"
        assert check(daemon, "projections")["verdict"] == "ok"

        found = finetune(daemon, "log", "verify", "--archive", report["path"])
        assert (found["ok"], found["head"]["seq"]) == (True, report["last"])
        with Path(report["path"]).open("r+b") as file:
            file.truncate(report["bytes"] - 5)
        found = finetune(daemon, "log", "verify", "--archive", report["path"], code=1)
        assert not found["ok"]
        assert check(daemon, "archives")["verdict"] == "fail"
        status, refused = daemon.request("GET", f"/v1/jobs/{ended}?at=2")
        assert (status, refused["error"]["code"]) == (410, "archived")
        assert finetune(daemon, "metrics", ended, code=3)["error"]["code"] == "archived"
