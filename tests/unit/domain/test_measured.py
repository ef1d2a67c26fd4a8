from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.unit.domain.worlds import Scene

from finetuned.domain import facts


def run(scene: Scene, measured: dict[str, int], **how: Any) -> None:
    scene.schedule()
    number = scene.start()
    scene.report("job-1", facts.AttemptResult(attempt=number, values={}, measured=measured))
    scene.end(**how)


def events(scene: Scene, name: str) -> list[Mapping[str, Any]]:
    return [event.data for event in scene.events if event.type == name]


def test_a_job_that_succeeds_tells_what_it_took_beside_what_was_estimated() -> None:
    scene = Scene()
    scene.submit(estimate={"host_bytes": 100})
    run(scene, {"host_bytes": 90}, usage={"wall_s": 7.5, "max_rss_bytes": 60.0})
    (told,) = events(scene, "job.measured")
    assert told["estimate"] == {"host_bytes": 100}
    assert told["measured"] == {"duration_s": 7.5, "device_bytes": None, "host_bytes": 90, "disk_bytes": 0}
    kinds = [event.type for event in scene.events]
    assert kinds.index("job.measured") < kinds.index("job.succeeded")


def test_where_the_worker_measured_nothing_its_largest_process_counts() -> None:
    scene = Scene()
    scene.submit(estimate={"host_bytes": 100})
    run(scene, {}, usage={"max_rss_bytes": 60.0})
    assert events(scene, "job.measured")[0]["measured"] == {
        "duration_s": 0.0,
        "device_bytes": None,
        "host_bytes": 60,
        "disk_bytes": 0,
    }


def test_nothing_is_measured_where_nothing_was_estimated() -> None:
    scene = Scene()
    scene.submit(estimate=None)
    run(scene, {"host_bytes": 90})
    assert events(scene, "job.measured") == []
