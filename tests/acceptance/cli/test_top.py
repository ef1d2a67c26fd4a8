"""``top``: live on a terminal, look after look in a pipe."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from rich.console import Console
from tests.acceptance.cli.conftest import Run
from tests.acceptance.cli.fake_daemon import FakeDaemon, a_job
from tests.acceptance.cli.test_machine import SYSTEM, WORKER
from tests.acceptance.cli.test_results import EVAL, LOSS, curves

from finetuned.cli import dashboard, top
from finetuned.cli.shapes import Look

DEADLINE = 30  # seconds


@pytest.fixture
def busy(daemon: FakeDaemon) -> FakeDaemon:
    daemon.answers["GET", "/v1/system"] = SYSTEM
    daemon.answers["GET", "/v1/workers"] = {"data": [WORKER], "has_more": False}
    progress = {"progress": 50.0, "loss": 0.25, "eta_seconds": 65.0}
    daemon.jobs["job-0"] = a_job("job-0", state="succeeded")
    daemon.jobs["job-2"] = a_job("job-2", queue_position=1, wait_reason="behind job-1")
    daemon.jobs["job-1"] = a_job("job-1", state="running", devices=["gpu:GPU-1"], progress=progress)
    return daemon


def a_look(daemon: FakeDaemon) -> Look:
    jobs = list(reversed(daemon.jobs.values()))
    return {"at": "2026-11-22T12:00:00+00:00", "system": SYSTEM, "workers": [WORKER], "jobs": jobs}  # type: ignore[typeddict-item]


def drawn(found: Look, *, height: int = 40, trouble: str | None = None) -> list[str]:
    out = Console(width=160, color_system=None)
    with out.capture() as captured:
        out.print(top.screen(found, trouble=trouble, height=height))
    return captured.get().splitlines()


def test_the_screen_shows_machine_gpus_and_jobs_those_that_run_first(busy: FakeDaemon) -> None:
    lines = drawn(a_look(busy))
    text = "\n".join(lines)
    assert "cpu 25 % of 8 cores" in lines[0]
    assert "job-1 (70.0 GB)" in text
    rows = [line.split()[0] for line in lines if line.startswith("job-")]
    assert rows == ["job-1", "job-2", "job-0"]
    running = next(line for line in lines if line.startswith("job-1"))
    assert "━━━━━━────── 50 %" in running
    assert re.search(r"1:05\s+0.25\s+1.5\s+500 MB\s+gpu:GPU-1", running)
    assert "#1: behind job-1" in text
    assert lines[-1] == "q quits"


def test_a_low_screen_keeps_the_foot_and_fewer_jobs(busy: FakeDaemon) -> None:
    for number in range(50):
        busy.jobs[f"job-x{number}"] = a_job(f"job-x{number}")
    found = a_look(busy)
    lines = drawn(found, height=20, trouble="the stream broke off")
    assert len(lines) <= 20
    assert "connection lost (the stream broke off)" in lines[-1]


def test_a_bar_stays_within_its_hundred() -> None:
    assert dashboard.bar(None).plain == ""
    assert dashboard.bar(250.0).plain.startswith("━" * 12)
    assert dashboard.bar(-1.0).plain.startswith("─" * 12)


def test_in_a_pipe_each_look_is_plain_text(busy: FakeDaemon, finetune: Run) -> None:
    outcome = finetune("top", "--times", "2", "--interval", "0.5")
    assert outcome.code == 0
    assert "\x1b" not in outcome.out
    assert outcome.out.count("daemon 0.1.0") == 2


def test_as_json_each_look_is_a_line(busy: FakeDaemon, finetune: Run) -> None:
    first, second = finetune("top", "--times", "2", "--interval", "0.5", "--json").lines
    assert first["system"] == second["system"] == SYSTEM
    assert [job["id"] for job in first["jobs"]] == ["job-1", "job-2"]


def test_an_event_brings_the_next_look_forward(busy: FakeDaemon, finetune: Run) -> None:
    busy.on_stream = lambda: busy.ends("job-2", "cancelled")
    begun = time.monotonic()
    first, second = finetune("top", "--times", "2", "--interval", "3600", "--json").lines
    assert [job["state"] for job in first["jobs"]] == ["running", "queued"]
    assert [job["state"] for job in second["jobs"]] == ["running", "cancelled"]
    assert time.monotonic() - begun < DEADLINE


def test_no_daemon_is_an_error_and_no_empty_screen(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.stop()
    outcome = finetune("top")
    assert (outcome.code, outcome.out) == (6, "")


def test_a_refusal_while_it_runs_is_one_sentence(busy: FakeDaemon, finetune: Run) -> None:
    def refuse() -> None:
        told = {"code": "permission_denied", "message": "Not any more.", "param": None, "type": "t"}
        busy.refusal = (403, {"error": told})

    busy.on_stream = refuse
    outcome = finetune("top", "--interval", "0.5")
    assert (outcome.code, outcome.err) == (5, "Error: Not any more.\n")


# ---- on a terminal ---------------------------------------------------------------------------------------------


@contextmanager
def on_terminal(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """``finetune`` with a terminal of its own; the process and the terminal's other end."""
    mine, its = pty.openpty()
    command = [sys.executable, "-m", "finetuned.cli.main", *arguments]
    variables = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "140", "LINES": "40", **environment}
    with subprocess.Popen(
        command, stdin=its, stdout=its, stderr=its, env=variables, start_new_session=True
    ) as process:
        os.close(its)
        try:
            yield process, mine
        finally:
            process.kill()
            os.close(mine)


def read_until(terminal: int, wanted: bytes) -> bytes:
    """What the terminal shows up to ``wanted``; to its end for nothing."""
    seen, deadline = b"", time.monotonic() + DEADLINE
    while not wanted or wanted not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                block = os.read(terminal, 65536)
            except OSError:  # EIO: the other end was closed
                block = b""
            if not block:
                assert not wanted, seen
                break
            seen += block
    return seen


def test_on_a_terminal_it_takes_the_screen_and_gives_it_back_at_q(busy: FakeDaemon) -> None:
    with on_terminal("top") as (process, terminal):
        shown = read_until(terminal, b"q quits")
        assert b"\x1b[?1049h" in shown
        assert b"job-1" in shown
        os.write(terminal, b"q")
        rest = read_until(terminal, b"")
        assert process.wait(DEADLINE) == 0
        assert b"\x1b[?1049l" in rest
    assert busy.requests


def test_long_output_goes_through_the_pager_with_its_colours(busy: FakeDaemon) -> None:
    with on_terminal("ls", PAGER="sed 's/^/paged: /'") as (process, terminal):
        shown = read_until(terminal, b"")
        assert process.wait(DEADLINE) == 0
    assert b"paged: " in shown
    assert b"\x1b[" in shown
    assert b"job-1" in shown


def test_what_is_said_besides_comes_behind_the_pager(busy: FakeDaemon) -> None:
    with on_terminal("ls", PAGER="cat; echo the end of it") as (process, terminal):
        shown = read_until(terminal, b"")
        assert process.wait(DEADLINE) == 0
    assert shown.index(b"job-1") < shown.index(b"the end of it") < shown.index(b"--all lists every one")


@pytest.mark.parametrize(("arguments", "pager"), [(["--no-pager"], "sed s/^/paged:/"), ([], "cat"), ([], "")])
def test_no_pager_is_no_pager(busy: FakeDaemon, arguments: list[str], pager: str) -> None:
    with on_terminal("ls", *arguments, PAGER=pager) as (process, terminal):
        shown = read_until(terminal, b"")
        assert process.wait(DEADLINE) == 0
    assert b"paged" not in shown
    assert b"job-1" in shown


def test_who_leaves_the_pager_early_has_seen_enough(busy: FakeDaemon) -> None:
    for number in range(2000):
        busy.happens("job-1", "job.progress", {"current_step": number})
    with on_terminal("events", PAGER="head -n 1") as (process, terminal):
        shown = read_until(terminal, b"")
        assert process.wait(DEADLINE) == 0
    assert shown.count(b"\n") == 1
    assert b"Error" not in shown


def test_no_color_means_no_colour_on_a_terminal(busy: FakeDaemon) -> None:
    with on_terminal("ls", "--no-pager", NO_COLOR="1") as (process, terminal):
        shown = read_until(terminal, b"")
        process.wait(DEADLINE)
    assert not re.search(rb"\x1b\[[0-9;]*3[0-9]m", shown)
    assert b"job-1" in shown


def test_force_color_means_colour_in_a_pipe(
    busy: FakeDaemon, finetune: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in finetune("ls").out
    monkeypatch.delenv("FORCE_COLOR")
    assert "\x1b[" not in finetune("ls").out


def test_on_a_terminal_curves_are_drawn_over_its_width(busy: FakeDaemon) -> None:
    busy.answers["GET", "/v1/jobs/job-1/metrics"] = curves(LOSS, EVAL)
    with on_terminal("metrics", "job-1", COLUMNS="60") as (process, terminal):
        shown = read_until(terminal, b"").decode()
        assert process.wait(DEADLINE) == 0
    lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line).rstrip() for line in shown.splitlines()]
    assert lines[0].startswith("━ loss 0.125")
    assert any("┤" in line for line in lines)
    assert 50 < max(map(len, lines)) <= 60
    assert busy.requests[-1][1] == "/v1/jobs/job-1/metrics?points=120"


def test_on_a_terminal_watched_curves_stay_when_the_job_has_ended(busy: FakeDaemon) -> None:
    busy.answers["GET", "/v1/jobs/job-1/metrics"] = curves(LOSS)
    with on_terminal("metrics", "job-1", "--watch") as (process, terminal):
        read_until(terminal, b"loss")
        busy.stop()
        read_until(terminal, b"No daemon answers")
        busy.jobs["job-1"]["state"] = "succeeded"
        busy.start()
        rest = read_until(terminal, b"")
        assert process.wait(DEADLINE) == 0
    assert b"loss" in rest.rsplit(b"\x1b[2K", 1)[-1]


def test_the_screen_says_that_the_daemon_is_away_and_goes_on_with_it(busy: FakeDaemon) -> None:
    with on_terminal("top", "--interval", "0.5") as (process, terminal):
        read_until(terminal, b"q quits")
        busy.stop()
        read_until(terminal, b"connection lost")
        busy.start()
        read_until(terminal, b"q quits")
        os.write(terminal, b"q")
        read_until(terminal, b"")
        assert process.wait(DEADLINE) == 0


def test_a_terminal_without_a_screen_gets_lines(busy: FakeDaemon) -> None:
    with on_terminal("top", "--times", "1", TERM="dumb") as (process, terminal):
        shown = read_until(terminal, b"")
        assert process.wait(DEADLINE) == 0
    assert b"\x1b[?1049h" not in shown
    assert b"job-1" in shown


def test_a_job_that_runs_is_shown_however_many_came_after_it(busy: FakeDaemon, finetune: Run) -> None:
    for number in range(5):  # the fake daemon gives two a page
        busy.jobs[f"job-x{number}"] = a_job(f"job-x{number}", state="failed")
    (look,) = finetune("top", "--times", "1", "--json").lines
    assert {"job-1", "job-2"} < {job["id"] for job in look["jobs"]}
    lines = finetune("top", "--times", "1").out.splitlines()
    assert next(line for line in lines if line.startswith("job-")).startswith("job-1")
