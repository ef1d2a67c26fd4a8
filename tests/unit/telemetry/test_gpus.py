from __future__ import annotations

from collections.abc import Sequence

import pytest

from finetuned.telemetry.gpus import RETRY_LOOKS, GpuProcess, GpuReader
from finetuned.telemetry.testing import FakeGpu, FakeMemory, FakeNvml, FakeProcess, FakeRates


def reader(*gpus: FakeGpu) -> tuple[GpuReader, FakeNvml]:
    nvml = FakeNvml(*gpus)
    return GpuReader(lambda: nvml), nvml


def test_a_gpu_tells_its_figures_in_base_units() -> None:
    gpu = FakeGpu(
        "GPU-a", memory=FakeMemory(total=1000, used=400), rates=FakeRates(gpu=75, memory=20), celsius=61
    )
    (found,) = reader(gpu)[0].read()
    assert (found.id, found.name, found.ordinal) == ("gpu:GPU-a", "NVIDIA H200", 0)
    assert (found.memory_total, found.memory_used) == (1000, 400)
    assert (found.utilization, found.memory_utilization) == (0.75, 0.2)
    assert (found.temperature_celsius, found.power_watts, found.power_limit_watts) == (61, 120.0, 700.0)


def test_a_host_without_a_driver_has_no_gpus_and_is_asked_once() -> None:
    asked: list[None] = []
    host = GpuReader(lambda: asked.append(None))
    assert (host.read(), host.read()) == ((), ())
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("question", "figures"),
    [
        ("UtilizationRates", ["utilization", "memory_utilization"]),
        ("Temperature", ["temperature_celsius"]),
        ("PowerUsage", ["power_watts"]),
        ("EnforcedPowerLimit", ["power_limit_watts"]),
    ],
)
def test_what_a_gpu_does_not_tell_is_none_and_the_rest_is_there(
    question: str, figures: Sequence[str]
) -> None:
    (found,) = reader(FakeGpu("GPU-a", mute={question}))[0].read()
    every = {"utilization", "memory_utilization", "temperature_celsius", "power_watts", "power_limit_watts"}
    assert {name for name in every if getattr(found, name) is None} == set(figures)
    assert found.memory_total is not None


def test_a_gpu_that_fell_off_its_bus_is_shown_with_its_problem_beside_the_others() -> None:
    lost, whole = reader(FakeGpu("GPU-a", mute={"MemoryInfo"}), FakeGpu("GPU-b"))[0].read()
    assert (lost.id, lost.problem) == ("gpu:GPU-a", "Not Supported")
    assert (whole.id, whole.problem) == ("gpu:GPU-b", None)


def test_a_process_that_computes_and_draws_is_named_once() -> None:
    gpu = FakeGpu("GPU-a", compute=[FakeProcess(7, 100)], graphics=[FakeProcess(7, 100), FakeProcess(8)])
    (found,) = reader(gpu)[0].read()
    assert found.processes == (GpuProcess(pid=7, memory=100), GpuProcess(pid=8, memory=None))


def test_nvml_stays_open_between_looks_until_it_is_closed() -> None:
    looking, nvml = reader(FakeGpu("GPU-a"))
    looking.read()
    looking.read()
    assert nvml.open == 1
    assert looking.driver == "570.0"
    looking.close()
    looking.close()
    assert nvml.open == 0


def test_an_nvml_that_fails_is_left_alone_for_a_while_and_then_opened_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    looking, nvml = reader(FakeGpu("GPU-a"))
    looking.read()
    nvml.broken = True  # the driver was replaced under it
    assert looking.read() == ()
    nvml.broken = False
    assert [looking.read() for _ in range(RETRY_LOOKS)] == [()] * RETRY_LOOKS
    assert len(looking.read()) == 1
    assert nvml.open == 1
    assert caplog.text.count("Driver/library version mismatch") == 1


def test_the_fake_has_every_function_that_the_real_library_is_asked() -> None:
    import pynvml

    asked = [name for name in dir(FakeNvml) if name.startswith("nvml")]
    assert len(asked) >= 14
    assert [name for name in asked if not callable(getattr(pynvml, name, None))] == []
    assert pynvml.NVML_TEMPERATURE_GPU == 0
