"""Spans over the wire to a collector of our own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from finetuned.tracing import sdk


class Collector(ThreadingHTTPServer):
    """Takes spans; while ``answers`` is not set it says nothing."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = threading.Event()
        self.asked = threading.Event()
        self.paths: list[str] = []
        self.headers: list[str | None] = []
        self.names: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.set()
        self.server.answers.wait(20)
        self.server.paths.append(self.path)
        self.server.headers.append(self.headers["x-team"])
        request = ExportTraceServiceRequest.FromString(body)
        self.server.names += [
            span.name
            for of_resource in request.resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    serving = threading.Thread(target=server.serve_forever, args=(0.01,))
    serving.start()
    yield server
    server.answers.set()
    server.shutdown()
    server.server_close()
    serving.join()


@pytest.mark.parametrize("slash", ["", "/"])
def test_what_was_traced_is_sent_before_the_end(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, slash: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=training")
    collector.answers.set()
    tracing = sdk.set_up(collector.url + slash, sample_ratio=1.0)
    tracing.provider.get_tracer("test").start_span("seen").end()
    tracing.close()
    assert (collector.names, collector.paths, collector.headers) == (["seen"], ["/v1/traces"], ["training"])


def test_a_collector_that_does_not_answer_does_not_hold_up_the_end(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk, "CLOSE_S", 0.1)
    tracing = sdk.set_up(collector.url, sample_ratio=1.0)
    tracing.provider.get_tracer("test").start_span("lost").end()
    tracing.close()
    assert collector.asked.wait(20)
    assert collector.names == []  # it came back while the collector still had not answered


def test_only_the_share_that_is_wanted_is_traced(collector: Collector) -> None:
    collector.answers.set()
    tracing = sdk.set_up(collector.url, sample_ratio=0.0)
    tracing.provider.get_tracer("test").start_span("unseen").end()
    tracing.close()
    assert collector.names == []
