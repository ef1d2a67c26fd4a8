"""Limits that a worker keeps itself: the memory of its GPUs, of which no cgroup knows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

log = logging.getLogger(__name__)


def limit_device_memory(limit: float | None, devices: Sequence[str]) -> None:
    """Have torch's allocator refuse what goes beyond ``limit`` bytes on each GPU that this process sees.

    What it refuses is told as any shortage of memory (``out_of_memory``). CUDA's own context, some hundred MB, lies
    beside the allocator and is not counted. Nothing happens without a limit, a GPU or torch.
    """
    if (
        limit is None
        or not any(device.startswith("gpu:") for device in devices)
        or find_spec("torch") is None
    ):
        return
    cuda = import_module("torch").cuda
    if not cuda.is_available():
        log.warning("The limit on GPU memory is not kept: torch cannot use a GPU here.")
        return
    for index in range(cuda.device_count()):
        total = cuda.get_device_properties(index).total_memory
        cuda.set_per_process_memory_fraction(min(1.0, limit / total), index)
