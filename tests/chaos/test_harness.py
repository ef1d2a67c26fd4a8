"""The harness is itself held to finding what it looks for, and to a small run from end to end."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.chaos import run
from tests.chaos.clock import Clock
from tests.chaos.full_disk import met
from tests.chaos.history import FAILED, OK, History, Operation
from tests.chaos.processes import TwinWatch, marked
from tests.chaos.report import Row, Table, all_of, below, none_of, some
from tests.chaos.scenario import Scenario
from tests.chaos.server import Server
from tests.chaos.survivors import died, figures_of, lived_over
from tests.chaos.trainer_kills import half_made, newest_whole, wrongly_resumed
from tests.chaos.watcher import Body, Watcher, compare
from tests.chaos.world import overlapping

from finetuned_sdk import manifest


def event(seq: int, kind: str, stream: str = "job/job-a", **data: Any) -> dict[str, Any]:
    return {"seq": seq, "type": kind, "stream": stream, "actor": "uid:0", "data": data}


def submitted(seq: int, job: str, name: str) -> dict[str, Any]:
    return event(seq, "job.submitted", f"job/{job}", name=name)


def wrong(operation: Operation, *events: Mapping[str, Any]) -> list[str]:
    history = History()
    history.invoke(operation)
    return history.figures(events)[1]


def test_an_acknowledged_submission_that_the_log_lacks_is_found() -> None:
    operation = Operation("submit", "key", job="job-a", name="op", outcome=OK)
    assert wrong(operation)
    assert wrong(operation, submitted(1, "job-b", "op"))


def test_a_submission_of_unknown_outcome_may_be_there_once_and_not_twice() -> None:
    operation = Operation("submit", "key", name="op")
    assert not wrong(operation)
    assert not wrong(operation, submitted(1, "job-a", "op"))
    assert wrong(operation, submitted(1, "job-a", "op"), submitted(2, "job-b", "op"))


def test_a_refused_submission_that_is_in_the_log_is_found() -> None:
    assert wrong(Operation("submit", "key", name="op", outcome=FAILED), submitted(1, "job-a", "op"))


def test_an_acknowledged_cancellation_that_the_log_lacks_is_found() -> None:
    operation = Operation("cancel", "key", job="job-a", outcome=OK)
    assert wrong(operation, submitted(1, "job-a", "op"))


def test_an_attempt_that_begins_before_the_last_one_ended_is_found() -> None:
    starts = [event(number, "attempt.starting", attempt=number) for number in (1, 2)]
    assert overlapping(starts)
    assert not overlapping([starts[0], event(3, "attempt.ended", attempt=1), starts[1]])


def test_an_attempt_that_ends_twice_is_found() -> None:
    ended = event(2, "attempt.ended", attempt=1)
    assert overlapping([event(1, "attempt.starting", attempt=1), ended, ended])


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ([1, 2, 3], (0, 0, 0)),
        ([1, 3], (1, 0, 0)),
        ([1, 2, 2, 3], (0, 1, 0)),
        ([2, 1, 3], (0, 0, 1)),
        ([1, 2, 3, 4], (0, 0, 1)),
    ],
)
def test_a_watcher_that_missed_or_doubled_something_is_found(
    seen: list[int], expected: tuple[int, int, int], tmp_path: Path
) -> None:
    watcher = Watcher(tmp_path / "s", random.Random(1))
    watcher.seen = [(seq, f'{{"seq": {seq}}}'.encode()) for seq in seen]
    assert compare([watcher], [{"seq": seq} for seq in (1, 2, 3)], 3)[:3] == expected


def test_an_event_that_a_watcher_was_shown_otherwise_is_found(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path / "s", random.Random(1))
    watcher.seen = [(1, b'{"seq": 1, "type": "other"}')]
    assert compare([watcher], [{"seq": 1}], 1)[2] == 1


def test_chunks_are_put_together_wherever_they_are_cut() -> None:
    data = b"5\r\nhello\r\n7\r\n, world\r\n"
    for cut in range(len(data)):
        body = Body()
        body.begin(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked")
        assert body.feed(data[:cut]) + body.feed(data[cut:]) == b"hello, world"


@contextmanager
def sleeping(mark: str) -> Iterator[int]:
    code = "print(flush=True); import time; time.sleep(600)"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "FINETUNED_ATTEMPT": mark},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


def test_two_attempts_of_one_job_that_live_at_once_are_found() -> None:
    job = f"job-of-{os.getpid()}"
    watch = TwinWatch(lambda: {job})
    with ExitStack() as stack:
        first = stack.enter_context(sleeping(f"{job}/1/fence"))
        stack.enter_context(sleeping(f"{job}-other/2/fence"))
        watch.look()
        assert not watch.found
        assert [each.pid for each in marked({job})] == [first]
        stack.enter_context(sleeping(f"{job}/2/fence"))
        watch.look()
        assert watch.found


def test_a_checkpoint_counts_as_half_made_until_its_manifest_is_there(tmp_path: Path) -> None:
    assert half_made(tmp_path, "checkpoint-1") is None
    written = tmp_path / "work" / "checkpoint-1"
    written.mkdir(parents=True)
    assert half_made(tmp_path, "checkpoint-1") == "while its files were written"
    (tmp_path / "checkpoints").mkdir()
    moved = written.rename(tmp_path / "checkpoints" / "checkpoint-1")
    assert half_made(tmp_path, "checkpoint-1") == "between its move and its manifest"
    (moved / "manifest.json").touch()
    assert half_made(tmp_path, "checkpoint-1") is None


def whole(attempts: Path, number: int, step: int) -> Path:
    path = attempts / str(number) / "checkpoints" / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "weights").write_bytes(b"0" * step)
    manifest.seal(path)
    return path


def test_a_trainer_that_goes_on_from_any_but_the_newest_whole_checkpoint_is_found(tmp_path: Path) -> None:
    assert newest_whole(tmp_path) is None
    older, newest, damaged = whole(tmp_path, 1, 9), whole(tmp_path, 2, 10), whole(tmp_path, 2, 11)
    (damaged / "weights").write_bytes(b"1" * 11)
    (tmp_path / "2" / "checkpoints" / "checkpoint-12").mkdir()
    assert newest_whole(tmp_path) == newest
    assert wrongly_resumed(str(newest), newest) is None
    for other in (str(older), str(damaged), None):
        assert wrongly_resumed(other, newest)
    assert wrongly_resumed(None, None)
    (newest / "weights").unlink()
    assert wrongly_resumed(str(newest), newest)


def attempts_over_a_restart(outcome: str, **params: Any) -> list[dict[str, Any]]:
    """A job's attempt that tells of a step before and after its daemon starts anew, and then ends."""
    return [
        event(1, "job.submitted", params=params),
        event(2, "daemon.started", "daemon"),
        event(3, "attempt.started", attempt=1),
        event(4, "job.progress", current_step=1),
        event(5, "daemon.started", "daemon"),
        event(6, "job.progress", current_step=2),
        event(7, "attempt.ended", attempt=1, outcome=outcome, cause="it is gone"),
    ]


def test_an_attempt_lives_over_a_kill_only_if_it_tells_of_a_step_afterwards_and_does_not_die() -> None:
    log = attempts_over_a_restart("cancelled")
    assert lived_over(log) == 1
    assert lived_over([each for each in log if each["seq"] != 6]) == 0
    assert lived_over([each for each in log if each["seq"] != 5]) == 0
    assert lived_over(attempts_over_a_restart("lost")) == 0
    assert not figures_of([[]])[0].holds


@pytest.mark.parametrize("outcome", ["lost", "crashed"])
def test_a_healthy_attempt_that_dies_is_found_and_one_that_was_told_to_crash_is_none(outcome: str) -> None:
    assert died(attempts_over_a_restart(outcome))
    assert not died(attempts_over_a_restart(outcome, crash_at=2))
    assert not died(attempts_over_a_restart("cancelled"))
    never_up = [each for each in attempts_over_a_restart(outcome) if each["type"] != "attempt.started"]
    assert not died(never_up)


class Paused(Server):
    """A server whose one job is paused, and goes on or does not when it is asked to."""

    def __init__(self, *, obeys: bool) -> None:
        super().__init__(environment={})
        self._state, self._obeys = "paused", obeys

    def jobs(self) -> list[dict[str, Any]]:
        return [{"id": "job-a", "state": self._state, "wait_reason": None}]

    def request(self, method: str, path: str, body: object = None, timeout: float = 60) -> tuple[int, Any]:
        assert (method, path, body, timeout) == ("POST", "/v1/jobs/job-a/resume", {}, 60)
        self._state = "succeeded" if self._obeys else "paused"
        return 200, {}


@pytest.mark.parametrize("obeys", [True, False])
def test_a_paused_job_that_does_not_go_on_when_it_is_resumed_is_found(obeys: bool) -> None:
    with Paused(obeys=obeys) as server:
        assert bool(server.settle(0.5)) != obeys


def test_attempts_that_met_a_full_disk_are_counted_and_none_does_not_hold() -> None:
    ended = event(1, "attempt.ended", attempt=1, outcome="crashed", failure="disk_full")
    assert met([ended, event(2, "attempt.ended", attempt=2, outcome="crashed", failure="crash")]) == 1
    assert not some("attempts", met([])).holds
    assert some("attempts", met([ended])).holds


def test_a_stepped_clock_moves_the_wall_clock_and_no_other(tmp_path: Path) -> None:
    try:
        clock = Clock(tmp_path)
    except OSError as error:
        pytest.skip(str(error))
    clock.step(-7200)
    code = "import time; print(time.time(), time.monotonic())"
    environment = {**os.environ, **clock.environment}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    wall, monotonic = map(float, done.stdout.split())
    assert -7300 < wall - time.time() < -7100
    assert abs(monotonic - time.monotonic()) < 100


def test_a_row_without_figures_and_one_with_a_figure_that_misses_do_not_hold() -> None:
    assert not Row("a", "nothing").holds
    assert Row("a", "something", [none_of("lost", [])]).holds
    for figure in (
        none_of("lost", ["it"]),
        all_of("found", 1, 2),
        all_of("found", 0, 0),
        below("s", 2.0, 2.0),
    ):
        assert not Row("a", "something", [none_of("gaps", 0), figure]).holds
    assert below("s", 2.0, 2.0, is_demanded=False).holds


def test_a_scenario_that_breaks_off_does_not_hold(tmp_path: Path) -> None:
    def broken(_: object) -> Row:
        raise TimeoutError("nothing came")

    row = Scenario(name="broken", full=1, run=broken).carry_out(scale=1, seed=1, scratch=tmp_path)
    assert not row.holds
    assert not Table([row], seed=1, scale=1).holds
    assert "nothing came" in Table([row], seed=1, scale=1).text()


def test_a_scenario_that_was_not_run_is_named_and_does_not_make_a_table_hold() -> None:
    skipped = Row("a", "not run: it cannot be", skipped=True)
    assert not Table([skipped], seed=1, scale=1).holds
    table = Table([skipped, Row("b", "something", [none_of("lost", [])])], seed=1, scale=1)
    assert table.holds
    assert table.verdict == "every figure holds; not run: a"
    assert "SKIP not run" in table.text()


@pytest.mark.crash
def test_a_small_run_of_the_harness_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = tmp_path / "table.json"
    chosen = ["--only", "daemon-kills", "--only", "start-races"]
    code = run.main([*chosen, "--scale", "0", "--seed", "3", "--markdown", "--json", str(result)])
    assert code == 0, capsys.readouterr().out
    assert result.read_text(encoding="utf-8").count('"holds": true') > 10
    assert "| `daemon-kills` | 4 SIGKILLs" in capsys.readouterr().out
