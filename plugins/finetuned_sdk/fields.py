"""Fields of facts: what a plugin reports is brought into the shape that the log keeps, or refused.

Refused where it is reported, so that the plugin's author sees the line that did it; a fact that does not fit
would be refused by the daemon, hours later and far away.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, Final

from finetuned_sdk.errors import PluginError
from finetuned_sdk.spool import plain

NAME_LIMIT: Final = 200  # bytes of a name: a phase, a metric, a model
TEXT_LIMIT: Final = 4096  # bytes of a sentence


def text(value: Any, what: str, *, limit: int = TEXT_LIMIT) -> str:
    """A text, cut at ``limit`` bytes. Raises ``PluginError`` if it is none."""
    if not isinstance(value, str):
        raise PluginError(f"{what} must be text, not {type(value).__name__}; correct the plugin.")
    return short(value, limit)


def short(value: str, limit: int = TEXT_LIMIT) -> str:
    """The text, or its beginning with an ellipsis, in ``limit`` bytes of UTF-8."""
    data = value.encode("utf-8", "replace")
    if len(data) <= limit:
        return value
    return data[: limit - len("…".encode())].decode("utf-8", "ignore") + "…"


def whole(value: Any, what: str) -> int:
    """A whole number, numpy's and torch's included. Raises ``PluginError`` if it is none."""
    try:
        return operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        raise PluginError(
            f"{what} must be a whole number, not {type(value).__name__}; correct the plugin."
        ) from None


def figures(values: Mapping[str, Any], what: str) -> dict[str, float | None]:
    """Numbers by name; those that are not finite become ``None``. Raises ``PluginError`` for anything else."""
    found: dict[str, float | None] = {}
    for name, value in values.items():
        number = plain(value)
        if number is not None and not isinstance(number, (int, float)):
            raise PluginError(
                f"{what} {short(str(name), NAME_LIMIT)!r} must be a number, not {type(value).__name__};"
                " rows and texts belong in an artifact."
            )
        found[short(str(name), NAME_LIMIT)] = number
    return found


def scalars(values: Mapping[str, Any]) -> dict[str, float | str | bool | None]:
    """Numbers, truth values and short texts by name; whatever else is there becomes a short text."""
    found: dict[str, float | str | bool | None] = {}
    for name, value in values.items():
        each = plain(value)
        is_scalar = each is None or isinstance(each, (bool, int, float))
        found[short(str(name), NAME_LIMIT)] = each if is_scalar else short(str(each), NAME_LIMIT)
    return found


def model_name(value: Any) -> str:
    """A name that a model can have: it is shown on one line and is one segment of a URL's path.

    Raises ``PluginError`` if it is none.
    """
    if not isinstance(value, str) or not _is_name(value):
        raise PluginError(
            f"{short(str(value), NAME_LIMIT)!r} is no name for a model; use up to {NAME_LIMIT} printable"
            " characters without slashes."
        )
    return value


def _is_name(value: str) -> bool:
    return (
        0 < len(value) <= NAME_LIMIT
        and value.isprintable()
        and value == value.strip()
        and value not in {".", ".."}
        and not {"/", "\\"} & set(value)
    )
