"""An estimate compared with what the host has: what fits, what is tight, and what is refused. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from finetuned.domain.errors import InvalidRequestError
from finetuned.domain.room import TOLERANCE, gigabytes
from finetuned_sdk import Estimate, Host

OK, WARNING, REFUSED, UNKNOWN = "ok", "warning", "refused", "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at. ``figures`` are bytes; ``code`` is what a refusal is told by."""

    name: str
    verdict: str
    message: str
    figures: Mapping[str, int] = field(default_factory=dict)
    code: str = "does_not_fit"
    param: str = "params"


def examine(estimate: Estimate, host: Host, limits: Mapping[str, float]) -> list[Check]:
    """What fits and what does not. ``limits`` are the job's own: nothing above them is to be had."""
    return [
        *_device_memory(estimate, host, limits.get("gpu_memory")),
        *_host_memory(estimate, host, limits.get("memory")),
        *_disk(estimate, host, limits.get("disk")),
    ]


def worst(checks: Iterable[Check]) -> str:
    """The worst verdict of all."""
    found = {check.verdict for check in checks}
    return next((verdict for verdict in (REFUSED, WARNING) if verdict in found), OK)


def refuse(checks: Iterable[Check], fixes: Iterable[str]) -> None:
    """Raise ``InvalidRequestError`` for the first refused check, with what would fit."""
    refused = next((check for check in checks if check.verdict == REFUSED), None)
    if refused is None:
        return
    raise InvalidRequestError(
        f"{refused.message} {remedy(refused, fixes)}", param=refused.param, code=refused.code
    )


def remedy(refused: Check, fixes: Iterable[str]) -> str:
    """What to do about a refusal."""
    found = list(fixes)
    if refused.code == "disk_full":
        what = "Make room, or keep fewer checkpoints"
    elif found:
        what = f"It would fit with {'; or with '.join(found)}"
    else:
        what = "No setting that trains the same makes it fit: take a smaller model, or a larger machine"
    return f"{what}. If the estimate is wrong, submit it with ignores_estimate."


def _device_memory(estimate: Estimate, host: Host, limit: float | None) -> Iterator[Check]:
    gpus = [device.memory_bytes for device in host.devices if device.kind == "gpu"]
    if not gpus:
        return
    if estimate.device_bytes is None:
        yield _unknown("device_memory", "GPU memory")
        return
    yield _memory("device_memory", "GPU memory", estimate.device_bytes, _least(max(gpus), limit), free=0)


def _host_memory(estimate: Estimate, host: Host, limit: float | None) -> Iterator[Check]:
    if estimate.host_bytes is None:
        yield _unknown("host_memory", "memory")
        return
    if not host.memory_bytes:
        return
    total = _least(host.memory_bytes, limit)
    yield _memory("host_memory", "memory", estimate.host_bytes, total, free=host.memory_free_bytes)
    slots = [device.memory_bytes for device in host.devices if device.kind == "cpu"]
    if slots and total >= estimate.host_bytes > max(slots):
        yield Check(
            name="slot_memory",
            verdict=WARNING,
            message=f"It will take about {gigabytes(estimate.host_bytes)} of memory, and its share as one of"
            f" {len(slots)} slots of the CPU is {gigabytes(max(slots))}: jobs beside it may have to wait.",
            figures={"needed": estimate.host_bytes, "available": max(slots)},
        )


def _memory(name: str, what: str, needed: int, total: int, *, free: int) -> Check:
    figures = {"needed": needed, "available": total} | ({"free": free} if free else {})
    takes = f"It will take about {gigabytes(needed)} of {what}"
    if needed * (1 - TOLERANCE) > total:
        message = f"The job would take about {gigabytes(needed)} of {what} and {gigabytes(total)} are there."
        return Check(name=name, verdict=REFUSED, message=message, figures=figures)
    if needed * (1 + TOLERANCE) > total:
        message = f"{takes} of the {gigabytes(total)} that are there, which is tight: it may run out of it."
        return Check(name=name, verdict=WARNING, message=message, figures=figures)
    if free and needed > free:
        message = f"{takes}, and {gigabytes(free)} of {gigabytes(total)} are free now: it may have to wait."
        return Check(name=name, verdict=WARNING, message=message, figures=figures)
    return Check(name=name, verdict=OK, message=f"{takes} of {gigabytes(total)}.", figures=figures)


def _disk(estimate: Estimate, host: Host, limit: float | None) -> Iterator[Check]:
    needed, free = estimate.disk_bytes, host.disk_free_bytes
    if needed is None:
        yield _unknown("disk", "disk")
        return
    if not free:
        return
    available = _least(free, limit)
    figures = {"needed": needed, "available": available}
    if needed > available:
        yield Check(
            name="disk",
            verdict=REFUSED,
            message=f"The job's checkpoints and its result may need {gigabytes(needed)} of disk and"
            f" {gigabytes(available)} are free.",
            figures=figures,
            code="disk_full",
        )
        return
    message = (
        f"Its checkpoints and its result may need {gigabytes(needed)} of {gigabytes(available)} of disk."
    )
    yield Check(name="disk", verdict=OK, message=message, figures=figures)


def _unknown(name: str, what: str) -> Check:
    message = f"How much {what} it will take is not known: its kind does not say, or its model is not on this machine."
    return Check(name=name, verdict=UNKNOWN, message=message)


def _least(available: int, limit: float | None) -> int:
    return available if limit is None else min(available, int(limit))
