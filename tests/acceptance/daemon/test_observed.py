"""A real daemon looked at while it works: its workers, its metrics, and the traces that it sends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client import parser
from tests.acceptance.daemon.process import Daemon, eventually, running


class Collector(ThreadingHTTPServer):
    """Takes spans over OTLP and remembers their names."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.names: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for of_resource in request.resource_spans:
            for of_scope in of_resource.scope_spans:
                self.server.names += [span.name for span in of_scope.spans]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield server
        server.shutdown()
        serving.join()


def metric(daemon: Daemon, name: str, **labels: str) -> float | None:
    for family in parser.text_string_to_metric_families(daemon.ok("GET", "/metrics")):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return None


def test_a_worker_is_seen_with_what_its_processes_use_until_it_has_ended() -> None:
    with running() as daemon:
        job = daemon.submit(steps=100_000, step_seconds=0.01)
        daemon.wait_for(job, "running")

        def worker() -> dict[str, object] | None:
            return next(iter(daemon.ok("GET", "/v1/workers")["data"]), None)

        eventually(lambda: (found := worker()) is not None and found["cpu"] is not None)
        seen = worker()
        assert seen is not None
        assert (seen["job"], seen["purpose"], seen["state"]) == (job, "run", "running")
        assert seen["pid"] in daemon.attempt_processes(job)
        assert seen["processes"] == len(daemon.attempt_processes(job))  # the runner and the trainer
        assert metric(daemon, "finetuned_attempt_resident_memory_bytes", job_id=job, attempt="1")
        assert metric(daemon, "finetuned_job_current_step", job_id=job, kind="fake")
        system = daemon.ok("GET", "/v1/system")
        assert daemon.process is not None
        assert system["daemon"]["pid"] == daemon.process.pid
        assert daemon.ok("GET", "/v1/system/history?seconds=60")["at"]
        daemon.ok("POST", f"/v1/jobs/{job}/cancel")
        daemon.wait_for(job)
        assert worker() is None
        assert metric(daemon, "finetuned_jobs_ended_total", state="cancelled", kind="fake") == 1


def test_a_job_and_the_request_that_submitted_it_are_traced_to_a_collector(collector: Collector) -> None:
    with Daemon() as daemon:
        config = daemon.state / "config.toml"
        config.write_text(f'otel_endpoint = "http://127.0.0.1:{collector.server_port}"\n')
        daemon.arguments += ["--config", str(config)]
        daemon.start()
        daemon.wait_for(daemon.submit(steps=2))
        eventually(lambda: "job fake" in collector.names)
        daemon.stop()
    assert {"POST /v1/jobs", "log.execute", "attempt run", "job fake"} <= set(collector.names)


def test_a_collector_that_is_not_there_keeps_no_job_and_no_stop_waiting() -> None:
    with Daemon() as daemon:
        config = daemon.state / "config.toml"
        config.write_text('otel_endpoint = "http://127.0.0.1:9"\n')
        daemon.arguments += ["--config", str(config)]
        daemon.start()
        assert daemon.wait_for(daemon.submit(steps=2))["state"] == "succeeded"
        assert daemon.stop() == 0
