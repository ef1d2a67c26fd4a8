"""What an engine is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Json = Any


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter over the engine's model: a name of its own for each content, and its directory."""

    name: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. ``endpoint`` is a path of the OpenAI API (``/v1/chat/completions``), ``body`` what is sent there.

    ``body["model"]`` is the name that the answer repeats; which weights answer is said by ``adapter``. Of requests that
    wait for a place those of higher ``priority`` go first, if the engine has an order of its own.
    """

    endpoint: str
    body: Mapping[str, Json]
    adapter: Adapter | None = None
    priority: int = 0

    @property
    def streams(self) -> bool:
        """Whether the answer is to come in chunks."""
        return bool(self.body.get("stream"))


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatus:
    """How busy an engine is. ``kv_used`` is the share of its cache that is taken, 0 to 1; ``None`` if it has no such cache.

    ``tokens`` counts all that were computed or generated since it began, so that it grows while the engine gets on.
    """

    running: int
    waiting: int
    tokens: int
    kv_used: float | None = None
    adapters: tuple[str, ...] = ()


class Engine(Protocol):
    """A model that is loaded and answers, many requests at once. All methods are called on one event loop."""

    @property
    def context_length(self) -> int:
        """Tokens that a prompt and its completion may have together."""

    def answer(self, request: Request) -> AsyncGenerator[Json, None]:
        """The answer's body, or its chunks one after another if the request streams.

        Closed before its end, or cancelled, the request is aborted and takes no more time. Raises ``RequestError``
        before the first part for what the engine cannot do: a parameter that it does not know is named, never dropped.
        Raises ``EngineGoneError`` if the engine has failed at what is nobody's own: it is asked again of the next one.
        """

    async def score(
        self, sequences: Sequence[Sequence[int]], adapter: Adapter | None = None
    ) -> list[list[float]]:
        """Log-probabilities at temperature 1 of each token but the first of each sequence, given those before it.

        Raises ``RequestError`` for a sequence that is too long.
        """

    async def add_adapter(self, adapter: Adapter) -> None:
        """Load an adapter; one that is there already changes nothing. Raises ``RequestError`` if it does not fit the model."""

    async def drop_adapter(self, name: str) -> None:
        """Let go of an adapter's memory. Requests that use it end first."""

    def status(self) -> EngineStatus:
        """How busy it is. Cheap. Raises what the engine has failed of, if it has: its process ends then."""

    async def close(self) -> None:
        """Abort what runs and free the device's memory. Nothing is asked afterwards."""
