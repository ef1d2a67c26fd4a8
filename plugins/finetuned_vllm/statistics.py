"""How busy vLLM says it is."""

from __future__ import annotations

from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase


class Statistics:
    """Figures of vLLM's newest step, and the tokens since it began."""

    def __init__(self) -> None:
        self.running = 0
        self.tokens = 0
        self.kv_used = 0.0

    def logger(self, config: Any, engine_index: int = 0) -> StatLoggerBase:
        """What vLLM calls after each step: one of its factories of loggers."""
        return _Logger(self, config, engine_index)

    def note(self, scheduler: Any, iteration: Any) -> None:
        """Take a step's figures over; either may be missing."""
        if scheduler is not None:
            self.running = scheduler.num_running_reqs
            self.kv_used = scheduler.kv_cache_usage
        if iteration is not None:
            self.tokens += iteration.num_generation_tokens + iteration.num_prompt_tokens


class _Logger(StatLoggerBase):
    def __init__(self, statistics: Statistics, config: Any, engine_index: int = 0) -> None:  # noqa: ARG002 - vLLM's own signature
        self._statistics = statistics

    def record(self, scheduler_stats: Any, iteration_stats: Any, *_args: Any, **_more: Any) -> None:
        self._statistics.note(scheduler_stats, iteration_stats)

    def log_engine_initialized(self) -> None:
        """Nothing to tell."""
