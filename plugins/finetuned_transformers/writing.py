"""A completion as text: what its tokens become, piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from finetuned_transformers.detokenizer import Detokenizer, Tokenizer, decoding, naming
from finetuned_transformers.row_sampling import Drawn
from finetuned_transformers.rows import Finish
from finetuned_transformers.stop_strings import StopStrings

_LEAST: Final = -9999.0  # JSON has no -inf


@dataclass(frozen=True, slots=True)
class Likely:
    """A token's text and its log-probability."""

    text: str
    log_prob: float


@dataclass(frozen=True, slots=True)
class Told:
    """A token of a completion, where its text begins in it, and the likeliest tokens at its place."""

    token: Likely
    offset: int
    top: tuple[Likely, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of one completion, the tokens that became certain with it, and how it ended, if it did."""

    place: int
    text: str
    tokens: tuple[Told, ...] = ()
    finish: Finish | None = None


@dataclass(slots=True)
class Writing:
    """One completion. ``tells`` says whether log-probabilities are wanted."""

    place: int
    tokenizer: Tokenizer
    stops: StopStrings
    tells: bool = False
    before: Sequence[int] = ()  # the tokens that it goes on from, if it does
    generated: int = 0  # tokens that it was made of
    _length: int = 0  # characters that were told
    _read: int = 0  # characters that the tokens have become
    _tokens: list[Told] = field(default_factory=list)
    _detokenizer: Detokenizer = field(init=False)
    _name: Callable[[int], str] = field(init=False)

    def __post_init__(self) -> None:
        self._detokenizer = Detokenizer(decoding(self.tokenizer), self.before)
        self._name = naming(self.tokenizer) if self.tells else str

    def add(self, drawn: Drawn) -> Piece | None:
        """What can be told with one token more; its ``finish`` is ``stop`` if a string has ended it."""
        self.generated += 1
        text = self._detokenizer.add(drawn.id)
        if self.tells:
            self._tokens.append(self._told(drawn))
        self._read += len(text)
        told = self.stops.add(text)
        if self.stops.found:
            return self._piece(told, "stop")
        return self._piece(told) if told else None

    def end(self, finish: Finish) -> Piece:
        """The last piece. A completion that has not come to its length has ended itself, with a token of its own."""
        self.generated += finish == "stop"
        told = self.stops.add(self._detokenizer.rest())
        if self.stops.found:
            return self._piece(told, "stop")
        return self._piece(told + self.stops.rest(), finish)

    def _piece(self, text: str, finish: Finish | None = None) -> Piece:
        self._length += len(text)
        if finish is None:
            ready = [each for each in self._tokens if each.offset < self._length]
        elif self.stops.found:  # those of the string are no part of the text
            ready = [each for each in self._tokens if each.offset < self._length]
            self._tokens = []
        else:
            ready = self._tokens
        self._tokens = self._tokens[len(ready) :]
        return Piece(self.place, text, tuple(ready), finish)

    def _told(self, drawn: Drawn) -> Told:
        top = tuple(self._likely(token, log_prob) for token, log_prob in drawn.top)
        return Told(self._likely(drawn.id, drawn.log_prob), self._read, top)

    def _likely(self, token: int, log_prob: float) -> Likely:
        return Likely(self._name(token), max(log_prob, _LEAST))


def joined(pieces: Sequence[Piece]) -> Piece:
    """A completion's pieces as one."""
    tokens = tuple(told for piece in pieces for told in piece.tokens)
    return Piece(pieces[-1].place, "".join(piece.text for piece in pieces), tokens, pieces[-1].finish)
