"""For tests of plugins: a context that keeps facts in memory.

::

    ctx = RecordingContext(tmp_path, params={"model": "tiny"})
    train(ctx, SFTParams(model="tiny"))
    assert ctx.of_type("checkpoint")[0]["step"] == 10
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from finetuned_sdk.bundle import Bundle, Spec, now_us
from finetuned_sdk.context import CallbackSpec
from finetuned_sdk.spool import Fact, plain
from finetuned_sdk.worker_context import Context


class FactList:
    """A sink that keeps facts in the order in which they came."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self._lock = threading.Lock()

    def append(self, fact_type: str, data: Mapping[str, Any]) -> None:
        """Keep one fact, as it would come back from a spool."""
        with self._lock:
            self.facts.append(Fact(len(self.facts) + 1, fact_type, now_us(), plain(data)))


class RecordingContext(Context):
    """A worker's context without a worker, over a bundle in ``directory``.

    Everything but the spool is real: files are moved, sealed and checked. Every progress report is kept
    unless ``progress_interval`` (seconds) says otherwise.
    """

    def __init__(
        self,
        directory: Path,
        *,
        params: Mapping[str, Any] | None = None,
        kind: str = "test",
        job_id: str = "job-test",
        attempt: int = 1,
        models: Mapping[str, str] | None = None,
        datasets: Mapping[str, Mapping[str, str]] | None = None,
        callbacks: Sequence[CallbackSpec] = (),
        resume_from: Path | None = None,
        device_ids: Sequence[str] = ("cpu:0",),
        allow_remote_code: bool = False,
        metadata: Mapping[str, Any] | None = None,
        progress_interval: float = 0.0,
        secrets: Mapping[str, str] | None = None,
        cache: Path | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        params = dict(params or {})
        spec = Spec(
            job=job_id,
            attempt=attempt,
            kind=kind,
            entry="",
            params=params,
            params_model="",
            interpreter=sys.executable,
            models=dict(models or {}),
            datasets=dict(datasets or {}),
            callbacks=tuple(callbacks),
            resume_from=None if resume_from is None else str(resume_from),
            devices=tuple(device_ids),
            allow_remote_code=allow_remote_code,
            cache=None if cache is None else str(cache),
            metadata=metadata
            if metadata is not None
            else {"kind": kind, "name": None, "params": params, "retry_of": None},
        )
        bundle = Bundle(directory / "jobs" / job_id / "attempts" / str(attempt))
        bundle.create(spec)
        self._recorded = FactList()
        super().__init__(
            bundle,
            spec,
            self._recorded,
            progress_interval=progress_interval,
            secrets=secrets,
            clock=clock or time.monotonic,
        )

    @property
    def facts(self) -> list[Fact]:
        """All facts so far, in order."""
        return self._recorded.facts

    def of_type(self, fact_type: str) -> list[Mapping[str, Any]]:
        """The data of all facts of one type, in order."""
        return [fact.data for fact in self.facts if fact.type == fact_type]
