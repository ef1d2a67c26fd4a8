"""Traces for OpenTelemetry, an extra: nothing of it is imported, and nothing wrapped, unless `otel_endpoint` is set.

traces      what the daemon is given: a log, middlewares and a follower, traced or plain
sdk         the SDK set up from the configuration: exporter, sampling, resource
requests    a span for each HTTP request
commands    a span for each command that a request gives to the log
jobs        a trace for each job that has ended

Only ``traces`` is imported while tracing is off.
"""

from __future__ import annotations
