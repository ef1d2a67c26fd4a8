"""The metrics that the daemon exposes: one table, which docs/reference/metrics.md is held to.

Base units and ``_total`` for counters, as Prometheus wants it. Labels are bounded: routes are templates, jobs are
live ones with an attempt, and a machine has few of those.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name, what it is, what it tells, and by what it is told apart."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


#: never `job` or `instance`: Prometheus has labels of its own by those names
JOB = ("job_id", "kind")
ATTEMPT = ("job_id", "attempt")

# fmt: off
METRICS: tuple[Metric, ...] = (
    Metric("finetuned_build_info", "gauge", "Always 1; the label says which version runs.", ("version",)),
    Metric("finetuned_jobs", "gauge", "Jobs that have not ended.", ("state", "kind")),
    Metric("finetuned_jobs_ended_total", "counter", "Jobs that have ended, since the log began.", ("state", "kind")),
    Metric("finetuned_queue_length", "gauge", "Jobs that wait for devices or for a backoff to pass."),
    Metric("finetuned_queue_oldest_age_seconds", "gauge", "Time since the oldest queued job was submitted; 0 without any."),
    Metric("finetuned_attempts", "gauge", "Live attempts.", ("purpose",)),
    Metric("finetuned_devices", "gauge", "Devices that are scheduled.", ("kind",)),
    Metric("finetuned_device_held", "gauge", "1 while an attempt holds the device, else 0.", ("device", "kind")),
    Metric("finetuned_job_progress_ratio", "gauge", "How much of its steps a running job has done, 0 to 1.", JOB),
    Metric("finetuned_job_current_step", "gauge", "The step that a running job is at.", JOB),
    Metric("finetuned_job_loss", "gauge", "The training loss that a running job reported last.", JOB),
    Metric("finetuned_job_eval_loss", "gauge", "The evaluation loss that a running job reported last.", JOB),
    Metric("finetuned_job_tokens_per_second", "gauge", "Tokens that a running job trains on in a second.", JOB),
    Metric("finetuned_job_samples_per_second", "gauge", "Samples that a running job trains on in a second.", JOB),
    Metric("finetuned_job_eta_seconds", "gauge", "Time that a running job still needs by its own estimate.", JOB),
    Metric("finetuned_job_last_event_timestamp_seconds", "gauge", "When a running job was last heard of, Unix time.", JOB),
    Metric("finetuned_attempt_resident_memory_bytes", "gauge", "Memory of an attempt's processes; shared pages count for each.", ATTEMPT),
    Metric("finetuned_attempt_cpu_cores", "gauge", "Processors that an attempt's processes use.", ATTEMPT),
    Metric("finetuned_attempt_threads", "gauge", "Threads of an attempt's processes.", ATTEMPT),
    Metric("finetuned_attempt_gpu_memory_bytes", "gauge", "Memory of an attempt's processes on a GPU.", (*ATTEMPT, "device")),
    Metric("finetuned_log_events_total", "counter", "Events in the log: the position of its head."),
    Metric("finetuned_log_commits_total", "counter", "Transactions of the log since the daemon's start."),
    Metric("finetuned_log_failed_commits_total", "counter", "Transactions that failed since the daemon's start."),
    Metric("finetuned_log_queued_requests", "gauge", "Requests that wait for the log's writer."),
    Metric("finetuned_log_writer_busy_seconds", "gauge", "How long the log's writer is at one transaction; what is queued came since it began."),
    Metric("finetuned_log_size_bytes", "gauge", "Size of the log's database."),
    Metric("finetuned_log_wal_size_bytes", "gauge", "Size of the log's write-ahead log."),
    Metric("finetuned_webhooks", "gauge", "Webhooks; a failing one waits for its next try.", ("state",)),
    Metric("finetuned_event_streams", "gauge", "Clients that follow events."),
    Metric("finetuned_http_requests_total", "counter", "HTTP requests that were answered; status 499 if the client went first.", ("route", "method", "status")),
    Metric("finetuned_http_requests_in_progress", "gauge", "HTTP requests that are being answered, streams among them."),
    Metric("finetuned_http_request_duration_seconds", "histogram", "Time to answer an HTTP request; streams are not timed.", ("route", "method")),
    Metric("finetuned_event_loop_lag_seconds", "gauge", "How late the event loop was when last looked at."),
    Metric("finetuned_event_loop_lag_max_seconds", "gauge", "How late the event loop was at worst in the last minute."),
    Metric("finetuned_gpu_info", "gauge", "Always 1; the labels say what the GPU is.", ("device", "name", "index", "driver_version")),
    Metric("finetuned_gpu_up", "gauge", "1 while the GPU answers, else 0.", ("device",)),
    Metric("finetuned_gpu_memory_total_bytes", "gauge", "Memory of the GPU.", ("device",)),
    Metric("finetuned_gpu_memory_used_bytes", "gauge", "Memory of the GPU that is in use, by anybody.", ("device",)),
    Metric("finetuned_gpu_utilization_ratio", "gauge", "Share of the last moments in which the GPU computed, 0 to 1.", ("device",)),
    Metric("finetuned_gpu_temperature_celsius", "gauge", "Temperature of the GPU.", ("device",)),
    Metric("finetuned_gpu_power_watts", "gauge", "Power that the GPU draws.", ("device",)),
    Metric("finetuned_gpu_power_limit_watts", "gauge", "Power that the GPU may draw.", ("device",)),
    Metric("finetuned_gpu_processes", "gauge", "Processes on the GPU, by whether they are an attempt's.", ("device", "owner")),
    Metric("finetuned_host_cpu_cores", "gauge", "Processors of the machine."),
    Metric("finetuned_host_cpu_utilization_ratio", "gauge", "Share of the processors' time in use, 0 to 1."),
    Metric("finetuned_host_load1", "gauge", "The kernel's load average over a minute."),
    Metric("finetuned_host_memory_total_bytes", "gauge", "Memory of the machine."),
    Metric("finetuned_host_memory_available_bytes", "gauge", "Memory that can be had without swapping."),
    Metric("finetuned_host_swap_used_bytes", "gauge", "Swap in use."),
    Metric("finetuned_host_disk_total_bytes", "gauge", "Size of the file system of the state directory."),
    Metric("finetuned_host_disk_free_bytes", "gauge", "What the daemon may still write there."),
    Metric("finetuned_host_network_received_bytes_total", "counter", "Bytes received, loopback apart."),
    Metric("finetuned_host_network_sent_bytes_total", "counter", "Bytes sent, loopback apart."),
    Metric("finetuned_sample_timestamp_seconds", "gauge", "When the machine was last looked at, Unix time."),
    Metric("process_cpu_seconds_total", "counter", "Processor time that the daemon has used."),
    Metric("process_resident_memory_bytes", "gauge", "Memory of the daemon."),
    Metric("process_open_fds", "gauge", "Files and sockets that the daemon has open."),
    Metric("process_max_fds", "gauge", "How many it may have open."),
    Metric("process_threads", "gauge", "Threads of the daemon."),
    Metric("process_start_time_seconds", "gauge", "When the daemon's process was started, Unix time."),
)
# fmt: on
