from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.acceptance.cli.conftest import Run
from tests.acceptance.cli.fake_daemon import FakeDaemon

DEADLINE = 30  # seconds


@pytest.fixture(autouse=True)
def unfolding(daemon: FakeDaemon) -> None:
    """Who watches has looked a job up when it was submitted: its story is still to come."""
    daemon.unfolds = True


def seqs(lines: list[dict[str, object]]) -> list[object]:
    return [line["seq"] for line in lines if "stream" in line]


def test_watch_begins_with_the_job_as_it_is(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.runs("job-1", steps=3, ends=False)
    figures = daemon.events[-1]["data"]
    now = {"state": "queued", "phase": "training", "progress": figures, "seq": len(daemon.events)}
    daemon.jobs["job-1"] |= now
    daemon.ends("job-1")
    outcome = finetune("watch", "job-1")
    assert outcome.code == 0
    assert daemon.cursors == ["7"]
    first, second, *_ = outcome.out.splitlines()
    assert first.endswith("queued: training")
    assert "step 3/3" in second
    assert outcome.out.count("3/3") == 1


def test_watching_an_ended_job_only_says_how_it_ended(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.unfolds = False
    daemon.runs("job-1")
    outcome = finetune("watch", "job-1", "--json")
    assert [line["id"] for line in outcome.lines] == ["job-1"]
    assert daemon.cursors == []


def test_watch_prints_each_event_once_and_the_job_last(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.runs("job-1")
    outcome = finetune("watch", "job-1", "--json")
    assert outcome.code == 0
    assert seqs(outcome.lines) == list(range(2, 9))
    assert outcome.lines[-1]["object"] == "job"
    assert outcome.lines[-1]["state"] == "succeeded"


def test_a_connection_lost_in_the_middle_shows_no_event_twice_and_none_is_missing(
    daemon: FakeDaemon, finetune: Run
) -> None:
    daemon.runs("job-1", steps=5)
    daemon.cut_after = 4
    outcome = finetune("watch", "job-1", "--json")
    assert outcome.code == 0
    assert seqs(outcome.lines) == list(range(2, 11))
    assert daemon.cursors == ["1", "5"]
    assert "Connection lost (the stream broke off)" in outcome.err


def test_a_heartbeat_moves_the_cursor_that_a_reconnect_begins_at(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.runs("job-2", ends=False)  # seven events of another job
    daemon.runs("job-1", ends=False)
    daemon.cut_after, daemon.beat_before_cut = 6, 14
    daemon.ends("job-1")
    # The end is the seventh event behind the submission, so the cut comes before it and after the heartbeat.
    outcome = finetune("watch", "job-1", "--json")
    assert outcome.code == 0
    assert daemon.cursors == ["8", "14"]
    assert seqs(outcome.lines) == list(range(9, 16))


def test_watch_goes_on_after_the_daemon_was_restarted(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.runs("job-1", ends=False)
    daemon.while_away = lambda: daemon.ends("job-1")
    daemon.on_stream = daemon.restart_soon
    outcome = finetune("watch", "job-1")
    assert outcome.code == 0
    assert "Connection lost" in outcome.err
    assert "Connected again" in outcome.err
    assert "job-1 succeeded after 1 min 30 s" in outcome.out
    assert outcome.out.count("running") == 1


def test_a_daemon_that_goes_between_the_last_event_and_the_job_is_waited_for(
    daemon: FakeDaemon, finetune: Run
) -> None:
    daemon.runs("job-1")
    daemon.lost_ends = 2  # aiohttp itself asks a second time where the connection had been used before
    outcome = finetune("watch", "job-1")
    assert outcome.code == 0
    assert "Connection lost" in outcome.err
    assert "job-1 succeeded" in outcome.out


def test_after_a_log_was_put_back_the_job_is_looked_up_again(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.runs("job-1")
    daemon.reset_next = True
    outcome = finetune("watch", "job-1", "--json")
    assert outcome.code == 0
    assert daemon.cursors == ["1"]
    assert [path for _, path, _ in daemon.requests].count("/v1/jobs/job-1") == 2
    assert "earlier state" in outcome.err
    assert outcome.lines[-1]["state"] == "succeeded"


def test_the_exit_code_of_watch_says_that_the_job_failed(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.runs("job-1", ends=False)
    daemon.ends(
        "job-1", "failed", error={"code": "bad_dataset", "message": "Row 3 has no answer; give it one."}
    )
    outcome = finetune("watch", "job-1")
    assert outcome.code == 1
    assert outcome.out.count("Row 3 has no answer; give it one.") == 1
    assert "finetune retry job-1" in outcome.out


def test_the_exit_code_of_watch_says_that_the_job_was_cancelled(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.runs("job-1", ends=False)
    daemon.happens("job-1", "job.cancel_requested", {"reason": "no need"})
    daemon.ends("job-1", "cancelled")
    outcome = finetune("watch", "job-1")
    assert outcome.code == 1
    assert "cancelling: no need" in outcome.out


def test_a_pipe_gets_lines_without_escape_sequences(daemon: FakeDaemon, finetune: Run) -> None:
    daemon.runs("job-1", ends=False)
    daemon.happens("job-1", "evaluation.recorded", {"name": "validation", "metrics": {"exact_match": 0.5}})
    daemon.ends("job-1", result={"train_loss": 0.25, "model": "tiny-1", "adapter_path": "/a"})
    outcome = finetune("watch", "job-1")
    assert "\x1b" not in outcome.out + outcome.err
    assert "starting: attempt 1 on cpu:0" in outcome.out
    assert "training" in outcome.out
    assert "step 3/3  100 %  loss 0.3333" in outcome.out
    assert "validation: exact_match 0.5" in outcome.out
    assert "train_loss 0.25" in outcome.out
    assert "finetune models show tiny-1" in outcome.out


def test_watching_a_job_that_is_not_there_is_not_found(daemon: FakeDaemon, finetune: Run) -> None:
    outcome = finetune("watch", "job-0")
    assert outcome.code == 3
    assert "finetune ls" in outcome.err
    assert daemon.cursors == []


@contextmanager
def on_a_terminal(
    *arguments: str, columns: int, **environment: str
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """``finetune`` in a process of its own whose output is a terminal."""
    master, slave = pty.openpty()
    env = {**os.environ, "COLUMNS": str(columns), "LINES": "24", "TERM": "xterm", **environment}
    with subprocess.Popen(
        [sys.executable, "-m", "finetuned.cli.main", *arguments], stdout=slave, stderr=slave, env=env
    ) as process:
        os.close(slave)
        try:
            yield process, master
        finally:
            process.kill()
            os.close(master)


def read_until(master: int, wanted: bytes) -> bytes:
    seen = b""
    while wanted not in seen:
        try:
            block = os.read(master, 65536)
        except OSError:  # the other end of a terminal is gone
            break
        seen += block
    return seen


def read_rest(master: int) -> bytes:
    return read_until(master, b"\0 never comes \0")


def plain(screen: bytes) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.decode())


def test_a_terminal_shows_a_bar_with_figures_and_then_the_end(daemon: FakeDaemon) -> None:
    daemon.runs("job-1", ends=False)
    daemon.happens("job-1", "job.advice", {"setting": "packing", "message": "Try packing."})
    with on_a_terminal("watch", "job-1", columns=100) as (process, master):
        seen = read_until(master, b"3/3")
        daemon.ends("job-1")
        seen += read_rest(master)
        assert process.wait(DEADLINE) == 0
    screen = plain(seen)
    assert "━" in screen
    assert "100% 3/3 0:01" in screen
    assert "running · training" in screen
    assert "loss 0.3333" in screen
    assert "advice: Try packing." in screen
    assert "job-1 succeeded" in screen


def test_a_narrow_terminal_is_not_written_past_its_edge(daemon: FakeDaemon) -> None:
    daemon.runs("job-1", ends=False)
    with on_a_terminal("watch", "job-1", columns=40, NO_COLOR="1") as (process, master):
        seen = read_until(master, b"3/3")
        daemon.ends("job-1")
        seen += read_rest(master)
        assert process.wait(DEADLINE) == 0
    assert not re.search(rb"\x1b\[[0-9;]*3[0-9]m", seen)
    bars = [line for line in re.split(r"[\r\n]+", plain(seen)) if "3/3" in line or "·" in line]
    assert bars
    assert max(map(len, bars)) <= 40


def test_a_terminal_says_that_the_connection_is_lost(daemon: FakeDaemon) -> None:
    daemon.runs("job-1", ends=False)
    with on_a_terminal("watch", "job-1", columns=100) as (process, master):
        seen = read_until(master, b"3/3")
        daemon.stop()
        seen += read_until(master, b"connection lost")
        daemon.ends("job-1")
        daemon.start()
        seen += read_rest(master)
        assert process.wait(DEADLINE) == 0
    assert "the job goes on" in plain(seen)


def test_ctrl_c_detaches_and_says_how_to_come_back_and_how_to_cancel(daemon: FakeDaemon) -> None:
    daemon.runs("job-1", ends=False)
    with on_a_terminal("watch", "job-1", columns=100) as (process, master):
        read_until(master, b"3/3")
        process.send_signal(signal.SIGINT)
        screen = plain(read_rest(master))
        assert process.wait(DEADLINE) == 130
    assert "Detached; job-1 goes on." in screen
    assert "finetune cancel job-1" in screen
    assert "Traceback" not in screen
    assert not any("/cancel" in path for _, path, _ in daemon.requests)


def test_submitting_and_watching_is_one_command(daemon: FakeDaemon, finetune: Run, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("{}\n")
    outcome = finetune("run", "sft", "--model", "tiny", "--data", str(data), "--watch", "--json")
    assert outcome.code == 0
    assert outcome.lines[0]["object"] == "job"
    assert outcome.lines[-1]["state"] == "succeeded"
    assert seqs(outcome.lines) == list(range(2, 9))
