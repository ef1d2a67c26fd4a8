"""One trial of a batch: forward and backward of the longest rows, then of typical ones, and how long and how much."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from finetuned_training.batch_search import Tried
from finetuned_training.metering import MeteredTrainer

if TYPE_CHECKING:
    from numpy.typing import NDArray

TYPICAL_ROWS = 16  # at least; a larger batch takes its own number
AGAIN_BELOW = 4.0  # seconds: typical rows are timed twice if they took less, and the faster counts
USABLE = {"cuda": 0.95, "cpu": 0.8}  # share of the memory that is free
ADAM_BYTES, ADAM_8BIT_BYTES = 8, 2  # the optimizer's two moments of a weight


class Prober:
    """Tries batches on a trainer that has not begun. Use it within :func:`untouched`."""

    def __init__(
        self,
        trainer: MeteredTrainer,
        lengths: NDArray[np.int32],
        rows_a_step: int,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._trainer = trainer
        self._lengths = lengths
        self._clock = clock
        self._typical = np.random.default_rng(0).permutation(len(lengths))
        self._rows = min(rows_a_step, TYPICAL_ROWS)
        self._longest = np.argsort(-lengths, kind="stable")

    def __call__(self, batch: int) -> Tried:
        """What the batch takes and gives. Out of memory on a GPU is an answer; on a CPU it would be the end."""
        rows = self._typical[: max(batch, self._rows)]
        rows = rows[: len(rows) // batch * batch]
        try:
            self._pass(self._longest[:batch])
            seconds = self._timed(rows, batch)
            if seconds < AGAIN_BELOW:
                seconds = min(seconds, self._timed(rows, batch))
        except torch.OutOfMemoryError:
            self._trainer.model.zero_grad(set_to_none=True)
            gc.collect()
            torch.cuda.empty_cache()
            return Tried(batch=batch, fits=False, peak_bytes=None)
        tokens = int(self._lengths[rows].sum())
        return Tried(
            batch=batch,
            fits=True,
            rows_per_second=len(rows) / seconds,
            tokens_per_second=tokens / seconds,
            peak_bytes=peak_bytes(self._trainer.args.device),
        )

    def _timed(self, rows: NDArray[np.int64], batch: int) -> float:
        started = self._clock()
        for start in range(0, len(rows), batch):
            self._pass(rows[start : start + batch])
        if self._trainer.args.device.type == "cuda":
            torch.cuda.synchronize()
        return max(self._clock() - started, 1e-9)

    def _pass(self, rows: NDArray[np.int64]) -> None:
        self._trainer.try_pass(map(int, rows))
        self._trainer.ctx.advancing()


@contextmanager
def untouched(trainer: MeteredTrainer) -> Iterator[None]:
    """Leave trainer, model and every generator of random numbers as they were.

    Gradients are dropped, as there are none before the first step. Memory for the optimizer's moments is held meanwhile
    on a GPU, because what fits has to fit beside them.
    """
    model, device = trainer.model, trainer.args.device
    trains = model.training
    generators = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - the global one
    cuda = torch.cuda.get_rng_state_all() if device.type == "cuda" else None
    moments = torch.empty(moment_bytes(trainer) if cuda else 0, dtype=torch.uint8, device=device)
    if trainer.args.activation_checkpointing:  # as the trainer does when it begins
        model.activation_checkpointing_enable(trainer.args.activation_checkpointing_kwargs)
    model.train()
    try:
        with trainer.uncounted():
            yield
    finally:
        del moments
        model.zero_grad(set_to_none=True)
        model.train(trains)
        random.setstate(generators[0])
        np.random.set_state(generators[1])  # noqa: NPY002 - the global one
        torch.set_rng_state(generators[2])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
            torch.cuda.empty_cache()
        gc.collect()


def moment_bytes(trainer: MeteredTrainer) -> int:
    """What the optimizer will hold beside the weights that it moves."""
    trained: int = sum(weight.numel() for weight in trainer.model.parameters() if weight.requires_grad)
    return trained * (ADAM_8BIT_BYTES if "8bit" in str(trainer.args.optim) else ADAM_BYTES)


def limit_bytes(trainer: MeteredTrainer) -> int | None:
    """How large the process may grow, with room left for the optimizer; ``None`` if that cannot be told."""
    device: torch.device = trainer.args.device
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(USABLE["cuda"] * free + torch.cuda.memory_reserved(device))
    free_bytes, taken = free_host_bytes(), host_bytes("VmRSS:")
    if free_bytes is None or taken is None:
        return None
    return int(USABLE["cpu"] * free_bytes) + taken - moment_bytes(trainer)


def peak_bytes(device: torch.device) -> int | None:
    """The most that the process has taken so far: of the GPU's memory, or of the host's."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else host_bytes("VmHWM:")


def host_bytes(name: str) -> int | None:
    """A size of this process as the kernel tells it: ``VmRSS:`` now, ``VmHWM:`` the most so far."""
    return _kilobytes(Path("/proc/self/status"), name)


def free_host_bytes() -> int | None:
    """The host's memory that is to be had, or what the control groups of this process leave if that is less."""
    free = _kilobytes(Path("/proc/meminfo"), "MemAvailable:")
    return None if free is None else min([free, *_left_in_groups()])


def _left_in_groups() -> Iterator[int]:
    root = Path("/sys/fs/cgroup")
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="ascii").rpartition("::/")[2].strip()
    except OSError:
        return
    for group in [root / own, *(root / own).parents]:
        try:
            most = (group / "memory.max").read_text(encoding="ascii").strip()
            if most != "max":
                yield max(0, int(most) - int((group / "memory.current").read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
        if group == root:
            return


def _kilobytes(file: Path, name: str) -> int | None:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)
