"""Traces as a collector gets them: requests, commands and jobs, in memory instead of over the network."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from finetuned.config import Config
from finetuned.domain import facts
from finetuned.domain.errors import ConfigError
from finetuned.testing import House, serve_house
from finetuned.tracing import traces
from finetuned.tracing.jobs import JobTracer, context
from finetuned.tracing.sdk import described, trace_to
from finetuned_events import LogFullError, LogReadError

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Traced:
    """A house that is traced, a client, and the spans so far."""

    def __init__(self, house: House, client: aiohttp.ClientSession, exporter: InMemorySpanExporter) -> None:
        self.house = house
        self.client = client
        self._exporter = exporter

    def spans(self, name: str) -> list[ReadableSpan]:
        return [each for each in self._exporter.get_finished_spans() if each.name == name]

    def span(self, name: str) -> ReadableSpan:
        (found,) = self.spans(name)
        return found


@pytest.fixture(autouse=True)
def not_blocked() -> None:
    """Here spans are exported on the event loop, at once, so that they can be looked at."""


@pytest.fixture
def open_traced(state_dir: Path, open_client: Any) -> Any:
    @asynccontextmanager
    async def opened(*, sample_ratio: float = 1.0) -> AsyncIterator[Traced]:
        exporter = InMemorySpanExporter()
        tracing = trace_to(SimpleSpanProcessor(exporter), sample_ratio=sample_ratio)
        async with (
            serve_house(state_dir, traces=tracing.traces) as house,
            open_client(house) as client,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(tracing.traces.follow, house.log, house.queries)
            yield Traced(house, client, exporter)
            tasks.cancel_scope.cancel()

    return opened


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_request_is_a_span_with_its_route_and_its_command_a_child(open_traced: Any) -> None:
    async with open_traced() as traced:
        await (await traced.client.post("/v1/jobs", json={"kind": "fake"})).json()
        request, command = traced.span("POST /v1/jobs"), traced.span("log.execute")
    assert request.kind is SpanKind.SERVER
    assert attributes(request)["http.route"] == "/v1/jobs"
    assert attributes(request)["http.response.status_code"] == 201
    assert command.parent == request.context
    assert attributes(command)["finetuned.event.types"] == ("job.submitted",)
    assert attributes(command)["code.function.name"].startswith("Commands.")
    assert attributes(command)["finetuned.event.seq"] == 2


async def test_a_request_joins_the_trace_of_its_caller(open_traced: Any) -> None:
    async with open_traced() as traced:
        await (await traced.client.get("/v1/jobs", headers={"traceparent": TRACEPARENT})).read()
        span = traced.span("GET /v1/jobs")
    assert span.context is not None
    assert span.parent is not None
    assert format_trace_id(span.context.trace_id) == "0af7651916cd43dd8448eb211c80319c"
    assert format_span_id(span.parent.span_id) == "b7ad6b7169203331"


async def test_a_broken_traceparent_begins_a_trace_of_its_own(open_traced: Any) -> None:
    async with open_traced() as traced:
        response = await traced.client.get("/v1/jobs", headers={"traceparent": "00-zz-zz-zz"})
        assert response.status == 200
        assert traced.span("GET /v1/jobs").parent is None


async def test_callers_decide_for_themselves_where_nothing_else_is_sampled(open_traced: Any) -> None:
    async with open_traced(sample_ratio=0.0) as traced:
        await (await traced.client.get("/v1/kinds")).read()
        await (await traced.client.get("/v1/jobs", headers={"traceparent": TRACEPARENT})).read()
        assert traced.spans("GET /v1/kinds") == []
        assert len(traced.spans("GET /v1/jobs")) == 1


async def test_a_refusal_is_no_error_and_a_full_disk_is_one(
    open_traced: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_traced() as traced:
        job_id = await traced.house.accept_job()
        await (await traced.client.post(f"/v1/jobs/{job_id}/cancel")).read()
        assert (await traced.client.post(f"/v1/jobs/{job_id}/cancel")).status == 409
        refused = traced.spans("POST /v1/jobs/{job_id}/cancel")[-1]
        assert refused.status.status_code is StatusCode.UNSET
        assert attributes(refused)["finetuned.job.id"] == job_id
        refusal = traced.spans("log.execute")[-1]
        assert attributes(refusal)["error.type"] == "job_ended"

        def full(*_: object, **__: object) -> None:
            raise LogFullError

        monkeypatch.setattr(traced.house.log, "_submit", full)
        assert (await traced.client.post("/v1/jobs", json={"kind": "fake"})).status == 507
        monkeypatch.undo()
        assert traced.span("POST /v1/jobs").status.status_code is StatusCode.ERROR
        assert traced.spans("log.execute")[-1].status.status_code is StatusCode.ERROR


async def test_what_machines_ask_again_and_again_is_not_traced(open_traced: Any) -> None:
    async with open_traced() as traced:
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await traced.client.get(path)).status == 200
            assert traced.spans(f"GET {path}") == []
        await (await traced.client.get("/nowhere")).read()
        assert attributes(traced.span("GET"))["http.response.status_code"] == 404


async def test_a_job_is_a_trace_when_it_has_ended_and_each_attempt_a_span(
    open_traced: Any, until: Callable[..., Any]
) -> None:
    async with open_traced() as traced:
        job_id = await traced.house.accept_job()
        await traced.house.start_attempt()
        await traced.house.end_attempt(job_id, error=True)
        await traced.house.start_attempt()
        assert traced.spans("job fake") == []
        await traced.house.end_attempt(job_id)
        await until(lambda: traced.spans("job fake"))
        root, attempts = traced.span("job fake"), traced.spans("attempt run")
    assert root.context == context(job_id)
    assert [attributes(each)["finetuned.attempt.outcome"] for each in attempts] == ["crashed", "succeeded"]
    assert all(each.parent == root.context for each in attempts)
    assert root.resource.attributes["service.name"] == "finetuned"


async def test_an_attempt_that_left_for_a_pause_is_no_error_and_a_failed_one_says_of_which_kind(
    open_traced: Any, until: Callable[..., Any]
) -> None:
    async with open_traced() as traced:
        job_id = await traced.house.accept_job()
        await traced.house.start_attempt()
        await traced.house.commands.pauses.pause(job_id, actor="test")
        await traced.house.report(job_id, facts.AttemptStarted(attempt=1))
        await traced.house.end_attempt(job_id, error=True)
        await traced.house.commands.pauses.resume(job_id, actor="test")
        await traced.house.start_attempt()
        await traced.house.end_attempt(job_id, error=True)
        await traced.house.start_attempt()
        await traced.house.end_attempt(job_id)
        await until(lambda: traced.spans("job fake"))
        attempts = traced.spans("attempt run")
    told = [(attributes(each).get("finetuned.attempt.failure"), each.status.is_ok) for each in attempts]
    assert told == [(None, True), ("crash", False), (None, True)]


async def test_tracing_that_is_switched_on_later_does_not_send_history(
    state_dir: Path, open_traced: Any, until: Callable[..., Any]
) -> None:
    async with serve_house(state_dir) as house:
        old = await house.accept_job()
        await house.commands.cancel(old, actor="test")
    async with open_traced() as traced:
        new = await traced.house.accept_job()
        await traced.house.commands.cancel(new, actor="test")
        await until(lambda: traced.spans("job fake"))
        assert traced.span("job fake").context == context(new)


async def test_a_job_that_was_deleted_before_it_was_traced_holds_up_nobody(
    state_dir: Path, open_traced: Any, until: Callable[..., Any]
) -> None:
    async with open_traced() as traced:
        await until(lambda: traced.house.log.head)
        first = await traced.house.accept_job()
        await traced.house.commands.cancel(first, actor="test")
        await until(lambda: traced.spans("job fake"))
    async with serve_house(state_dir) as house:  # tracing is off
        gone, stays = await house.accept_job(), await house.accept_job()
        for job_id in (gone, stays):
            await house.commands.cancel(job_id, actor="test")
        await house.commands.delete(gone, actor="test")
    async with open_traced() as traced:
        await until(lambda: traced.spans("job fake"))
        assert traced.span("job fake").context == context(stays)


async def test_a_job_that_cannot_be_traced_does_not_keep_the_next_one_from_it(
    open_traced: Any,
    until: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the exporter is broken")

    async with open_traced() as traced:
        first, second = await traced.house.accept_job(), await traced.house.accept_job()
        with monkeypatch.context() as patch:
            patch.setattr(SimpleSpanProcessor, "on_end", broken)
            await traced.house.commands.cancel(first, actor="test")
            await until(lambda: f"Job {first} could not be traced" in caplog.text)
        await traced.house.commands.cancel(second, actor="test")
        await until(lambda: traced.spans("job fake"))
        assert traced.span("job fake").context == context(second)


async def test_tracing_goes_on_after_a_log_that_could_not_be_read_for_a_while(
    open_traced: Any, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetuned.patience.FIRST_PAUSE_S", 0.01)
    failures = 0

    async def fail(*_: object, **__: object) -> None:
        nonlocal failures
        failures += 1
        raise LogReadError("The query failed: disk I/O error.")

    async with open_traced() as traced:
        job_id = await traced.house.accept_job()
        with monkeypatch.context() as patch:
            patch.setattr(JobTracer, "react", fail)
            await traced.house.commands.cancel(job_id, actor="test")
            await until(lambda: failures >= 2)
        await until(lambda: traced.spans("job fake"))


async def test_tracing_without_opentelemetry_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "finetuned.tracing.sdk")
    monkeypatch.delattr("finetuned.tracing.sdk")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError) as refused:
        async with traces.opened(Config(otel_endpoint="http://127.0.0.1:4318")):
            pass
    assert refused.value.param == "otel_endpoint"
    assert "install `finetuned[otel]`" in refused.value.message


async def test_while_tracing_is_off_nothing_is_wrapped(state_dir: Path) -> None:
    async with traces.opened(Config(state_dir=state_dir)) as off:
        assert (off.log.__name__, off.middlewares, off.jobs) == ("EventLog", (), None)


def test_the_environment_may_name_the_service() -> None:
    assert described({}).attributes["service.name"] == "finetuned"
    named = described({"OTEL_SERVICE_NAME": "gpu-box"})
    assert named.attributes["service.name"] != "finetuned"
