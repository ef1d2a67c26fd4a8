"""What a teacher says of the tokens of completions, and who can be asked for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt and a completion of it, as token ids; each has at least one, the completion's end of turn included."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the loss needs of the teacher: its hidden states (the whole distribution), or its ``top_k`` tokens.

    The log-probability of each token of the completion is given unless ``log_probs`` is off: of hidden states the loss
    makes the logits itself, and the teacher need not. ``tokens`` is how many tokens of a completion are scored, from its
    first on; ``None`` is all.
    """

    hidden: bool = False
    top_k: int = 0
    tokens: int | None = None
    log_probs: bool = True

    def of(self, row: Row) -> int:
        """How many tokens of the row's completion are scored."""
        return len(row.completion) if self.tokens is None else min(self.tokens, len(row.completion))


@dataclass(frozen=True, slots=True)
class Scores:
    """What the teacher says of the first ``n`` tokens of one completion, at temperature 1. On the CPU.

    log_probs       [n] float32: log π_T(y_t | x, y_<t); [0] if they are not wanted
    hidden          [n, H]: the teacher's last hidden states before each of them, which its head makes logits of
    top_ids         [n, k] int64: its likeliest tokens, the likeliest first
    top_log_probs   [n, k] float32: their log-probabilities
    """

    log_probs: Tensor
    hidden: Tensor | None = None
    top_ids: Tensor | None = None
    top_log_probs: Tensor | None = None


class Teacher(Protocol):
    """Who scores completions. Whole rows go in and come out, so that a cache can stand before it."""

    @property
    def identity(self) -> str | None:
        """What its scores depend on, as a hash; ``None`` if that is not known, and nothing may be kept."""

    def score(self, rows: Sequence[Row], wanted: Wanted) -> list[Scores]:
        """The scores of each row. Raises ``TeacherError`` if it cannot be asked."""
