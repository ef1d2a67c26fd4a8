"""``templates``, ``run --template``, ``next`` and ``models lineage``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.acceptance.cli.conftest import Run
from tests.acceptance.cli.fake_daemon import FakeDaemon, a_job

from finetuned import wire

TEMPLATE: wire.Template = {
    "id": "nightly", "object": "template", "name": "nightly", "version": 3, "description": "Every night.",
    "request": {"kind": "sft", "params": {"learning_rate": 0.001}, "priority": 2},
    "saved_at": "2026-11-22T12:00:00.000000Z", "saved_by": "uid:1000",
}  # fmt: skip


def test_templates_are_listed_and_shown(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.answers["GET", "/v1/templates"] = {"data": [TEMPLATE], "has_more": False}
    daemon.answers["GET", "/v1/templates/nightly"] = TEMPLATE
    daemon.answers["GET", "/v1/templates/nightly/versions"] = {"data": [TEMPLATE], "has_more": False}
    assert "Every night." in finetune("templates").out
    assert finetune("templates", "ls", "--json").json["data"] == [TEMPLATE]
    shown = finetune("templates", "show", "nightly@3").out
    assert daemon.requests[-1][1] == "/v1/templates/nightly?version=3"
    assert "nightly@3" in shown
    assert "learning_rate        0.001" in shown
    assert finetune("templates", "show", "nightly", "--json").json == TEMPLATE
    assert "Every night." in finetune("templates", "show", "nightly", "--versions").out
    assert finetune("templates", "show", "nightly", "--versions", "--json").json["data"] == [TEMPLATE]
    assert finetune("templates", "show", "nightly@x").code == 2
    daemon.answers["GET", "/v1/templates"] = {"data": [], "has_more": False}
    assert "templates save" in finetune("templates").err


def test_the_request_of_a_job_is_kept(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.jobs["job-1"] = a_job("job-1", params={"model": "tiny"}, priority=0, secrets={}, metadata={"a": 1})
    daemon.answers["PUT", "/v1/templates/nightly"] = TEMPLATE
    outcome = finetune("templates", "save", "nightly", "--job", "job-1", "--description", "Every night.")
    assert outcome.out == "nightly@3 is saved.\n"
    assert "finetune run --template nightly" in outcome.err
    assert daemon.requests[-1][2] == {
        "request": {"kind": "sft", "params": {"model": "tiny"}, "metadata": {"a": 1}, "max_attempts": 3},
        "description": "Every night.",
    }


def test_limits_and_own_time_outs_of_a_job_are_kept_and_the_daemons_defaults_are_not(
    daemon: FakeDaemon, finetune: Run
) -> None:
    daemon.jobs["job-1"] = a_job(
        "job-1",
        timeouts={"stall_s": 600.0, "pause_s": 90.0, "max_duration_s": None},
        limits={"memory": 1 << 30},
        preemptible=True,
        reduces_batch=False,
    )
    daemon.answers["PUT", "/v1/templates/nightly"] = TEMPLATE
    finetune("templates", "save", "nightly", "--job", "job-1")
    request = daemon.requests[-1][2]["request"]
    assert (request["timeouts"], request["limits"]) == ({"pause_s": 90.0}, {"memory": 1 << 30})
    assert (request["preemptible"], request["reduces_batch"]) == (True, False)


def test_the_request_in_a_file_is_kept_under_a_new_name(
    daemon: FakeDaemon, finetune: Run, tmp_path: Path
) -> None:
    file = tmp_path / "request.json"
    file.write_text(json.dumps({"kind": "sft"}))
    daemon.answers["POST", "/v1/templates"] = TEMPLATE
    assert finetune("templates", "save", "nightly", "--file", str(file), "--new", "--json").json == TEMPLATE
    assert daemon.requests[-1][2] == {"name": "nightly", "request": {"kind": "sft"}}
    file.write_text("no json")
    outcome = finetune("templates", "save", "nightly", "--file", str(file))
    assert outcome.code == 2
    assert "no JSON object" in outcome.err


@pytest.mark.parametrize("arguments", [[], ["--job", "job-1", "--file", __file__]])
def test_a_template_is_made_of_one_thing(daemon: FakeDaemon, finetune: Run, arguments: list[str]) -> None:
    outcome = finetune("templates", "save", "nightly", *arguments)
    assert outcome.code == 2
    assert "either --job or --file" in outcome.err


def test_a_name_that_is_taken_is_refused_with_the_command_that_saves_the_next_version(
    daemon: FakeDaemon, finetune: Run
) -> None:
    daemon.jobs["job-1"] = a_job("job-1")
    told = {"code": "template_exists", "message": "PUT /v1/templates/nightly saves it.", "param": "name"}
    daemon.answers["POST", "/v1/templates"] = (409, {"error": told})
    arguments = ("templates", "save", "nightly", "--job", "job-1", "--new")
    outcome = finetune(*arguments)
    assert outcome.code == 4
    assert "`finetune templates save` without --new saves its next version" in outcome.err
    assert "PUT" not in outcome.err
    assert json.loads(finetune(*arguments, "--json").err)["error"]["code"] == "template_exists"
    told |= {"code": "template_unsafe", "message": "Another refusal."}
    assert "Another refusal." in finetune(*arguments).err


def test_a_template_is_removed(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.answers["DELETE", "/v1/templates/nightly"] = {}
    assert finetune("templates", "rm", "nightly").out == "nightly is removed.\n"
    assert finetune("templates", "rm", "nightly", "--json").json["deleted"] is True


def test_a_job_is_run_from_a_template_with_what_is_said_besides(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.answers["GET", "/v1/templates/nightly"] = TEMPLATE
    daemon.answers["POST", "/v1/jobs"] = a_job("job-1")
    outcome = finetune("run", "--template", "nightly@3", "--data", "dataset:rows", "--param", "max_steps=5")
    assert outcome.out == "job-1 is queued.\n"
    assert daemon.requests[-1][2] == {
        "template": "nightly@3",
        "params": {"dataset": "dataset:rows", "max_steps": 5},
    }
    assert finetune("run", "--template", "nightly", "--param", "max_stps=5").code == 2


def test_neither_a_kind_nor_a_template_is_wrong_usage(daemon: FakeDaemon, finetune: Run) -> None:
    outcome = finetune("run", "--model", "tiny")
    assert outcome.code == 2
    assert "Name a kind or a --template" in outcome.err


def test_what_makes_sense_next_is_said_with_its_commands(daemon: FakeDaemon, finetune: Run) -> None:
    steps: list[wire.NextStep] = [
        {"action": "export", "why": "The adapter is ready.", "command": "finetune export job-1"},
        {"action": "wait", "why": "An evaluation still runs.", "command": None},
    ]
    daemon.answers["GET", "/v1/jobs/job-1/next"] = {"data": steps, "has_more": False}
    assert finetune("next", "job-1").out.splitlines() == [
        "The adapter is ready.", "  finetune export job-1", "An evaluation still runs.",
    ]  # fmt: skip
    assert finetune("next", "job-1", "--json").json["data"] == steps
    daemon.answers["GET", "/v1/jobs/job-1/next"] = {"data": [], "has_more": False}
    assert "Nothing is left to do" in finetune("next", "job-1").err


def test_a_lineage_reads_from_the_farthest_ancestor_down(daemon: FakeDaemon, finetune: Run) -> None:
    base: wire.LineageModel = {
        "name": "org/base", "registered": False, "kind": None, "path": None, "base": None, "adapter": None,
        "created_at": None, "job": None,
    }  # fmt: skip
    own: wire.LineageModel = {
        **base, "name": "tuned", "registered": True, "kind": "adapter", "base": "org/base",
        "job": {
            "id": "job-1", "kind": "sft", "state": "succeeded", "artifacts": [],
            "datasets": [{"name": "rows", "version": "0123456789abcdef"}, {"name": "more", "version": None}],
        },
    }  # fmt: skip
    found: wire.Lineage = {
        "object": "lineage", "model": own, "bases": [base],
        "derived": [{"name": "tuned-q8", "kind": "gguf", "base": "tuned", "job": "job-2", "created_at": "t"}],
    }  # fmt: skip
    daemon.answers["GET", "/v1/models/tuned/lineage"] = found
    assert finetune("models", "lineage", "tuned").out.splitlines() == [
        "org/base (not registered)",
        "└ tuned (adapter)",
        "    by job-1 (sft, succeeded)",
        "    on rows@0123456789ab",
        "    on more",
        "    └ tuned-q8 (gguf, by job-2)",
    ]
    assert finetune("models", "lineage", "tuned", "--json").json == found
