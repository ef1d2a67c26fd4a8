"""What a job's worker is told of the engine that it may ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from finetuned_sdk.engines.engine import Adapter


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineState:
    """``waiting``: there is none yet, or it has ended and another comes; ``reason`` says what it waits for.

    ``ready``: it listens on ``socket``. ``failed``: there will be none, and ``reason`` says why. ``adapter`` is the one
    to name in requests, if the job's model is an adapter.
    """

    state: Literal["waiting", "ready", "failed"] = "waiting"
    socket: str | None = None
    reason: str | None = None
    adapter: Adapter | None = None

    def to_data(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """The state behind stored data."""
        adapter = data.get("adapter")
        return cls(**{**data, "adapter": None if adapter is None else Adapter(**adapter)})
