"""Tokens to text as they come, in pieces that never split a character."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

_INCOMPLETE: Final = "\ufffd"  # what bytes that are no whole character are decoded to


class Tokenizer(Protocol):
    """What turns tokens into text."""

    def decode(
        self, token_ids: Sequence[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool
    ) -> str: ...


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


class Detokenizer:
    """The text of one completion. How a token reads depends on those before it, so a few of them are decoded along."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._from = 0  # tokens before do not matter any more
        self._told = 0  # tokens whose text was given

    def add(self, token: int) -> str:
        """The text that is certain with one token more; empty in the middle of a character."""
        self._ids.append(token)
        before, now = self._text(self._told), self._text(len(self._ids))
        if now.endswith(_INCOMPLETE) or len(now) <= len(before):
            return ""
        self._from, self._told = self._told, len(self._ids)
        return now[len(before) :]

    def rest(self) -> str:
        """What is left at the end: bytes that have become no character."""
        before, now = self._text(self._told), self._text(len(self._ids))
        self._told = len(self._ids)
        return now[len(before) :]

    def _text(self, end: int) -> str:
        return self._decode(self._ids[self._from : end])
