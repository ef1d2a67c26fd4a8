"""Complaints of pydantic as refusals: one sentence that names the field and the remedy."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ValidationError

from finetuned.domain.errors import InvalidRequestError
from finetuned.spelling import nearest


def invalid(
    error: ValidationError, known: Iterable[str], *, prefix: str, quote: bool = True
) -> InvalidRequestError:
    """The first of pydantic's complaints as one sentence with the remedy; it quotes the value if it may."""
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    param = f"{prefix}{path}" if path else prefix.rstrip(".") or None
    if first["type"] == "extra_forbidden":
        message = f"{param} is not a known parameter.{nearest(str(first['loc'][-1]), known)}"
        return InvalidRequestError(message, param=param, code="unknown_parameter")
    if first["type"] == "missing":
        return InvalidRequestError(
            f"{param} is missing; give it a value.", param=param, code="missing_parameter"
        )
    what = f"{param}: " if param else "The body: "
    more = len(error.errors()) - 1
    tail = f" ({more} more problem{'s' if more > 1 else ''} in this request.)" if more else ""
    text = first["msg"][:1].lower() + first["msg"][1:]
    got = f"; got {_shown(first['input'])}" if quote and not path.startswith("secrets") else ""
    return InvalidRequestError(f"{what}{text}{got}.{tail}", param=param, code="invalid_params")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
