"""What Prometheus scrapes, read by its own parsers."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

from finetuned.domain import facts
from finetuned.domain.states import TERMINAL
from finetuned.store import queries
from finetuned.telemetry.metrics import METRICS
from finetuned.telemetry.testing import FakeGpu, FakeMemory, FakeNvml, FakeProcess

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(client: aiohttp.ClientSession) -> Values:
    response = await client.get("/metrics")
    assert response.status == 200, await response.text()
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    return values(parser.text_string_to_metric_families(await response.text()))


def values(families: Iterable[Any]) -> Values:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(found: Values, metric: str, /, **labels: str) -> float | None:
    return found.get((metric, frozenset(labels.items())))


def test_every_metric_has_its_row_in_the_reference_and_the_other_way_round() -> None:
    rows = {
        tuple(cell.strip() for cell in line.split("|")[1:5])
        for line in REFERENCE.read_text().splitlines()
        if line.startswith("| `")
    }
    assert rows == {
        (f"`{each.name}`", each.kind, ", ".join(f"`{label}`" for label in each.labels), each.help)
        for each in METRICS
    }


def test_names_follow_the_conventions() -> None:
    for each in METRICS:
        assert re.fullmatch(r"(finetuned|process)_[a-z0-9_]+", each.name)
        assert each.name.endswith("_total") == (each.kind == "counter"), each.name
        assert not re.search(r"_(ms|milliseconds|minutes|kb|mb|gb|percent)(_|$)", each.name), each.name
        assert each.help.endswith(".")
        assert not {"job", "instance"} & set(each.labels), each.name  # Prometheus would rename them
    assert len({each.name for each in METRICS}) == len(METRICS)


async def test_what_is_exposed_is_the_table_each_with_its_type_and_help(client: Any) -> None:
    text = await (await client.get("/metrics")).text()
    declared = {each.name: (each.kind, each.help) for each in METRICS}
    for family in parser.text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert declared[name] == (family.type, family.documentation)
    assert set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)) == set(declared)


async def test_who_asks_for_openmetrics_gets_what_its_parser_reads(house: Any, client: Any) -> None:
    response = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["Content-Type"].startswith("application/openmetrics-text")
    read: Any = openmetrics.text_string_to_metric_families
    assert value(values(read(await response.text())), "finetuned_log_events_total") == house.log.head


async def test_jobs_are_counted_by_state_and_kind_and_ended_ones_stay_counted(
    house: Any, client: Any
) -> None:
    first = await house.accept_job()
    await house.accept_job()
    found = await scrape(client)
    assert value(found, "finetuned_jobs", state="queued", kind="fake") == 2
    assert value(found, "finetuned_queue_length") == 2
    assert value(found, "finetuned_jobs_ended_total", state="failed", kind="fake") == 0
    assert (value(found, "finetuned_queue_oldest_age_seconds") or 0) > 0
    await house.start_attempt()
    found = await scrape(client)
    assert value(found, "finetuned_jobs", state="starting", kind="fake") == 1
    assert value(found, "finetuned_attempts", purpose="run") == 1
    assert value(found, "finetuned_device_held", device="cpu:0", kind="cpu") == 1
    await house.end_attempt(first)
    await house.commands.delete(first, actor="test")
    found = await scrape(client)
    assert value(found, "finetuned_jobs_ended_total", state="succeeded", kind="fake") == 1
    assert value(found, "finetuned_device_held", device="cpu:0", kind="cpu") == 0
    assert value(found, "finetuned_devices", kind="cpu") == 1


def test_each_state_in_which_a_job_has_ended_is_counted() -> None:
    counted = re.findall(r"'(\w+)'", queries()["count_ended_jobs"])
    assert sorted(counted) == sorted(state.value for state in TERMINAL)


async def test_an_empty_daemon_has_an_empty_queue_of_no_age(client: Any) -> None:
    found = await scrape(client)
    assert value(found, "finetuned_queue_length") == 0
    assert value(found, "finetuned_queue_oldest_age_seconds") == 0


async def test_progress_is_told_of_live_jobs_only_and_odd_figures_of_a_plugin_are_passed_over(
    house: Any, client: Any
) -> None:
    job_id = await house.accept_job()
    await house.start_attempt()
    figures = {
        "current_step": 5, "progress": 50.0, "loss": 1.25, "eval_loss": None, "tokens_per_second": "fast",
    }  # fmt: skip
    await house.report(job_id, facts.AttemptStarted(attempt=1, hello={}), facts.JobProgress(figures))
    found, labels = await scrape(client), {"job_id": job_id, "kind": "fake"}
    assert value(found, "finetuned_job_progress_ratio", **labels) == 0.5
    assert value(found, "finetuned_job_current_step", **labels) == 5
    assert value(found, "finetuned_job_loss", **labels) == 1.25
    assert value(found, "finetuned_job_eval_loss", **labels) is None
    assert value(found, "finetuned_job_tokens_per_second", **labels) is None
    assert (value(found, "finetuned_job_last_event_timestamp_seconds", **labels) or 0) > 1e9
    await house.end_attempt(job_id)
    assert not [name for name, labelled in await scrape(client) if ("job_id", job_id) in labelled]


async def test_requests_are_counted_by_the_template_of_their_route(house: Any, client: Any) -> None:
    job_id = await house.accept_job()
    for path in (f"/v1/jobs/{job_id}", "/v1/jobs/none", "/v1/nowhere", "/nowhere-else"):
        await (await client.get(path)).read()
    await (await client.request("PROPFIND", "/v1/jobs")).read()
    found = await scrape(client)
    count = "finetuned_http_requests_total"
    shown = {"route": "/v1/jobs/{job_id}", "method": "GET"}
    assert value(found, count, **shown, status="200") == 1
    assert value(found, count, **shown, status="404") == 1
    assert value(found, count, route="unmatched", method="GET", status="404") == 2
    assert value(found, count, route="unmatched", method="other", status="405") == 1
    assert value(found, "finetuned_http_request_duration_seconds_count", **shown) == 2
    assert value(found, "finetuned_http_request_duration_seconds_bucket", **shown, le="+Inf") == 2
    assert (value(found, "finetuned_http_request_duration_seconds_sum", **shown) or 0) > 0
    assert value(found, "finetuned_http_requests_in_progress") == 1  # the scrape itself


async def test_the_buckets_of_a_histogram_add_up(house: Any, client: Any) -> None:
    for seconds in (0.0001, 0.3, 60.0):
        house.telemetry.requests.record("/x", "GET", 200, seconds)
    found = await scrape(client)
    bucket, of = "finetuned_http_request_duration_seconds_bucket", {"route": "/x", "method": "GET"}
    bounds = ("0.001", "0.25", "0.5", "10.0", "+Inf")
    assert [value(found, bucket, **of, le=bound) for bound in bounds] == [1, 1, 2, 2, 3]


async def test_a_stream_is_counted_when_it_ends_and_never_timed(house: Any, client: Any, until: Any) -> None:
    async with client.get("/v1/events", params={"stream": "true"}):
        await until(lambda: house.feed.clients)
        found = await scrape(client)
        assert value(found, "finetuned_event_streams") == 1
        assert value(found, "finetuned_http_requests_in_progress") == 2
    await until(lambda: any(route == "/v1/events" for route, _, _ in house.telemetry.requests.counts))
    found = await scrape(client)
    of = {"route": "/v1/events", "method": "GET"}
    assert value(found, "finetuned_http_request_duration_seconds_count", **of) is None


async def test_a_client_that_goes_before_its_answer_ends_is_counted(
    house: Any, client: Any, until: Any
) -> None:
    job_id = await house.accept_job()
    await house.start_attempt()
    with contextlib.suppress(TimeoutError):
        async with client.get(
            f"/v1/jobs/{job_id}/logs", params={"follow": "true"}, timeout=aiohttp.ClientTimeout(0.3)
        ) as response:
            await response.read()
    await until(lambda: house.telemetry.requests.counts)
    ((route, _, _),) = house.telemetry.requests.counts
    assert route == "/v1/jobs/{job_id}/logs"
    assert house.telemetry.requests.in_progress == 0


async def test_the_host_the_process_and_the_log_are_told(client: Any) -> None:
    found = await scrape(client)
    for name in (
        "process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "process_max_fds",
        "process_start_time_seconds", "process_threads", "finetuned_host_memory_total_bytes",
        "finetuned_host_memory_available_bytes", "finetuned_host_disk_total_bytes", "finetuned_host_cpu_cores",
        "finetuned_log_size_bytes", "finetuned_log_events_total", "finetuned_log_commits_total",
        "finetuned_sample_timestamp_seconds",
    ):  # fmt: skip
        assert (value(found, name) or 0) > 0, name
    assert value(found, "finetuned_event_loop_lag_seconds") is not None
    assert value(found, "finetuned_event_loop_lag_max_seconds") is not None
    assert value(found, "finetuned_log_writer_busy_seconds") is not None


async def test_gpus_tell_what_they_can_and_who_is_on_them(open_house: Any, open_client: Any) -> None:
    whole = FakeGpu("GPU-a", memory=FakeMemory(total=100, used=30), celsius=55, compute=[FakeProcess(1, 5)])
    lost = FakeGpu("GPU-b", mute={"MemoryInfo"})
    async with open_house(nvml=FakeNvml(whole, lost)) as house, open_client(house) as client:
        found = await scrape(client)
    device = {"device": "gpu:GPU-a"}
    assert value(found, "finetuned_gpu_memory_used_bytes", **device) == 30
    assert value(found, "finetuned_gpu_temperature_celsius", **device) == 55
    assert value(found, "finetuned_gpu_processes", **device, owner="other") == 1
    assert value(found, "finetuned_gpu_processes", **device, owner="attempt") == 0
    told = {**device, "name": "NVIDIA H200", "index": "0", "driver_version": "570.0"}
    assert value(found, "finetuned_gpu_info", **told) == 1
    assert [value(found, "finetuned_gpu_up", device=f"gpu:GPU-{each}") for each in "ab"] == [1, 0]
    assert value(found, "finetuned_gpu_memory_used_bytes", device="gpu:GPU-b") is None


async def test_a_scrape_over_tcp_needs_a_token_and_one_that_reads_will_do(house: Any) -> None:
    _token, secret = await house.commands.tokens.create(scope="read", name="prometheus", actor="test")
    async with aiohttp.ClientSession(house.url) as stranger:
        assert (await stranger.get("/metrics")).status == 401
        response = await stranger.get("/metrics", headers={"Authorization": f"Bearer {secret}"})
        assert response.status == 200


def test_what_is_needed_later_is_not_imported_at_the_start() -> None:
    later = ["prometheus_client", "psutil", "opentelemetry"]
    program = f"import finetuned.daemon, sys; print([each for each in {later} if each in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
