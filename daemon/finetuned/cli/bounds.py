"""What a job may take and how long which silence of it is borne, as options with units: ``--memory 24GB``."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, ParamSpec, TypeVar

import click

P = ParamSpec("P")
R = TypeVar("R")

_SECONDS: Final[Mapping[str, float]] = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
_DECIMAL: Final[Mapping[str, int]] = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_PIECE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)\s*")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?")


def seconds(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """``90s``, ``30min``, ``8h``, ``1d`` or several of them (``1h30m``) as seconds; a bare number is seconds."""
    if value is None:
        return None
    text = value.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not re.fullmatch(rf"({_PIECE.pattern})+", text):
        raise click.BadParameter(
            f"{value!r} is no duration; write 90s, 30min, 8h, 1d or 1h30m.", context, parameter
        )
    return sum(float(number) * _SECONDS[unit] for number, unit in _PIECE.findall(text))


def size(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """``24GB`` (decimal), ``24GiB`` (binary) or bare bytes, as bytes."""
    if value is None:
        return None
    match = _SIZE.fullmatch(value.strip().lower())
    if match is None or (match[3] and not match[2]):
        raise click.BadParameter(
            f"{value!r} is no size; write 24GB, 24GiB or the number of bytes.", context, parameter
        )
    factor = 1024 ** list(_DECIMAL).index(match[2]) if match[3] else _DECIMAL[match[2]]
    return round(float(match[1]) * factor)


#: option -> (field of `timeouts`, what it means)
TIMEOUTS: Final[Mapping[str, tuple[str, str]]] = {
    "max_duration": ("max_duration_s", "All its attempts together may run so long; then it fails."),
    "start_timeout": ("start_s", "Without a sign of work before the first step."),
    "stall_timeout": ("stall_s", "Between two steps."),
    "evaluation_timeout": ("evaluation_s", "In an evaluation."),
    "saving_timeout": ("saving_s", "While it saves."),
    "pause_timeout": ("pause_s", "For the checkpoint of a pause, before it is stopped without one."),
    "heartbeat_timeout": ("heartbeat_s", "Without a sign of life, before an alert tells it."),
}
#: option -> what it means; the field of `limits` has its name, and but for `cpu` it is bytes
LIMITS: Final[Mapping[str, str]] = {
    "cpu": "Cores that an attempt may take.",
    "memory": "The host's memory that an attempt may take, as 24GB or 24GiB.",
    "gpu_memory": "Memory that it may take on each of its GPUs.",
    "disk": "What its files may take.",
}


def bounds_options(command: Callable[P, R]) -> Callable[P, R]:
    """The options; the command gets ``timeouts`` and ``limits``, each ``None`` if nothing was said."""
    for name, text in reversed([*LIMITS.items()]):
        command = _limit(name, text)(command)
    for name, (_, text) in reversed([*TIMEOUTS.items()]):
        command = click.option(_flag(name), name, callback=seconds, metavar="DURATION", help=text)(command)

    @functools.wraps(command)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        timeouts = {field: kwargs.pop(name) for name, (field, _) in TIMEOUTS.items()}
        limits = {name: kwargs.pop(name) for name in LIMITS}
        kwargs["timeouts"] = _given(timeouts)
        kwargs["limits"] = _given(limits)
        return command(*args, **kwargs)

    return call


def _limit(name: str, text: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    if name == "cpu":
        return click.option(_flag(name), name, type=click.FloatRange(0, min_open=True), help=text)
    return click.option(_flag(name), name, callback=size, metavar="SIZE", help=text)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _given(values: Mapping[str, Any]) -> dict[str, Any] | None:
    return {field: value for field, value in values.items() if value is not None} or None
