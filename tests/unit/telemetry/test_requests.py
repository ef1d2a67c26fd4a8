from __future__ import annotations

import time

import anyio
import anyio.lowlevel
import pytest

from finetuned.telemetry import lag as lag_module
from finetuned.telemetry.lag import LoopLag
from finetuned.telemetry.requests import BOUNDS_S, RequestRecorder


def test_requests_are_counted_by_route_method_and_status() -> None:
    recorder = RequestRecorder()
    for status in (200, 200, 404):
        recorder.record("/v1/jobs/{job_id}", "GET", status, 0.001)
    recorder.record("/v1/jobs", "POST", 201, 0.001)
    assert recorder.counts == {
        ("/v1/jobs/{job_id}", "GET", 200): 2,
        ("/v1/jobs/{job_id}", "GET", 404): 1,
        ("/v1/jobs", "POST", 201): 1,
    }


def test_a_latency_counts_in_the_first_bucket_that_holds_it() -> None:
    recorder = RequestRecorder()
    for seconds in (0.0001, 0.001, 0.0011, 99.0):
        recorder.record("/v1/jobs", "GET", 200, seconds)
    found = recorder.latencies["/v1/jobs", "GET"]
    assert found.counts[:2] == [2, 1]
    assert found.counts[len(BOUNDS_S)] == 1
    assert sum(found.counts) == 4
    assert abs(found.sum_s - 99.0022) < 1e-9


def test_a_stream_is_counted_and_not_timed() -> None:
    recorder = RequestRecorder()
    recorder.record("/v1/events", "GET", 200, None)
    assert recorder.counts == {("/v1/events", "GET", 200): 1}
    assert recorder.latencies == {}


def test_the_worst_lag_is_told_once_and_a_clock_that_is_early_is_no_lag() -> None:
    lag = LoopLag()
    for late_s in (0.001, 0.2, -0.001):
        lag.note(late_s)
    assert lag.now_s == 0.0
    assert lag.take_worst() == 0.2
    assert lag.take_worst() == 0.0
    assert lag.minute_s == 0.2  # whoever took the worst meanwhile


async def test_an_event_loop_that_was_held_up_is_late_by_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag_module, "INTERVAL_S", 0.01)
    lag = LoopLag()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lag.run)
        await anyio.lowlevel.checkpoint()  # it has begun to sleep
        time.sleep(0.2)  # noqa: ASYNC251 - what is measured
        with anyio.fail_after(20):
            while lag.now_s == 0.0:
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert lag.take_worst() >= 0.15


def test_the_worst_of_a_minute_is_forgotten_after_it() -> None:
    now = 100.0
    lag = LoopLag(clock=lambda: now)
    lag.note(0.5)
    now += 59
    lag.note(0.1)
    assert lag.minute_s == 0.5
    now += 2
    assert lag.minute_s == 0.1
    now += 60
    assert lag.minute_s == 0.0
