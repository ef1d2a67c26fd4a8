from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.acceptance.cli.conftest import Run
from tests.acceptance.cli.fake_daemon import FakeDaemon, a_job

from finetuned import store
from finetuned.domain import decisions


def submitted(daemon: FakeDaemon) -> dict[str, object]:
    bodies = [body for method, path, body in daemon.requests if (method, path) == ("POST", "/v1/jobs")]
    assert len(bodies) == 1
    found: dict[str, object] = bodies[0]
    return found


# ---- run ---------------------------------------------------------------------------------------------------


def test_run_submits_typed_parameters_and_sends_files_once(
    daemon: FakeDaemon, finetune: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    monkeypatch.chdir(tmp_path)
    outcome = finetune(
        "run", "sft", "--model", "tiny", "--data", "rows.jsonl", "--param", "learning_rate=1e-3",
        "--param", "max_steps=10", "--callback", "validation:dataset=rows.jsonl,limit=5", "--name", "first",
        "--priority", "3", "--metadata", "ticket=12", "--json",
    )  # fmt: skip
    assert outcome.code == 0
    assert outcome.json["id"] == "job-1"
    rows = f"dataset:rows@{hashlib.sha256(b'{}' + bytes([10])).hexdigest()[:16]}"
    assert submitted(daemon) == {
        "kind": "sft",
        "params": {
            "model": "tiny",
            "dataset": rows,
            "learning_rate": 0.001,
            "max_steps": 10,
            "callbacks": [{"name": "validation", "params": {"dataset": rows, "limit": 5}}],
        },
        "name": "first",
        "priority": 3,
        "metadata": {"ticket": 12},
    }
    assert [path for method, path, _ in daemon.requests if path.startswith("/v1/datasets?")] == [
        f"/v1/datasets?name=rows&sha256={hashlib.sha256(b'{}' + bytes([10])).hexdigest()}"
    ]
    assert "dataset:rows@" in outcome.err


def test_run_without_watch_says_how_to_watch(daemon: FakeDaemon, finetune: Run) -> None:
    outcome = finetune("run", "sft", "--model", "tiny", "--data", "org/rows")
    assert outcome.code == 0
    assert outcome.out == "job-1 is queued.\n"
    assert "finetune watch job-1" in outcome.err
    assert submitted(daemon)["params"] == {"model": "tiny", "dataset": "org/rows"}


def test_a_misspelt_parameter_is_refused_with_the_nearest_and_nothing_is_submitted(
    daemon: FakeDaemon, finetune: Run
) -> None:
    outcome = finetune("run", "sft", "--param", "lerning_rate=1")
    assert outcome.code == 2
    assert "Did you mean 'learning_rate'?" in outcome.err
    assert outcome.out == ""
    assert not any(method == "POST" for method, _, _ in daemon.requests)


def test_a_misspelt_kind_is_refused_with_the_nearest(daemon: FakeDaemon, finetune: Run) -> None:
    outcome = finetune("run", "stf", "--model", "tiny")
    assert outcome.code == 2
    assert "There is no job kind 'stf'. Did you mean 'sft'?" in outcome.err
    assert not any(method == "POST" for method, _, _ in daemon.requests)


def test_a_file_that_is_not_there_is_refused_before_it_is_submitted(
    daemon: FakeDaemon, finetune: Run
) -> None:
    outcome = finetune("run", "sft", "--model", "tiny", "--data", "nowhere.jsonl", "--json")
    assert outcome.code == 2
    assert "There is no nowhere.jsonl" in outcome.err
    assert '"param": "params.dataset"' in outcome.err
    assert not any(method == "POST" for method, _, _ in daemon.requests)


# ---- jobs --------------------------------------------------------------------------------------------------


def test_ls_shows_jobs_newest_first_with_what_they_wait_for(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.jobs["job-a"] = a_job(
        "job-a", state="running", phase="loading_model", progress={"progress": 40.0, "loss": 0.5}
    )
    daemon.jobs["job-b"] = a_job("job-b", wait_reason="behind job-a", queue_position=1, name="second")
    outcome = finetune("ls")
    assert outcome.code == 0
    heading, first, second = outcome.out.splitlines()
    assert heading.split() == ["ID", "STATE", "KIND", "NAME", "PROGRESS", "LOSS", "AGE", "WHY"]
    assert first.startswith("job-b")
    assert "#1: behind job-a" in first
    assert "40 %" in second
    assert "loading model" in second


def test_ls_says_that_there_are_more_and_all_lists_every_one(daemon: FakeDaemon, finetune: Run) -> None:
    for number in range(5):
        daemon.jobs[f"job-{number}"] = a_job(f"job-{number}")
    first = finetune("ls")
    assert "--all lists every one" in first.err
    everything = finetune("ls", "--all", "--json")
    assert [job["id"] for job in everything.json["data"]] == [f"job-{number}" for number in (4, 3, 2, 1, 0)]
    assert everything.json["has_more"] is False


def test_ls_passes_its_filters_on(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.jobs["job-a"] = a_job("job-a", state="failed", error={"code": "x", "message": "It broke."})
    daemon.jobs["job-b"] = a_job("job-b")
    outcome = finetune("ls", "--state", "failed", "--kind", "sft", "--name", "n", "--limit", "2", "--json")
    assert [job["id"] for job in outcome.json["data"]] == ["job-a"]
    assert daemon.requests[-1][1] == "/v1/jobs?state=failed&kind=sft&name=n&limit=2"


def test_the_past_is_asked_for_by_position_or_time(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.runs("job-1")
    daemon.jobs["job-1"]["seq"] = 3
    finetune("ls", "--at", "3", "--json")
    assert daemon.requests[-1][1] == "/v1/jobs?limit=20&at=3"
    finetune("devices", "--at", "2026-11-22T12:00:03Z")
    assert daemon.requests[-1][1] == "/v1/devices?at=2026-11-22T12:00:03Z"
    shown = finetune("show", "job-1", "--at", "3", "--json").json
    assert [row["seq"] for row in shown["timeline"]] == [1, 2, 3]


def test_ls_without_jobs_says_what_to_do_and_leaves_stdout_empty(daemon: FakeDaemon, finetune: Run) -> None:
    outcome = finetune("ls")
    assert (outcome.code, outcome.out) == (0, "")
    assert "finetune run" in outcome.err


def test_show_tells_the_story_with_durations_actors_and_reasons(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.runs("job-1", ends=False)
    attempt = {
        "number": 1, "purpose": "run", "devices": ["cpu:0"], "pid": 7, "resume_from": None,
        "starting_at": "2026-11-22T12:00:02Z", "started_at": "2026-11-22T12:00:03Z",
        "ended_at": "2026-11-22T12:00:08Z", "outcome": "succeeded", "cause": None, "exit_code": 0, "signal": None,
        "failure": None, "stopping": None, "overrides": {},
    }  # fmt: skip
    artifact = {"name": "adapter", "kind": "adapter", "path": "/x/adapter", "bytes": 12_000_000, "attempt": 1}
    daemon.ends(
        "job-1", result={"train_loss": 0.33333}, attempts=[attempt], artifacts=[artifact], name="first",
        retry_of="job-0", devices=["cpu:0"], progress={"current_step": 3, "total_steps": None},
        advice=[{"setting": "packing", "message": "Try packing."}],
    )  # fmt: skip
    outcome = finetune("show", "job-1")
    assert outcome.code == 0
    rows = [line.split() for line in outcome.out.splitlines()]
    assert any({"queued", "1.0", "uid:1000", "submitted"} <= set(row) for row in rows)
    assert any({"running", "5.0", "daemon"} <= set(row) for row in rows)
    assert "train_loss 0.3333" in outcome.out
    assert "/x/adapter (12.0 MB)" in outcome.out
    assert "Try packing." in outcome.out
    assert "job-0" in outcome.out


def test_show_as_json_is_the_job_with_its_timeline(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.runs("job-1")
    outcome = finetune("show", "job-1", "--json")
    states = [row["state"] for row in outcome.json["timeline"] if row["state"]]
    assert outcome.json["id"] == "job-1"
    assert states == ["queued", "starting", "running", "succeeded"]


def test_a_timeline_does_not_ask_for_progress(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.runs("job-1", steps=20)
    finetune("show", "job-1")
    asked = [path for _, path, _ in daemon.requests if "/events" in path]
    assert asked
    assert not any("job.progress" in path for path in asked)


def test_cancel_keeps_the_reason_and_says_how_to_wait(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.jobs["job-1"] = a_job("job-1", state="running")
    outcome = finetune("cancel", "job-1", "--reason", "wrong data")
    assert outcome.code == 0
    assert daemon.requests[-1] == ("POST", "/v1/jobs/job-1/cancel", {"reason": "wrong data"})
    assert "job-1 is cancelling. `finetune watch job-1`" in outcome.out


def test_a_cancel_that_comes_too_late_is_rejected(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.jobs["job-1"] = a_job("job-1", state="succeeded")
    outcome = finetune("cancel", "job-1", "--json")
    assert outcome.code == 4
    assert outcome.out == ""
    assert '"code": "job_ended"' in outcome.err


def test_retry_names_the_checkpoint_and_the_new_job(daemon: FakeDaemon, finetune: Run) -> None:
    outcome = finetune("retry", "job-1", "--from-checkpoint", "latest", "--priority", "5")
    assert outcome.code == 0
    assert daemon.requests[-1][2] == {"from_checkpoint": "latest", "priority": 5}
    assert "job-again is queued; it repeats job-1." in outcome.out


def test_a_retry_can_be_watched_at_once(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.runs("job-again", ends=False)
    daemon.on_stream = lambda: daemon.ends("job-again")
    outcome = finetune("retry", "job-1", "--watch", "--json")
    assert outcome.code == 0
    assert outcome.lines[-1]["state"] == "succeeded"
    assert len(outcome.lines) == 9


def test_a_table_in_a_pipe_has_no_spaces_at_the_ends_of_lines(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.runs("job-1")
    for arguments in (["ls"], ["show", "job-1"], ["kinds"], ["kinds", "sft"]):
        lines = finetune(*arguments).out.splitlines()
        assert lines == [line.rstrip() for line in lines]


def test_what_an_ended_job_is_told_is_only_its_state(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.jobs["job-1"] = a_job("job-1", state="cancelled")
    daemon.refusal = (200, daemon.jobs["job-1"])
    assert finetune("cancel", "job-1").out == "job-1 is cancelled.\n"
    assert finetune("cancel", "job-1", "--json").json["state"] == "cancelled"


@pytest.mark.parametrize("as_json", [False, True])
def test_delete_says_that_the_events_stay(daemon: FakeDaemon, finetune: Run, *, as_json: bool) -> None:
    outcome = finetune("delete", "job-1", *(["--json"] if as_json else []))
    assert outcome.code == 0
    assert daemon.requests[-1][:2] == ("DELETE", "/v1/jobs/job-1")
    if as_json:
        assert outcome.json["deleted"] is True
    else:
        assert "its events stay" in outcome.out


# ---- logs --------------------------------------------------------------------------------------------------


def test_logs_are_passed_through_as_they_are(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.log_blocks = [b"one\ntw", b"o\nthree"]
    outcome = finetune("logs", "job-1", "--tail", "3", "--attempt", "1")
    assert outcome.out == "one\ntwo\nthree"
    assert daemon.requests[-1][1] == "/v1/jobs/job-1/logs?tail=3&attempt=1"


def test_logs_as_json_are_whole_lines(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.log_blocks = [b"one\ntw", b"o\nthree"]
    outcome = finetune("logs", "job-1", "--json")
    assert outcome.lines == [{"line": "one"}, {"line": "two"}, {"line": "three"}]


def test_followed_logs_end_with_the_job(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.jobs["job-1"] = a_job("job-1", state="succeeded")
    daemon.log_blocks = [b"one\n"]
    outcome = finetune("logs", "job-1", "-f")
    assert (outcome.code, outcome.out, outcome.err) == (0, "one\n", "")


def test_followed_logs_end_with_the_attempt_that_was_asked_for(daemon: FakeDaemon, finetune: Run) -> None:
    over = {"number": 1, "ended_at": "2026-11-22T12:00:08Z"}
    daemon.jobs["job-1"] = a_job("job-1", state="running", attempts=[over])
    daemon.log_blocks = [b"one\n"]
    assert finetune("logs", "job-1", "-f", "--attempt", "1").out == "one\n"


def test_followed_logs_go_on_where_the_connection_broke(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.jobs["job-1"] = a_job("job-1", state="running")
    daemon.log_blocks = [b"one\n"]
    daemon.cut_after = 1

    def meanwhile() -> None:
        daemon.log_blocks.append(b"two\n")
        daemon.jobs["job-1"].update(state="succeeded")

    daemon.on_stream = meanwhile
    outcome = finetune("logs", "job-1", "-f", "--tail", "5")
    assert outcome.out == "one\ntwo\n"
    assert "Connected again; nothing is missing." in outcome.err
    asked = [path for _, path, _ in daemon.requests if "/logs" in path]
    assert asked[:2] == [
        "/v1/jobs/job-1/logs?tail=5&follow=true",
        "/v1/jobs/job-1/logs?after=1:4&follow=true",
    ]


def test_what_was_printed_while_the_daemon_ended_the_stream_is_not_lost(
    daemon: FakeDaemon, finetune: Run
) -> None:
    daemon.jobs["job-1"] = a_job("job-1", state="running")
    daemon.log_blocks = [b"one\n"]

    def meanwhile() -> None:
        daemon.log_blocks.append(b"two\n")
        daemon.jobs["job-1"].update(state="succeeded")

    daemon.on_stream = meanwhile
    assert finetune("logs", "job-1", "-f").out == "one\ntwo\n"


def test_output_that_was_removed_meanwhile_is_said(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.jobs["job-1"] = a_job("job-1", state="running")
    daemon.log_blocks = [b"one\n"]
    daemon.cut_after = 1

    def meanwhile() -> None:
        daemon.log_blocks += [b"two\n", b"three\n"]
        daemon.log_removed = 8
        daemon.jobs["job-1"].update(state="succeeded")

    daemon.on_stream = meanwhile
    outcome = finetune("logs", "job-1", "-f")
    assert outcome.out == "one\nthree\n"
    assert "Output was removed before it was read; it goes on at 1:8." in outcome.err


def test_followed_logs_survive_a_restart_of_the_daemon(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.jobs["job-1"] = a_job("job-1", state="running")
    daemon.log_blocks = [b"one\n"]
    daemon.cut_after = 1
    daemon.on_stream = daemon.restart_soon
    daemon.while_away = lambda: daemon.jobs["job-1"].update(state="succeeded")
    outcome = finetune("logs", "job-1", "-f")
    assert (outcome.code, outcome.out) == (0, "one\n")


def test_following_the_output_of_no_job_is_an_error(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.refusal = (503, {"error": {"code": "unavailable", "message": "Later."}})
    assert finetune("logs", "job-1", "-f").code == 6


LINE: dict[str, object] = {
    "id": "1:40", "object": "log_line", "attempt": 1, "line": 3, "offset": 40, "level": "error",
    "text": "CUDA out of memory", "is_cut": True,
}  # fmt: skip


def test_logs_are_searched_page_by_page(daemon: FakeDaemon, finetune: Run) -> None:
    pages = [
        {"data": [LINE], "has_more": True, "next_after": "1:60"},
        {"data": [], "has_more": True, "next_after": "1:90"},
        {"data": [{**LINE, "line": 9, "is_cut": False}], "has_more": False, "next_after": "1:99"},
    ]
    daemon.answers["GET", "/v1/jobs/job-1/logs/search"] = lambda: pages.pop(0)
    outcome = finetune("logs", "job-1", "--search", "cuda", "--level", "error", "--attempt", "1")
    assert outcome.out == "1:3  CUDA out of memory …\n1:9  CUDA out of memory\n"
    assert daemon.requests[-1][1] == (
        "/v1/jobs/job-1/logs/search?q=cuda&level=error&attempt=1&after=1:90&limit=500"
    )
    pages.append({"data": [LINE], "has_more": False, "next_after": "1:60"})
    assert finetune("logs", "job-1", "--level", "error", "--json").lines == [LINE]
    assert finetune("logs", "job-1", "--search", "x", "-f").code == 2


def test_logs_are_counted(daemon: FakeDaemon, finetune: Run) -> None:
    counts: dict[str, Any] = {"object": "log_counts", "job": "job-1", "lines": 9, "errors": 1, "warnings": 2}
    counts |= {"is_complete": True, "attempts": []}
    daemon.answers["GET", "/v1/jobs/job-1/logs/counts"] = counts
    assert finetune("logs", "job-1", "--count").out == "9 lines, 1 errors, 2 warnings\n"
    assert finetune("logs", "job-1", "--count", "--json").json == counts


def test_logs_are_counted_to_their_end_or_it_says_that_there_is_more(
    daemon: FakeDaemon, finetune: Run
) -> None:
    def answers(*pieces: tuple[int, bool]) -> Iterator[dict[str, Any]]:
        for lines, is_complete in pieces:
            yield {"lines": lines, "errors": 0, "warnings": 0, "is_complete": is_complete}

    pages = answers((5, False), (7, False), (9, True))
    daemon.answers["GET", "/v1/jobs/job-1/logs/counts"] = lambda: next(pages)
    assert finetune("logs", "job-1", "--count").out == "9 lines, 0 errors, 0 warnings\n"
    stuck = answers((5, False), (5, False))
    daemon.answers["GET", "/v1/jobs/job-1/logs/counts"] = lambda: next(stuck)
    told = finetune("logs", "job-1", "--count").out
    assert told == "5 lines, 0 errors, 0 warnings so far; there is more to count\n"


def test_logs_that_break_off_without_follow_are_an_error(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.log_blocks = [b"one\n"]
    daemon.cut_after = 1
    outcome = finetune("logs", "job-1")
    assert outcome.code == 6


# ---- events ------------------------------------------------------------------------------------------------


def test_events_prints_every_page(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.runs("job-1", steps=10)
    outcome = finetune("events", "--json")
    assert [event["seq"] for event in outcome.lines] == list(range(1, 16))


def test_events_of_a_job_after_a_position_and_of_a_type(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.runs("job-1")
    daemon.runs("job-2")
    outcome = finetune("events", "job-2", "--after", "9", "--type", "job.progress", "--limit", "2", "--json")
    assert [(event["stream"], event["seq"]) for event in outcome.lines] == [
        ("job/job-2", 13),
        ("job/job-2", 14),
    ]


def test_events_read_as_lines(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.runs("job-1")
    first, *_, last = finetune("events", "job-1").out.splitlines()
    assert first.split()[3:] == ["job-1", "job.submitted", "uid:1000", "submitted"]
    assert "job.succeeded" in last
    assert "current_step=2 total_steps=3 loss=0.5" in finetune("events", "job-1").out


def test_following_events_without_a_position_begins_at_the_head(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.runs("job-1")

    def something_happens() -> None:
        daemon.happens("job-2", "job.deleted")

    daemon.on_stream = something_happens
    outcome = finetune("events", "--follow", "--limit", "1", "--json")
    assert [event["seq"] for event in outcome.lines] == [9]


def test_following_events_goes_on_after_a_lost_connection(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.runs("job-1")
    daemon.cut_after = 3
    outcome = finetune("events", "job-1", "--follow", "--limit", "8", "--json")
    assert [event["seq"] for event in outcome.lines] == list(range(1, 9))
    assert "Connection lost" in outcome.err


def test_following_a_log_that_was_put_back_says_so(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.reset_next = True
    outcome = finetune("events", "--follow", "--after", "100")
    assert outcome.code == 6
    assert "without --after" in outcome.err


# ---- models, kinds, devices, tokens --------------------------------------------------------------------------

MODEL = {
    "id": "tiny", "object": "model", "created": 1_790_000_000, "owned_by": "finetuned", "path": "/m/tiny",
    "stands_for": None, "fine_tuned_model": None, "aliases": ["bot@production"], "kind": "full", "base": None, "job": "job-9", "lineage": {"parameters": 135, "share": 0.123456},
}  # fmt: skip


def test_models_alone_lists_them(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.models.append(MODEL)
    assert "/m/tiny" in finetune("models").out
    assert finetune("models", "--json").json["data"] == [MODEL]
    assert finetune("models", "list", "--json").json["data"] == [MODEL]


def test_no_models_says_how_to_make_one(daemon: FakeDaemon, finetune: Run) -> None:
    outcome = finetune("models")
    assert (outcome.code, outcome.out) == (0, "")
    assert "import-gguf" in outcome.err


def test_a_model_is_shown_with_its_lineage(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.models.append(MODEL)
    assert finetune("models", "show", "tiny", "--json").json == MODEL
    shown = finetune("models", "show", "tiny").out
    assert "job-9" in shown
    assert "0.1235" in shown
    assert finetune("models", "show", "none").code == 3


def test_a_model_is_removed_by_name(daemon: FakeDaemon, finetune: Run) -> None:
    assert "its files stay" in finetune("models", "rm", "tiny").out
    assert daemon.requests[-1][:2] == ("DELETE", "/v1/models/tiny")
    assert finetune("models", "rm", "tiny", "--json").json["deleted"] is True


def test_importing_a_gguf_submits_a_job(daemon: FakeDaemon, finetune: Run, tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF")
    outcome = finetune("models", "import-gguf", str(file), "--name", "tiny", "--dtype", "bfloat16", "--watch")
    assert outcome.code == 0
    assert submitted(daemon) == {
        "kind": "import-gguf",
        "params": {"file": str(file), "name": "tiny", "dtype": "bfloat16"},
        "name": "import tiny",
    }
    assert "job-1 succeeded" in outcome.out


def test_importing_without_watching_prints_the_job(daemon: FakeDaemon, finetune: Run, tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF")
    assert finetune("models", "import-gguf", str(file), "--name", "tiny", "--json").json["id"] == "job-1"


def test_kinds_lists_kinds_and_the_parameters_of_one(daemon: FakeDaemon, finetune: Run) -> None:
    assert "Fine-tunes." in finetune("kinds").out
    assert finetune("kinds", "--json").json["data"][0]["name"] == "sft"
    shown = finetune("kinds", "sft").out
    assert "(required)" in shown
    assert "one of messages, text" in shown
    assert "a JSON list of objects" in shown
    assert finetune("kinds", "sft", "--json").json["params_schema"]["required"] == ["model", "dataset"]


def test_devices_are_listed_with_their_holders(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.devices = [
        {"id": "cpu:0", "kind": "cpu", "name": "CPU", "memory_bytes": 24e9, "holder": None},
        {
            "id": "cpu:1",
            "kind": "cpu",
            "name": "CPU",
            "memory_bytes": 24e9,
            "holder": {"job": "job-1", "attempt": 2},
        },
    ]
    shown = finetune("devices").out
    assert "free" in shown
    assert "job-1 attempt 2" in shown
    assert len(finetune("devices", "--json").json["data"]) == 2


def test_a_token_is_alone_on_stdout_so_that_a_script_can_keep_it(daemon: FakeDaemon, finetune: Run) -> None:
    outcome = finetune("tokens", "create", "--scope", "read", "--name", "ci")
    assert outcome.out == "ft_1_secret\n"
    assert "not shown again" in outcome.err
    assert daemon.requests[-1][2] == {"scope": "read", "name": "ci"}
    assert finetune("tokens", "create", "--scope", "admin", "--json").json["token"] == "ft_1_secret"


def test_tokens_are_listed_and_revoked(daemon: FakeDaemon, finetune: Run) -> None:
    assert "finetune tokens create" in finetune("tokens", "list").err
    finetune("tokens", "create", "--scope", "read")
    assert "tok-1" in finetune("tokens", "list").out
    assert "token" not in finetune("tokens", "list", "--json").json["data"][0]
    assert "revoked" in finetune("tokens", "revoke", "tok-1").out
    assert daemon.requests[-1][:2] == ("DELETE", "/v1/tokens/tok-1")
    assert finetune("tokens", "revoke", "tok-1", "--json").json["revoked"] is True


# ---- the log -----------------------------------------------------------------------------------------------


def test_the_daemon_verifies_its_log(daemon: FakeDaemon, finetune: Run) -> None:
    outcome = finetune("log", "verify")
    assert (outcome.code, outcome.out) == (0, "3 events, nothing wrong. Head: 3 ab\n")
    daemon.verify = {
        "ok": False,
        "events": 3,
        "head": {"seq": 3, "hash": "ab"},
        "problems": ["Event 2 was changed."],
    }
    assert finetune("log", "verify").code == 1
    assert finetune("log", "verify", "--json").json["ok"] is False
    outcome = finetune("log", "verify")
    assert "Event 2 was changed." in outcome.out
    assert "backup" in outcome.err


def test_the_daemon_rebuilds_and_backs_up_its_log(
    daemon: FakeDaemon, finetune: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert finetune("log", "rebuild").out == "jobs: 3 rows, equal\n"
    assert finetune("log", "rebuild", "--json").json["equal"] is True
    monkeypatch.chdir(tmp_path)
    assert finetune("log", "backup", "copy.sqlite").out.startswith(
        f"{tmp_path}/copy.sqlite: 4.1 kB, up to event 3"
    )
    assert finetune("log", "backup", "c", "--json").json["bytes"] == 4096


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """A state directory whose log has one event."""

    async def fill() -> None:
        async with store.open_log(tmp_path / "events.sqlite") as log:
            await log.execute(lambda _world: decisions.daemon_started("0", 1))

    anyio.run(fill)
    return tmp_path


def test_without_a_daemon_the_log_is_verified_rebuilt_and_copied_where_it_lies(
    finetune: Run, state_dir: Path
) -> None:
    assert finetune("log", "verify", "--state-dir", str(state_dir), "--json").json["events"] == 1
    assert finetune("log", "rebuild", "--state-dir", str(state_dir), "--json").json["equal"] is True
    copy = state_dir / "copy.sqlite"
    backup = finetune("log", "backup", str(copy), "--state-dir", str(state_dir), "--json")
    assert backup.json["path"] == str(copy)
    assert copy.stat().st_size == backup.json["bytes"]
    again = finetune("log", "backup", str(copy), "--state-dir", str(state_dir))
    assert again.code == 4
    assert "exists already" in again.err


def test_an_edited_log_does_not_verify(finetune: Run, state_dir: Path) -> None:
    with sqlite3.connect(state_dir / "events.sqlite") as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("UPDATE events SET actor = 'somebody'")
    connection.close()
    assert finetune("log", "verify", "--state-dir", str(state_dir)).code == 1


def test_a_directory_without_a_log_is_not_found_and_nothing_is_made_in_it(
    finetune: Run, tmp_path: Path
) -> None:
    assert finetune("log", "verify", "--state-dir", str(tmp_path)).code == 3
    assert list(tmp_path.iterdir()) == []


def test_a_rebuild_is_refused_while_a_daemon_runs(finetune: Run, state_dir: Path) -> None:
    hold = (
        "import anyio, sys; from finetuned import store\n"
        "async def main():\n"
        "    async with store.open_log(anyio.Path(sys.argv[1])._path):\n"
        "        print('open', flush=True); await anyio.sleep_forever()\n"
        "anyio.run(main)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(state_dir / "events.sqlite")], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        outcome = finetune("log", "rebuild", "--state-dir", str(state_dir))
        other.kill()
    assert outcome.code == 4
    assert "leave --state-dir out" in outcome.err


@pytest.mark.parametrize("filters", [("--state", "running"), ("--kind", "dpo"), ("--name", "mine")])
def test_ls_without_a_match_says_so_and_not_that_there_are_no_jobs(
    daemon: FakeDaemon, finetune: Run, filters: tuple[str, str]
) -> None:
    daemon.answers["GET", "/v1/jobs"] = {"object": "list", "data": [], "has_more": False}
    outcome = finetune("ls", *filters)
    assert outcome.code == 0
    assert "No job matches." in outcome.err
    assert "finetune run" not in outcome.err


@pytest.mark.parametrize("noun", ["datasets", "templates", "tokens", "secrets", "models"])
def test_a_noun_lists_by_itself_and_under_either_name(daemon: FakeDaemon, finetune: Run, noun: str) -> None:
    daemon.answers["GET", f"/v1/{noun}"] = {"object": "list", "data": [], "has_more": False}
    for arguments in ([noun, "--json"], [noun, "ls", "--json"], [noun, "list", "--json"]):
        assert finetune(*arguments).json == {"data": [], "has_more": False}
    assert finetune(noun).err.startswith("No ")


def test_show_has_what_was_asked_for_beside_the_parameters(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.jobs["job-1"] = a_job(
        "job-1",
        template="nightly@2",
        secrets={"HF_TOKEN": "secret:hf"},
        metadata={"team": "nlp"},
        datasets={"dataset": {"name": "rows", "version": "ab12", "path": "/state/rows"}},
        estimate={"duration_s": 300.0, "device_bytes": 2_000_000_000, "disk_bytes": None},
    )
    lines = [" ".join(line.split()) for line in finetune("show", "job-1").out.splitlines()]
    assert "template nightly@2" in lines
    assert "secret HF_TOKEN secret:hf" in lines
    assert "metadata team nlp" in lines
    assert "dataset dataset rows@ab12" in lines
    assert "estimate duration 5 min 00 s, device 2.0 GB" in lines
    daemon.jobs["job-1"]["estimate"] = {"duration_s": None}
    assert "estimate" not in finetune("show", "job-1").out


def test_a_name_cannot_speak_to_the_terminal(daemon: FakeDaemon, finetune: Run) -> None:
    name = "a\x1b]0;owned\x07\x1b[2J\x00b"
    daemon.runs("job-1")
    daemon.jobs["job-1"] |= {"name": name, "cancel_reason": name, "metadata": {name: name}}
    for arguments in (["ls"], ["show", "job-1"], ["ls", "--json"], ["show", "job-1", "--json"]):
        outcome = finetune(*arguments)
        assert outcome.code == 0
        assert not any(ord(each) < 0x20 and each != "\n" for each in outcome.out)
    assert "␛[2J␀b" in finetune("show", "job-1").out
    daemon.answers["GET", "/v1/jobs/job-2"] = (
        404,
        {"error": {"code": "not_found", "message": f"There is no {name}.", "param": None}},
    )
    outcome = finetune("show", "job-2")
    assert outcome.code == 3
    assert "\x1b" not in outcome.err
