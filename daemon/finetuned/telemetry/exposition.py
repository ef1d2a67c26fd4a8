"""What Prometheus scrapes: a census turned into the text that it reads. Pure; imported when somebody scrapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, product
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from finetuned import __version__
from finetuned.domain.job import Job
from finetuned.domain.registers import Webhook
from finetuned.domain.states import TERMINAL, JobState
from finetuned.queries.observation import Census
from finetuned.telemetry.gpus import Gpu
from finetuned.telemetry.host import Host
from finetuned.telemetry.metrics import METRICS
from finetuned.telemetry.requests import BOUNDS_S, Latencies
from finetuned.telemetry.telemetry import Snapshot

#: a metric's name, the values of its labels, and its value
Sample = tuple[str, tuple[str, ...], float | None]

#: figures of ``job.progress`` that are exposed, and the metrics' names
PROGRESS = {
    "current_step": "finetuned_job_current_step",
    "loss": "finetuned_job_loss",
    "eval_loss": "finetuned_job_eval_loss",
    "tokens_per_second": "finetuned_job_tokens_per_second",
    "samples_per_second": "finetuned_job_samples_per_second",
    "eta_seconds": "finetuned_job_eta_seconds",
}


def expose(census: Census, *, event_streams: int, accept: str = "") -> tuple[bytes, str]:
    """The exposition and its content type: OpenMetrics if ``accept`` asks for it, else Prometheus' text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(families(census, event_streams=event_streams)))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def families(census: Census, *, event_streams: int) -> list[Metric]:
    """One family a metric of the table, in its order, with whatever was counted."""
    found = {each.name: _family(each.name, each.kind, each.help, each.labels) for each in METRICS}
    for name, labels, value in samples(census, event_streams=event_streams):
        if value is not None:
            found[name].add_metric(labels, value)
    durations = found["finetuned_http_request_duration_seconds"]
    for key, latencies in census.latencies.items():
        durations.add_metric(key, buckets=_buckets(latencies), sum_value=latencies.sum_s)
    return list(found.values())


def samples(census: Census, *, event_streams: int) -> Iterator[Sample]:
    """All values but those of histograms; ``None`` for what is not known."""
    yield "finetuned_build_info", (__version__,), 1
    yield "finetuned_event_streams", (), event_streams
    yield "finetuned_event_loop_lag_seconds", (), census.lag_s
    yield "finetuned_event_loop_lag_max_seconds", (), census.worst_lag_s
    yield from _jobs(census)
    yield from _devices(census)
    yield from _log(census)
    yield from _webhooks(census)
    yield from _requests(census)
    yield from _host(census.snapshot.host)
    yield "finetuned_sample_timestamp_seconds", (), census.snapshot.at / 1e6
    for gpu in census.snapshot.gpus:
        yield from _gpu(gpu, census.snapshot)
    for (job, number), usage in census.snapshot.usage.items():
        attempt = (job, str(number))
        yield "finetuned_attempt_resident_memory_bytes", attempt, usage.rss
        yield "finetuned_attempt_cpu_cores", attempt, usage.cpu
        yield "finetuned_attempt_threads", attempt, usage.threads
        for device, memory in usage.gpu_memory.items():
            yield "finetuned_attempt_gpu_memory_bytes", (*attempt, device), memory


def _jobs(census: Census) -> Iterator[Sample]:
    for state_and_kind, count in Counter((job.state.value, job.kind) for job in census.live).items():
        yield "finetuned_jobs", state_and_kind, count
    kinds = {job.kind for job in census.live} | {kind for _, kind in census.ended}
    for key in product(sorted(TERMINAL), sorted(kinds)):
        # At zero too: Prometheus sees no increase in a counter that begins at one.
        yield "finetuned_jobs_ended_total", key, census.ended.get(key, 0)
    queued = [job for job in census.live if job.state is JobState.QUEUED]
    oldest = min((job.created_at for job in queued), default=census.at)
    yield "finetuned_queue_length", (), len(queued)
    yield "finetuned_queue_oldest_age_seconds", (), max(0, census.at - oldest) / 1e6
    attempts = [job.live_attempt for job in census.live]
    purposes = Counter(each.purpose for each in attempts if each is not None)
    for purpose in ("validate", "run"):
        yield "finetuned_attempts", (purpose,), purposes[purpose]
    for job in census.live:
        if job.live_attempt is not None and job.live_attempt.purpose == "run":
            yield from _progress(job)


def _progress(job: Job) -> Iterator[Sample]:
    labels, reported = (job.id, job.kind), job.progress or {}
    yield "finetuned_job_last_event_timestamp_seconds", labels, job.updated_at / 1e6
    percent = _number(reported, "progress")
    yield "finetuned_job_progress_ratio", labels, None if percent is None else percent / 100
    for figure, name in PROGRESS.items():
        yield name, labels, _number(reported, figure)


def _number(reported: Mapping[str, Any], figure: str) -> float | None:
    """A figure that a worker reported; plugins may say anything."""
    value = reported.get(figure)
    return float(value) if isinstance(value, (int, float)) else None


def _devices(census: Census) -> Iterator[Sample]:
    for kind, count in Counter(slot.kind for slot in census.slots).items():
        yield "finetuned_devices", (kind,), count
    for slot in census.slots:
        yield "finetuned_device_held", (slot.id, slot.kind), slot.holder is not None


def _log(census: Census) -> Iterator[Sample]:
    yield "finetuned_log_events_total", (), census.log.head
    yield "finetuned_log_commits_total", (), census.log.commits
    yield "finetuned_log_failed_commits_total", (), census.log.failed_commits
    yield "finetuned_log_queued_requests", (), census.log.queued
    yield "finetuned_log_writer_busy_seconds", (), census.log.busy_seconds
    yield "finetuned_log_size_bytes", (), census.log.database_bytes
    yield "finetuned_log_wal_size_bytes", (), census.log.wal_bytes


def _webhooks(census: Census) -> Iterator[Sample]:
    counts = Counter(_standing(each) for each in census.webhooks)
    for standing in ("enabled", "failing", "disabled"):
        yield "finetuned_webhooks", (standing,), counts[standing]


def _standing(webhook: Webhook) -> str:
    if webhook.disabled is not None:
        return "disabled"
    return "failing" if webhook.tries else "enabled"


def _requests(census: Census) -> Iterator[Sample]:
    yield "finetuned_http_requests_in_progress", (), census.in_progress
    for (route, method, status), count in census.requests.items():
        yield "finetuned_http_requests_total", (route, method, str(status)), count


def _host(host: Host) -> Iterator[Sample]:
    yield "finetuned_host_cpu_cores", (), host.cpu.cores
    yield "finetuned_host_cpu_utilization_ratio", (), host.cpu.utilization
    yield "finetuned_host_load1", (), host.cpu.load[0]
    yield "finetuned_host_memory_total_bytes", (), host.memory.total
    yield "finetuned_host_memory_available_bytes", (), host.memory.available
    yield "finetuned_host_swap_used_bytes", (), host.memory.swap_used
    yield "finetuned_host_disk_total_bytes", (), host.disk.total
    yield "finetuned_host_disk_free_bytes", (), host.disk.free
    yield "finetuned_host_network_received_bytes_total", (), host.network.received
    yield "finetuned_host_network_sent_bytes_total", (), host.network.sent
    yield "process_cpu_seconds_total", (), host.daemon.cpu_s
    yield "process_resident_memory_bytes", (), host.daemon.rss
    yield "process_open_fds", (), host.daemon.open_files
    yield "process_max_fds", (), host.daemon.max_files
    yield "process_threads", (), host.daemon.threads
    yield "process_start_time_seconds", (), host.daemon.started


def _gpu(gpu: Gpu, snapshot: Snapshot) -> Iterator[Sample]:
    device = (gpu.id,)
    yield "finetuned_gpu_info", (gpu.id, gpu.name, str(gpu.ordinal), snapshot.driver or ""), 1
    yield "finetuned_gpu_up", device, gpu.problem is None
    yield "finetuned_gpu_memory_total_bytes", device, gpu.memory_total
    yield "finetuned_gpu_memory_used_bytes", device, gpu.memory_used
    yield "finetuned_gpu_utilization_ratio", device, gpu.utilization
    yield "finetuned_gpu_temperature_celsius", device, gpu.temperature_celsius
    yield "finetuned_gpu_power_watts", device, gpu.power_watts
    yield "finetuned_gpu_power_limit_watts", device, gpu.power_limit_watts
    ours = Counter(holder.attempt is not None for holder in snapshot.holders.get(gpu.id, ()))
    yield "finetuned_gpu_processes", (gpu.id, "attempt"), ours[True]
    yield "finetuned_gpu_processes", (gpu.id, "other"), ours[False]


def _buckets(latencies: Latencies) -> list[tuple[str, float]]:
    bounds = [*(str(bound) for bound in BOUNDS_S), "+Inf"]
    return list(zip(bounds, accumulate(latencies.counts), strict=True))


def _family(name: str, kind: str, help_text: str, labels: tuple[str, ...]) -> Any:
    match kind:
        case "counter":
            return CounterMetricFamily(name, help_text, labels=labels)
        case "histogram":
            return HistogramMetricFamily(name, help_text, labels=labels)
    return GaugeMetricFamily(name, help_text, labels=labels)


@dataclass(frozen=True, slots=True, eq=False)  # a registry wants to hash it
class _Collected(Collector):
    """Metrics that were collected already, as a registry wants them."""

    found: Iterable[Metric]

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        return self.found
