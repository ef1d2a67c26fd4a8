"""Text from elsewhere as a terminal may be given it: names and messages hold whatever somebody put there. Pure."""

from __future__ import annotations

from typing import Final

_PICTURES: Final = 0x2400  # the block of pictures that stand for the control characters of ASCII
_UNSEEN: Final = ord("\N{REPLACEMENT CHARACTER}")
_DELETE: Final = 0x7F

#: Control characters but line feed and tab, and marks that turn the direction of writing: each becomes one visible sign.
_VISIBLE: Final = (
    {code: _PICTURES + code for code in range(0x20) if chr(code) not in "\n\t"}
    | {_DELETE: ord("\N{SYMBOL FOR DELETE}")}
    | dict.fromkeys((*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), _UNSEEN)
)
_IN_A_FIELD: Final = {**_VISIBLE, ord("\n"): _PICTURES + ord("\n"), ord("\t"): _PICTURES + ord("\t")}
_IN_JSON: Final = {code: f"\\u{code:04x}" for code in (_DELETE, *range(0x80, 0xA0))}


def visible(text: str) -> str:
    """``text`` of the same length without anything that a terminal would obey; lines and tabs stay."""
    return text.translate(_VISIBLE)


def field(text: str) -> str:
    """As :func:`visible`, with neither lines nor tabs: one field of a line."""
    return text.translate(_IN_A_FIELD)


def document(text: str) -> str:
    """JSON of the same meaning, with every control character escaped that JSON itself allows as it is."""
    return text.translate(_IN_JSON)
