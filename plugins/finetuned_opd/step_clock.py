"""What the seconds of a step go into."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class StepClock(TrainerCallback):
    """Seconds of a step by what they went into."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._stopped = False
        self._updating = 0.0

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Count what is done inside."""
        started = time.perf_counter()
        yield
        if not self._stopped:
            self._seconds[name] += time.perf_counter() - started

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Do not count: this is no step."""
        self._stopped = True
        try:
            yield
        finally:
            self._stopped = False

    def read(self) -> dict[str, float]:
        """The seconds since the last reading, by name."""
        seconds, self._seconds = dict(self._seconds), defaultdict(float)
        return seconds

    def on_pre_optimizer_step(
        self, _args: TrainingArguments, _state: TrainerState, _control: TrainerControl, **_kwargs: Any
    ) -> None:
        self._updating = time.perf_counter()

    def on_optimizer_step(
        self, _args: TrainingArguments, _state: TrainerState, _control: TrainerControl, **_kwargs: Any
    ) -> None:
        self._seconds["seconds_update"] += time.perf_counter() - self._updating
