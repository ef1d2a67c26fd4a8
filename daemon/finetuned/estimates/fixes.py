"""What could be changed about a job so that it fits: each proposal was estimated, none is a phrase."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydantic import BaseModel, ValidationError

from finetuned.domain.room import gigabytes
from finetuned_sdk import Estimate, Host, JobError, JobKind

MOST_FIXES = 3  # that are named


@dataclass(frozen=True, slots=True)
class Fix:
    """Changed parameters and what the job would take with them."""

    params: Mapping[str, Any]
    estimate: Estimate

    @property
    def needed(self) -> int:
        """Bytes of the memory that training fills."""
        device = self.estimate.device_bytes
        return (self.estimate.host_bytes or 0) if device is None else device

    def __str__(self) -> str:
        changes = ", ".join(f"{name}={_text(value)}" for name, value in self.params.items())
        return f"{changes} (about {gigabytes(self.needed)})"


def fixes(
    kind: JobKind, params: BaseModel, host: Host, limits: Mapping[str, float], *, most: int = MOST_FIXES
) -> list[Fix]:
    """The first change that fits of each of the kind's groups, the least costly first."""
    if kind.alternatives is None or kind.estimate is None:
        return []
    groups = kind.alternatives(params, host)
    fitting = (
        next(_fitting(kind, params, host, limits, group), None)
        for group in groups  # a group is estimated only when it is come to
    )
    return list(islice((fix for fix in fitting if fix is not None), most))


def _fitting(
    kind: JobKind, params: BaseModel, host: Host, limits: Mapping[str, float], group: Any
) -> Iterator[Fix]:
    for changes in group:
        found = _estimated(kind, params, host, changes)
        if found is not None and _fits(found, host, limits):
            yield Fix(changes, found)


def _estimated(kind: JobKind, params: BaseModel, host: Host, changes: Mapping[str, Any]) -> Estimate | None:
    """What the job would take with other parameters; ``None`` if it could not be run with them here."""
    try:
        changed = kind.params.model_validate({**params.model_dump(exclude_unset=True), **changes})
        if kind.check is not None:
            kind.check(changed, host)
    except (ValidationError, JobError):
        return None
    return kind.estimate(changed, host) if kind.estimate else None


def _fits(estimate: Estimate, host: Host, limits: Mapping[str, float]) -> bool:
    gpus = [device.memory_bytes for device in host.devices if device.kind == "gpu"]
    device = min(max(gpus), limits.get("gpu_memory", max(gpus))) if gpus else None
    memory = min(host.memory_bytes, limits.get("memory", host.memory_bytes)) if host.memory_bytes else None
    return (device is None or (estimate.device_bytes or 0) <= device) and (
        memory is None or (estimate.host_bytes or 0) <= memory
    )


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
