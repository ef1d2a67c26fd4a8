"""Tokens to text as they come, in pieces that never split a character."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

_INCOMPLETE: Final = "\ufffd"  # what bytes that are no whole character are decoded to
_LONGEST_CHARACTER: Final = 4  # tokens: it has no more bytes
CONTEXT: Final = 5  # tokens before a text that it may depend on how it reads


class Tokenizer(Protocol):
    """What turns tokens into text."""

    def decode(
        self, token_ids: Sequence[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool
    ) -> str: ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


Decode = Callable[[Sequence[int]], str]


def decoding(tokenizer: Tokenizer) -> Decode:
    """What turns tokens into text, special ones left out.

    A fast tokenizer's own is asked: what the library does around it takes several times as long, for each token of each row.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return lambda ids: str(backend.decode(ids, skip_special_tokens=True))
    return lambda ids: str(
        tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    )


def naming(tokenizer: Tokenizer) -> Callable[[int], str]:
    """What tells one token's text, as it reads behind others: at the beginning of a text some drop a space."""
    before = tokenizer.encode("a", add_special_tokens=False)[-1:]

    def text(*tokens: int) -> str:
        return tokenizer.decode(
            [*before, *tokens], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )

    begins = len(text())
    return lambda token: text(token)[begins:]


class Detokenizer:
    """The text of one completion. How a token reads depends on those before it, so a few of them are decoded along."""

    def __init__(self, decode: Decode, before: Sequence[int] = ()) -> None:
        """``before`` is what the text goes on from: some tokenizers drop the space that a text would begin with."""
        self._decode = decode
        self._ids = list(before[-CONTEXT:])
        self._from = 0  # tokens before do not matter any more
        self._told = len(self._ids)  # tokens whose text was given

    def add(self, token: int) -> str:
        """The text that is certain with one token more; empty in the middle of a character."""
        self._ids.append(token)
        before, now = self._text(self._told), self._text(len(self._ids))
        if not now.endswith(_INCOMPLETE) and len(now) > len(before):
            return self._tell(len(self._ids), now[len(before) :])
        for end in self._settled():
            text = self._text(end)
            if now.startswith(text):
                return self._tell(end, text[len(before) :])
        return ""

    def _settled(self) -> range:
        """Where tokens may end that no later one belongs to, although they have become no text, or no whole characters."""
        if len(self._ids) - self._told < 2 * _LONGEST_CHARACTER:
            return range(0)
        last = len(self._ids) - _LONGEST_CHARACTER
        return range(last, last - _LONGEST_CHARACTER, -1)

    def _tell(self, end: int, text: str) -> str:
        self._from, self._told = self._told, end
        return text

    def rest(self) -> str:
        """What is left at the end: bytes that have become no character."""
        before, now = self._text(self._told), self._text(len(self._ids))
        self._told = len(self._ids)
        return now[len(before) :]

    def _text(self, end: int) -> str:
        return self._decode(self._ids[self._from : end])
