"""Query parameters: a model a route, an unknown or unreadable one is refused by name."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Annotated, Any, ClassVar, TypeVar, cast

from annotated_types import Ge, Le
from multidict import MultiMapping
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)

from finetuned.domain import facts
from finetuned.domain.errors import InvalidRequestError
from finetuned.spelling import nearest

LARGEST_PAGE = 1000
LARGEST_SEQ = 2**53 - 1  # what JSON carries exactly
FLAGS = {"true": True, "1": True, "false": False, "0": False}

Q = TypeVar("Q", bound="Query")


class Query(BaseModel):
    """The base of all query models. Each field is a parameter."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    #: fields that are given as ``field[key]=value``, once for each key
    maps: ClassVar[frozenset[str]] = frozenset()


def _digits(value: Any) -> Any:
    if isinstance(value, str) and not (value.isascii() and value.isdigit() and len(value) <= 19):
        raise ValueError("no digits")
    return value


def _flag(value: Any) -> Any:
    if isinstance(value, str) and value not in FLAGS:
        raise ValueError(f"must be true or false; got {value[:40]!r}")
    return FLAGS[value] if isinstance(value, str) else value


def _split(value: Any) -> Any:
    return [each.strip() for each in value.split(",")] if isinstance(value, str) else value


def _event_type(value: str) -> str:
    if value not in facts.SCHEMAS:
        raise ValueError(f"{value[:80]!r} is not known.{_hint(value, facts.SCHEMAS)}")
    return value


#: a whole number, written in digits; give its range by ``Field(ge=…, le=…)``
Whole = Annotated[int, BeforeValidator(_digits)]
#: true or false
Flag = Annotated[bool, BeforeValidator(_flag)]
#: some values, separated by commas
Names = Annotated[frozenset[str], BeforeValidator(_split)]
#: types of events, separated by commas
EventTypes = Annotated[
    frozenset[
        Annotated[
            str, AfterValidator(_event_type), WithJsonSchema({"type": "string", "enum": list(facts.SCHEMAS)})
        ]
    ],
    BeforeValidator(_split),
]
#: how many items a page has
Limit = Annotated[Whole, Field(ge=1, le=LARGEST_PAGE, description="how many items a page has at most")]


class PageQuery(Query):
    """Which page of a list that is seldom longer than one."""

    after: str | None = Field(default=None, description="the next_after of the page before")
    limit: Limit = LARGEST_PAGE


def spelled(pattern: str, longest: int) -> WithJsonSchema:
    """Has the description say how a text must be spelled; who checks it is the domain, in its own words."""
    return WithJsonSchema({"type": "string", "minLength": 1, "maxLength": longest, "pattern": pattern})


#: the name of a dataset or a template: one segment of a path
Name = Annotated[str, spelled(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$", 96)]
#: an absolute path on the server
AbsolutePath = Annotated[str, spelled(r"^/[^\x00]*$", 4096)]
#: a moment of the past
At = Annotated[
    str,
    Field(
        description="as it was then: after the event at this position, or at this time (RFC 3339)",
        examples=["1234", "2026-01-31T12:00:00Z"],
    ),
]


def read(model: type[Q], given: MultiMapping[str]) -> Q:
    """The parameters of a request. Raises ``InvalidRequestError`` that names the parameter and the remedy."""
    mapped = _mapped(given, model.maps)
    taken = [name for keys in mapped.values() for name in keys.values()]
    fields = [f"{name}[KEY]" if name in model.maps else name for name in model.model_fields]
    check_names(given, fields, taken)
    plain = {name: value for name, value in given.items() if name not in taken}
    maps = {field: {key: given[name] for key, name in keys.items()} for field, keys in mapped.items()}
    try:
        return model.model_validate({**plain, **maps})
    except ValidationError as error:
        raise _refusal(error, model) from None


def _mapped(given: MultiMapping[str], fields: Iterable[str]) -> dict[str, dict[str, str]]:
    """The parameters ``field[key]`` by field and key."""
    found: dict[str, dict[str, str]] = {}
    for name in given:
        field, bracket, key = name.partition("[")
        if bracket and key.endswith("]") and field in fields:
            found.setdefault(field, {})[key[:-1]] = name
    return found


def check_names(given: MultiMapping[str], known: list[str], taken: Collection[str] = ()) -> None:
    """Refuse parameters that are neither ``known`` nor ``taken`` otherwise, or given more than once."""
    for name in given:
        if name not in known and name not in taken:
            listed = f" The parameters are {', '.join(known)}." if known else " This route takes none."
            raise InvalidRequestError(
                f"{name[:80]} is not a known query parameter.{nearest(name, known) or listed}",
                param=name[:80],
                code="unknown_parameter",
            )
        if len(given.getall(name)) > 1:
            raise InvalidRequestError(f"{name} is given more than once; give it once.", param=name)


def whole_number(name: str, value: str, *, lowest: int, highest: int) -> int:
    """``value`` as a number. Raises ``InvalidRequestError``."""
    if value.isascii() and value.isdigit() and len(value) <= 19 and lowest <= int(value) <= highest:
        return int(value)
    raise InvalidRequestError(_whole(name, value, lowest, highest), param=name)


def _refusal(error: ValidationError, model: type[Query]) -> InvalidRequestError:
    first = error.errors(include_url=False)[0]
    if first["type"] == "missing":
        name = str(first["loc"][0])
        return InvalidRequestError(
            f"{name} is missing; give it a value.", param=name, code="missing_parameter"
        )
    name, value = str(first["loc"][0]) if first["loc"] else "", str(first["input"])
    if not name:  # of a validator of the whole query
        return InvalidRequestError(_said(first["msg"]), param=None)
    span = _range(model, name)
    if span is not None:
        message = _whole(name, value, *span)
    elif first["type"] in {"literal_error", "enum"}:
        known = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        message = f"{name}: {value[:80]!r} is not known.{_hint(value, known)}"
    else:
        separator = ": " if first["msg"].startswith("Value error, '") else " "
        message = f"{name}{separator}{_said(first['msg'])}."
    return InvalidRequestError(re.sub(r"([.?])\.$", r"\1", message), param=name)


def _said(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _whole(name: str, value: str, lowest: int, highest: int) -> str:
    return f"{name} must be a whole number from {lowest} to {highest}; got {value[:40]!r}."


def _range(model: type[Query], name: str) -> tuple[int, int] | None:
    """The range of a number's field; ``None`` for a field that is no number."""
    metadata = model.model_fields[name].metadata
    lowest = next((each.ge for each in metadata if isinstance(each, Ge)), None)
    highest = next((each.le for each in metadata if isinstance(each, Le)), None)
    if lowest is None or highest is None:
        return None
    return cast("int", lowest), cast("int", highest)


def _hint(value: str, known: Iterable[str]) -> str:
    return nearest(value, known) or f" It may be {', '.join(known)}."
