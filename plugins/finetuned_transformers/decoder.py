"""What computes: a batch that rows join and leave between any two tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from finetuned_sdk.engines import Adapter


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a row begins with. ``limit``: tokens that prompt and completion may have together; ``adapter``: its name."""

    ids: Sequence[int]
    limit: int
    adapter: str | None = None


class Decoder(Protocol):
    """Used by one thread, without gradients. Rows are counted in the order in which they joined or were kept."""

    def join(self, prompts: Sequence[Prompt]) -> Tensor:
        """Compute prompts and append them as rows; the logits of their first tokens. [n, V]."""

    def prepare(self, prompt: Prompt, tokens: int) -> int:
        """Compute so many tokens more of a prompt that joins later, its last one excepted; how many it has by now.

        One at a time. What is lost of it before it joins, or is missing then, is computed then.
        """

    def step(self, tokens: Tensor) -> Tensor:
        """The logits that follow, once each row has gone on by its token. [rows] -> [rows, V]."""

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone, in this order. None moves to a later place than the one it has."""

    def score(self, ids: Sequence[int], adapter: str | None) -> Tensor:
        """Log-probabilities of each token but the first; [n - 1] float32."""

    def add_adapter(self, adapter: Adapter) -> None:
        """Load an adapter. Raises ``RequestError`` if it does not fit."""

    def drop_adapter(self, name: str) -> None:
        """Let go of an adapter that no row uses."""

    def free(self) -> None:
        """Let go of all memory. Nothing is asked afterwards."""
