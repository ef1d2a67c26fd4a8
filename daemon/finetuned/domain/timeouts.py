"""How long which silence of an attempt is borne: the defaults, in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

DEFAULTS: Final[Mapping[str, float | None]] = {
    "heartbeat_s": 30.0,  # without a sign of life of its process, before that is told
    "start_s": 1800.0,  # without a sign of work before the first step, loading and compiling included
    "stall_s": 600.0,  # between two steps
    "evaluation_s": 3600.0,  # in a phase of evaluation
    "saving_s": 1800.0,  # while it saves
    "pause_s": 30.0,  # for the checkpoint of a pause
    "max_duration_s": None,  # of all its attempts together
}


def resolved(*layers: Mapping[str, float | None]) -> dict[str, float | None]:
    """The defaults with each layer's values over those before."""
    found = dict(DEFAULTS)
    for layer in layers:
        found.update(layer)
    return found
