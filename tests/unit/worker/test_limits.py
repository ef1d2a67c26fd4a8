"""The limit on the memory of GPUs, kept by torch's own allocator; torch and the GPU are faked here."""

from __future__ import annotations

import logging
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from finetuned_sdk import worker_limits
from finetuned_sdk.worker_limits import limit_device_memory

GPU = ("gpu:GPU-1",)


@pytest.fixture
def fractions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, int]]:
    """What torch was told, on a machine with two GPUs of 80 and 40 GB."""
    told: list[tuple[float, int]] = []
    torch: Any = ModuleType("torch")
    torch.cuda = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 2,
        get_device_properties=lambda index: SimpleNamespace(total_memory=[80e9, 40e9][index]),
        set_per_process_memory_fraction=lambda fraction, index: told.append((fraction, index)),
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(worker_limits, "find_spec", lambda _: object())
    return told


def test_torch_is_given_the_share_of_each_gpu(fractions: list[tuple[float, int]]) -> None:
    limit_device_memory(20e9, GPU)
    assert fractions == [(0.25, 0), (0.5, 1)]


def test_a_limit_beyond_the_device_is_the_whole_device(fractions: list[tuple[float, int]]) -> None:
    limit_device_memory(60e9, GPU)
    assert fractions == [(0.75, 0), (1.0, 1)]


@pytest.mark.parametrize(("limit", "devices"), [(None, GPU), (1e9, ("cpu:0",)), (1e9, ())])
def test_without_a_limit_or_a_gpu_torch_is_not_imported(
    limit: float | None, devices: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_limits, "import_module", lambda name: pytest.fail(f"{name} was imported"))
    limit_device_memory(limit, devices)


def test_without_torch_nothing_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_limits, "find_spec", lambda _: None)
    monkeypatch.setattr(worker_limits, "import_module", lambda name: pytest.fail(f"{name} was imported"))
    limit_device_memory(1e9, GPU)


def test_a_gpu_that_torch_cannot_use_is_said(
    fractions: list[tuple[float, int]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys.modules["torch"].cuda, "is_available", lambda: False)
    with caplog.at_level(logging.WARNING):
        limit_device_memory(1e9, GPU)
    assert fractions == []
    assert "is not kept" in caplog.text
