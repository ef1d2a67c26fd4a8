"""``--param k=v`` and ``--callback NAME:k=v``: text to values, by the kind's JSON schema. Pure but for paths."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from finetuned.domain.errors import InvalidRequestError
from finetuned.spelling import nearest

Json = Any
Schema = Mapping[str, Json]

TRUE = frozenset({"true", "yes", "on", "1"})
FALSE = frozenset({"false", "no", "off", "0"})
NULL = frozenset({"null", "none", ""})

#: What a relative path may stand for. Bare names of models are left to the daemon: they may be registered.
DATA_PARAMS = frozenset({"dataset", "eval_dataset", "file", "path"})
MODEL_PARAMS = frozenset({"model", "adapter"})
FILE_SUFFIXES = frozenset({".jsonl", ".json", ".csv", ".parquet", ".gguf", ".whl", ".zip", ".txt"})


def parse_params(texts: Iterable[str], kind: str, schema: Schema) -> dict[str, Json]:
    """The parameters behind ``k=v`` texts. Raises ``InvalidRequestError`` that names the parameter."""
    return {name: parse(name, text, kind, schema) for name, text in map(split, texts)}


def split(text: str) -> tuple[str, str]:
    """``k=v`` as a pair. Raises ``InvalidRequestError`` where there is no ``=``."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise InvalidRequestError(
            f"{text!r} is not a parameter; write it as name=value, for instance max_steps=100.", param=text
        )
    return name.strip(), value


def parse(name: str, text: str, kind: str, schema: Schema) -> Json:
    """One parameter's value by its schema. Raises ``InvalidRequestError`` for a name or a value that is wrong."""
    properties: Mapping[str, Schema] = schema.get("properties", {})
    if name not in properties:
        if schema.get("additionalProperties", True) is not False:
            return guess(text)
        raise InvalidRequestError(
            f"{kind} has no parameter {name!r}.{nearest(name, properties)} `finetune kinds {kind}` lists them.",
            param=f"params.{name}",
            code="unknown_parameter",
        )
    choices = list(alternatives(properties[name], schema))
    for found in _readings(text, choices, schema):
        return found
    wanted = " or ".join(dict.fromkeys(describe(choice, schema) for choice in choices))
    raise InvalidRequestError(
        f"{name} takes {wanted}; got {text!r}.", param=f"params.{name}", code="invalid_params"
    )


def guess(text: str) -> Json:
    """A value where nothing says what it should be: JSON if it is that, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def dump(value: Json) -> str:
    """A value as JSON on one line."""
    return json.dumps(value, ensure_ascii=False)


def alternatives(schema: Schema, root: Schema) -> Iterator[Schema]:
    """The plain schemas that ``schema`` allows, its references followed."""
    if "$ref" in schema:
        target: Json = root
        for part in str(schema["$ref"]).removeprefix("#/").split("/"):
            target = target[part]
        yield from alternatives(target, root)
    elif options := schema.get("anyOf") or schema.get("oneOf"):
        for option in options:
            yield from alternatives(option, root)
    elif isinstance(schema.get("type"), list):
        for one in schema["type"]:
            yield {**schema, "type": one}
    else:
        yield schema


def _readings(text: str, choices: list[Schema], root: Schema) -> Iterator[Json]:
    """What ``text`` can be read as, the most exact first: a number is not kept as text if it may be one."""
    for read in (_as_choice, _as_bool, _as_number, _as_null, _as_structure, _as_text, _as_list):
        for schema in choices:
            yield from read(text, schema, root)


def _as_choice(text: str, schema: Schema, _root: Schema) -> Iterator[Json]:
    options = schema.get("enum", [schema["const"]] if "const" in schema else [])
    yield from (option for option in options if str(option) == text)


def _as_bool(text: str, schema: Schema, _root: Schema) -> Iterator[Json]:
    if schema.get("type") == "boolean" and text.strip().lower() in TRUE | FALSE:
        yield text.strip().lower() in TRUE


def _as_number(text: str, schema: Schema, _root: Schema) -> Iterator[Json]:
    if schema.get("type") not in {"integer", "number"}:
        return
    try:
        value = float(text)
    except ValueError:
        return
    whole = value.is_integer()
    if schema["type"] == "integer" and whole:
        yield int(text) if text.strip().lstrip("+-").isdecimal() else int(value)
    elif schema["type"] == "number":
        yield value


def _as_null(text: str, schema: Schema, _root: Schema) -> Iterator[Json]:
    if schema.get("type") == "null" and text.strip().lower() in NULL:
        yield None


def _as_structure(text: str, schema: Schema, root: Schema) -> Iterator[Json]:
    value = guess(text)
    if (isinstance(value, dict) and schema.get("type") == "object") or (
        isinstance(value, list) and schema.get("type") == "array"
    ):
        yield value
    elif "," in text:
        yield from _as_list(text, schema, root)


def _as_list(text: str, schema: Schema, root: Schema) -> Iterator[Json]:
    """Items between commas; one item alone is a list of one."""
    if schema.get("type") != "array":
        return
    items = list(alternatives(schema.get("items", {}), root))
    readings = [list(_readings(part.strip(), items, root))[:1] for part in text.split(",")]
    if all(readings):
        yield [reading[0] for reading in readings]


def _as_text(text: str, schema: Schema, _root: Schema) -> Iterator[Json]:
    if schema.get("type", "string") == "string" and "enum" not in schema and "const" not in schema:
        yield text


def describe(schema: Schema, root: Schema) -> str:
    """What a schema takes, in words."""
    if "enum" in schema:
        return "one of " + ", ".join(str(option) for option in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    match schema.get("type"):
        case "integer":
            return "a whole number"
        case "number":
            return "a number"
        case "boolean":
            return "true or false"
        case "null":
            return "null"
        case "array":
            items = list(alternatives(schema.get("items", {}), root))
            if any(item.get("type") == "object" for item in items):
                return "a JSON list of objects"
            return "values with commas between them, or a JSON list"
        case "object":
            return "a JSON object"
        case _:
            return "text"


# ---- callbacks -------------------------------------------------------------------------------------------


def parse_callback(text: str) -> dict[str, Json]:
    """``NAME`` or ``NAME:k=v,k=v`` as one entry of ``callbacks``; the daemon checks the values."""
    name, _, rest = text.partition(":")
    if not name.strip():
        raise InvalidRequestError(
            f"{text!r} names no callback; write NAME or NAME:key=value,key=value.", param="callbacks"
        )
    if rest.lstrip().startswith("{"):
        params = guess(rest)
        if not isinstance(params, dict):
            raise InvalidRequestError(f"The parameters of {name} are not JSON: {rest!r}.", param="callbacks")
        return {"name": name.strip(), "params": params}
    pairs = [split(pair) for pair in rest.split(",") if pair.strip()]
    return {"name": name.strip(), "params": {key: guess(value) for key, value in pairs}}


# ---- paths -----------------------------------------------------------------------------------------------


def absolute_paths(params: Mapping[str, Json], *, here: Path) -> dict[str, Json]:
    """``params`` with relative paths made absolute, because the daemon works elsewhere.

    Raises ``InvalidRequestError`` for what must be a file and is not there.
    """
    return {name: _absolute(name, value, here) for name, value in params.items()}


def _absolute(name: str, value: Json, here: Path) -> Json:
    if name == "callbacks" and isinstance(value, list):
        return [
            {**each, "params": absolute_paths(each["params"], here=here)}
            if isinstance(each, dict) and isinstance(each.get("params"), dict)
            else each
            for each in value
        ]
    if not isinstance(value, str) or name not in DATA_PARAMS | MODEL_PARAMS:
        return value
    if value.startswith(("dataset:", "file:")):
        return value
    path = Path(value).expanduser()
    if path.is_absolute():
        return str(path)
    is_path = value.startswith(("./", "../")) or value in {".", ".."}
    if name in DATA_PARAMS:
        is_path = is_path or path.suffix.lower() in FILE_SUFFIXES
        if is_path and not (here / path).exists():
            raise InvalidRequestError(
                f"There is no {value} in {here}. Give a path that is there.", param=f"params.{name}"
            )
        is_path = is_path or (here / path).exists()
    else:
        is_path = is_path or ("/" in value and (here / path).exists())
    return str((here / path).resolve()) if is_path else value
