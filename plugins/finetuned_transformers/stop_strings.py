"""Strings that end a completion, wherever the tokens part them. Pure."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Lets text through up to the first of the strings. What may be the beginning of one is held back."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = tuple(strings)
        self._held = ""
        self.found = False

    def add(self, text: str) -> str:
        """What of the text so far may be told now."""
        self._held += text
        places = [at for at in (self._held.find(each) for each in self._strings) if at >= 0]
        if places:
            self.found = True
            told, self._held = self._held[: min(places)], ""
            return told
        keep = self._beginning()
        told = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return told

    def rest(self) -> str:
        """What was held back and has become none."""
        told, self._held = self._held, ""
        return told

    def _beginning(self) -> int:
        """How long the longest end of the text is that one of the strings begins with."""
        longest = max((len(each) - 1 for each in self._strings), default=0)
        lengths = range(min(longest, len(self._held)), 0, -1)
        return next(
            (n for n in lengths if any(each.startswith(self._held[-n:]) for each in self._strings)), 0
        )
