"""OpenTelemetry's SDK, set up without any of its globals."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from finetuned import __version__
from finetuned.tracing.commands import traced_log
from finetuned.tracing.jobs import JobTracer
from finetuned.tracing.requests import traced_requests
from finetuned.tracing.traces import Traces

CLOSE_S = 3.0  # a collector that does not answer must not hold up the daemon's end


@dataclass(frozen=True, slots=True)
class Tracing:
    """What is put into the daemon, and where spans go."""

    traces: Traces
    provider: TracerProvider

    def close(self) -> None:
        """Send what is left; give up after some seconds."""
        # A thread of its own that does not keep the process: the SDK may wait for half a minute.
        closing = threading.Thread(target=self.provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_S)


def set_up(endpoint: str, *, sample_ratio: float) -> Tracing:
    """Tracing to an OTLP collector over HTTP. The ``OTEL_…`` variables count, headers and certificates among them."""
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
    return trace_to(BatchSpanProcessor(exporter), sample_ratio=sample_ratio)


def trace_to(processor: SpanProcessor, *, sample_ratio: float = 1.0) -> Tracing:
    """Tracing to a processor. ``sample_ratio`` is the share of requests that are traced unless the caller decided."""
    resource = described()
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(sample_ratio)), resource=resource, shutdown_on_exit=False
    )
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("finetuned", __version__)
    traces = Traces(
        log=traced_log(tracer),
        middlewares=(traced_requests(tracer),),
        jobs=lambda queries: JobTracer(queries, processor, resource),
    )
    return Tracing(traces, provider)


def described(environ: Mapping[str, str] = os.environ) -> Resource:
    """What the spans are of: this program, unless the environment names it otherwise."""
    named = "OTEL_SERVICE_NAME" in environ or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    name = {} if named else {"service.name": "finetuned"}
    return Resource.create({"service.version": __version__, **name})
