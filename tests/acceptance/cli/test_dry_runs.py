from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.cli.fake_daemon import FakeDaemon

GB = 1_000_000_000


def foretold(**changes: Any) -> dict[str, Any]:
    """What the daemon says of a job that fits and starts at once."""
    needed = {"host_bytes": 8 * GB, "device_bytes": None, "disk_bytes": GB, "duration_s": 120.0}
    return {
        "object": "dry_run",
        "kind": "sft",
        "accepted": True,
        "params": {"model": "tiny"},
        "devices": 1,
        "estimate": {**needed, "breakdown": {"weights": 5 * GB, "activations": 3 * GB}},
        "duration": {"seconds": 120.0, "source": "history", "jobs": 3, "steps": 60},
        "checks": [
            {"name": "host_memory", "verdict": "ok", "message": "It will take about 8.0 GB.", "figures": {}}
        ],
        "fixes": [],
        "start": {
            "now": True,
            "devices": ["cpu:0"],
            "wait_reason": None,
            "queue_position": 1,
            "after_validation": True,
        },
    } | changes


def test_a_dry_run_prints_what_would_come_of_it_and_sends_nothing(
    daemon: FakeDaemon, finetune: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    monkeypatch.chdir(tmp_path)
    daemon.foretold = foretold()
    outcome = finetune("run", "sft", "--model", "tiny", "--data", "rows.jsonl", "--dry-run")
    assert outcome.code == 0
    for text in (
        "memory  ok       It will take about 8.0 GB.",
        "of it: weights 5.0 GB, activations 3.0 GB",
        "time: about 2 min 00 s for 60 steps, as 3 similar jobs here",
        "start: once its data are checked, at once on cpu:0",
        "It would be accepted.",
    ):
        assert text in outcome.out
    assert daemon.jobs == {}
    posts = [(path, body) for method, path, body in daemon.requests if method == "POST"]
    assert [path for path, _ in posts] == ["/v1/jobs?dry_run=true"]
    assert posts[0][1]["params"]["dataset"] == str(tmp_path / "rows.jsonl")


def test_a_dry_run_of_what_does_not_fit_shows_what_would_and_ends_as_its_refusal_would(
    daemon: FakeDaemon, finetune: Any
) -> None:
    daemon.foretold = foretold(
        accepted=False,
        duration={"seconds": None, "source": None, "jobs": 0, "steps": None},
        fixes=[{"params": {"max_length": 256}, "estimate": {"device_bytes": None, "host_bytes": 2 * GB}}],
        start={
            "now": False,
            "devices": [],
            "wait_reason": "behind job-7, which is next",
            "queue_position": 2,
            "after_validation": False,
        },
    )
    outcome = finetune("run", "sft", "--model", "tiny", "--data", "org/rows", "--dry-run")
    assert outcome.code == 2
    for text in (
        "time: not known",
        "start: as #2 of the queue: behind job-7, which is next",
        "would fit: --param max_length=256 (2.0 GB)",
        "--ignore-estimate submits it",
    ):
        assert text in outcome.out


def test_a_dry_runs_json_is_the_answer(daemon: FakeDaemon, finetune: Any) -> None:
    daemon.foretold = foretold()
    outcome = finetune("run", "sft", "--model", "tiny", "--data", "org/rows", "--dry-run", "--json")
    assert (outcome.code, outcome.json) == (0, daemon.foretold)


def test_who_knows_better_says_so(daemon: FakeDaemon, finetune: Any) -> None:
    finetune("run", "sft", "--model", "tiny", "--data", "org/rows", "--ignore-estimate")
    (body,) = [body for method, path, body in daemon.requests if (method, path) == ("POST", "/v1/jobs")]
    assert body["ignores_estimate"] is True


def test_show_has_what_was_measured_beside_what_was_estimated(daemon: FakeDaemon, finetune: Any) -> None:
    daemon.runs("job-1", ends=False)
    daemon.jobs["job-1"] |= {
        "estimate": {"host_bytes": 8 * GB, "breakdown": {"weights": 8 * GB}},
        "measured": {"duration_s": 65.0, "device_bytes": None, "host_bytes": 7 * GB},
    }
    lines = finetune("show", "job-1").out.splitlines()
    assert "estimate" in next(line for line in lines if "host 8.0 GB" in line)
    assert "measured" in next(line for line in lines if "duration 1 min 05 s, host 7.0 GB" in line)
