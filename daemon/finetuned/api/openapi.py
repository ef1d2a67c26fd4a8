"""OpenAPI 3.1 from the table of routes and the annotations of its handlers.

pydantic makes the schemas, openapi-pydantic the document; nothing is described a second time. Both are imported
when somebody asks for the document, not when the daemon starts.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import UnionType
from typing import Any, Union, get_args, get_origin

from aiohttp import web
from openapi_pydantic import (
    Components,
    Header,
    Info,
    Link,
    MediaType,
    OpenAPI,
    Operation,
    PathItem,
    Reference,
    RequestBody,
    Response,
    Schema,
    SecurityScheme,
    Tag,
)
from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from finetuned import wire
from finetuned.api.call import IDEMPOTENCY_KEY, LONGEST_KEY, Encoded, Route, Signature, signature
from finetuned.api.parameters import Query

Json = Any

TEMPLATE = "#/components/schemas/{model}"
SECURITY = "token"
ABOUT = (
    "Fine-tuning on your own hardware. On the Unix socket the kernel says who you are; over TCP send a bearer token. "
    "`x-scope` names the scope that an operation needs. Every refusal has the shape `ErrorAnswer`."
)


@dataclass(frozen=True, slots=True)
class OpenOperation:
    """An operation without credentials: its method, path, summary and the shape of its answer."""

    method: str
    path: str
    summary: str
    answer: Any


class Schemas:
    """Collects every annotation, and knows the schema of each once all are there."""

    def __init__(self) -> None:
        self._wanted: dict[tuple[str, JsonSchemaMode], TypeAdapter[Any]] = {}
        self._found: dict[tuple[str, JsonSchemaMode], dict[str, Json]] = {}
        self.definitions: dict[str, Json] = {}

    def want(self, annotation: Any, mode: JsonSchemaMode) -> None:
        """Ask for an annotation's schema."""
        self._wanted[str(annotation), mode] = TypeAdapter(annotation)

    def make(self) -> None:
        """Make all schemas, what they share beside them."""
        asked = [(key, mode, adapter) for (key, mode), adapter in self._wanted.items()]
        found, shared = TypeAdapter.json_schemas(asked, ref_template=TEMPLATE)
        self._found = {(key, mode): _worded(schema) for (key, mode), schema in found.items()}
        self.definitions = _worded(shared.get("$defs", {}))

    def of(self, annotation: Any, mode: JsonSchemaMode) -> Schema | Reference:
        """The schema of an annotation, or a reference to it."""
        schema = self._found[str(annotation), mode]
        return Reference.model_validate(schema) if "$ref" in schema else Schema.model_validate(schema)


def document(
    routes: Sequence[Route], open_operations: Iterable[OpenOperation], *, version: str
) -> dict[str, Json]:
    """The whole description as JSON-ready data."""
    shapes = {id(route): signature(route.handler) for route in routes}
    schemas = Schemas()
    schemas.want(wire.ErrorAnswer, "serialization")
    for route in routes:
        shape = shapes[id(route)]
        for answer in answers(shape.answer):
            schemas.want(answer, "serialization")
        if shape.body is not None:
            schemas.want(shape.body, "validation")
        if isinstance(route.raw, type):
            schemas.want(route.raw, "validation")
    for each in open_operations:
        if each.answer is not None:
            schemas.want(each.answer, "serialization")
    schemas.make()
    paths: dict[str, dict[str, Operation]] = {}
    for route in routes:
        operation = _operation(route, shapes[id(route)], schemas, routes)
        paths.setdefault(plain_path(route.path), {})[route.method.lower()] = operation
    for each in open_operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _open_operation(each, schemas)
    made = OpenAPI(
        openapi="3.1.1",
        info=Info(title="finetuned", version=version, description=ABOUT),
        paths={path: PathItem.model_validate(operations) for path, operations in paths.items()},
        tags=[Tag(name=name) for name in dict.fromkeys(_tag(route.path) for route in routes)],
        components=Components(
            schemas={name: Schema.model_validate(each) for name, each in schemas.definitions.items()},
            securitySchemes={SECURITY: SecurityScheme(type="http", scheme="bearer")},
        ),
    )
    described: dict[str, Json] = made.model_dump(mode="json", by_alias=True, exclude_none=True)
    return described


def answers(annotation: Any) -> list[Any]:
    """The JSON shapes that a handler may answer with: what is no JSON is left out."""
    if get_origin(annotation) in {Union, UnionType}:
        return [each for part in get_args(annotation) for each in answers(part)]
    if get_origin(annotation) is Encoded:
        return answers(get_args(annotation)[0])
    if isinstance(annotation, type) and issubclass(annotation, web.StreamResponse):
        return []
    return [annotation]


def plain_path(path: str) -> str:
    """The path without the patterns that the router reads."""
    return re.sub(r"\{(\w+):[^}]*\}", r"{\1}", path)


def operation_id(route: Route) -> str:
    """The name of an operation: its handler's module and name."""
    return f"{route.handler.__module__.rpartition('.')[2]}.{route.handler.__name__}"


def _operation(route: Route, shape: Signature, schemas: Schemas, routes: Sequence[Route]) -> Operation:
    return Operation.model_validate(
        {
            "operationId": operation_id(route),
            "summary": route.summary,
            "description": inspect.getdoc(route.handler),
            "tags": [_tag(route.path)],
            "parameters": [*_path_parameters(shape), *_query_parameters(shape.query), *_headers(route)]
            or None,
            "requestBody": _request_body(route, shape, schemas),
            "responses": _responses(route, shape, schemas, routes),
            "security": [{SECURITY: []}],
            "x-scope": route.scope.name.lower(),
        }
    )


def _open_operation(each: OpenOperation, schemas: Schemas) -> Operation:
    content = {"text/html": MediaType(schema=Schema(type="string"))}
    if each.answer is not None:
        content = {"application/json": MediaType(schema=schemas.of(each.answer, "serialization"))}
    return Operation(
        operationId=each.path.strip("/").replace("/", ".").replace(".json", ""),
        summary=each.summary,
        tags=["daemon"],
        responses={"200": Response(description=each.summary, content=content)} | _errors(schemas),
        security=[],
    )


def _tag(path: str) -> str:
    return path.split("/")[2] if path.startswith("/v1/") else "daemon"


def _path_parameters(shape: Signature) -> list[Json]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"minLength": 1} | TypeAdapter(each).json_schema(),
        }
        for name, each in shape.path.items()
    ]


def _query_parameters(query: type[Query] | None) -> list[Json]:
    if query is None:
        return []
    schema = query.model_json_schema(ref_template="{model}")
    shared = schema.get("$defs", {})
    return [
        _query_parameter(name, _inlined(each, shared), required=name in schema.get("required", []))
        for name, each in schema["properties"].items()
    ]


def _query_parameter(name: str, schema: dict[str, Json], *, required: bool) -> Json:
    # An absent parameter is the null of its model: the wire has no other.
    for option in [each for each in schema.pop("anyOf", []) if each.get("type") != "null"]:
        schema = {**option, **schema}
    parameter = {"name": name, "in": "query", "required": required}
    if "description" in schema:
        parameter["description"] = schema.pop("description")
    if schema.get("default", ...) is None:
        del schema["default"]
    for key in ("title", "uniqueItems"):
        schema.pop(key, None)
    for ours, theirs in (
        ("ge", "minimum"),
        ("le", "maximum"),
    ):  # behind a validator pydantic keeps its own words
        if ours in schema:
            schema[theirs] = schema.pop(ours)
    if schema.get("type") == "object":
        parameter |= {"style": "deepObject", "explode": True}
    if schema.get("type") == "array":
        schema["minItems"] = 1
        parameter |= {"style": "form", "explode": False}
    return {**parameter, "schema": _worded(schema)}


def _worded(node: Json) -> Json:
    """A schema in JSON Schema's words: for a limit behind a validator pydantic keeps its own."""
    if isinstance(node, dict):
        is_schema = isinstance(node.get("type"), str)
        words = {"ge": "minimum", "le": "maximum"} if is_schema else {}
        return {words.get(key, key): _worded(value) for key, value in node.items()}
    return [_worded(each) for each in node] if isinstance(node, list) else node


def _inlined(schema: dict[str, Json], shared: dict[str, Json]) -> dict[str, Json]:
    """The schema with its references replaced: parameters are short, and read better whole."""
    if "$ref" in schema:
        return {**shared[schema["$ref"]], **{key: value for key, value in schema.items() if key != "$ref"}}
    if "anyOf" in schema:
        return {**schema, "anyOf": [_inlined(each, shared) for each in schema["anyOf"]]}
    return dict(schema)


def _headers(route: Route) -> list[Json]:
    if route.method != "POST" or not route.keyed:
        return []
    return [
        {
            "name": IDEMPOTENCY_KEY,
            "in": "header",
            "description": "the same key within a day: the request is carried out once, however often it is sent",
            "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY, "pattern": "^[!-~]+$"},
        }
    ]


def _request_body(route: Route, shape: Signature, schemas: Schemas) -> RequestBody | None:
    if isinstance(route.raw, type):
        form = MediaType(schema=schemas.of(route.raw, "validation"))
        return RequestBody(required=True, content={"multipart/form-data": form})
    if route.raw is not None:
        binary = MediaType(schema=Schema.model_validate({"type": "string", "format": "binary"}))
        return RequestBody(required=True, content={route.raw: binary})
    if shape.body is None:
        return None
    content = {"application/json": MediaType(schema=schemas.of(shape.body, "validation"))}
    return RequestBody(required=not shape.body_is_optional, content=content)


def _responses(
    route: Route, shape: Signature, schemas: Schemas, routes: Sequence[Route]
) -> dict[str, Response]:
    content: dict[str, MediaType] = {}
    if found := answers(shape.answer):
        shapes = [schemas.of(each, "serialization") for each in found]
        content["application/json"] = MediaType(
            schema=shapes[0] if len(shapes) == 1 else Schema(anyOf=shapes)
        )
    if route.media is not None:
        content[route.media] = MediaType(schema=Schema(type="string"))
    headers: dict[str, Header | Reference] = {}
    if found and route.method == "GET":
        headers["ETag"] = Header(description="for If-None-Match", schema=Schema(type="string"))
    success = Response(
        description=HTTPStatus(route.status).phrase,
        content=content or None,
        headers=headers or None,
        links=_links(route, routes) or None,
    )
    responses = {str(status): success for status in (route.status, *route.also)}
    if headers:
        responses["304"] = Response(description="Not changed since the answer that If-None-Match names")
    return responses | _errors(schemas)


def _links(route: Route, routes: Sequence[Route]) -> dict[str, Link | Reference]:
    """What can be done with what was just made: every operation beneath the collection it was added to."""
    if route.method != "POST" or "{" in route.path:
        return {}
    item = re.compile(re.escape(route.path) + r"/\{(\w+)(?::[^}]*)?\}[^{]*")
    return {
        operation_id(each): Link(operationId=operation_id(each), parameters={match[1]: "$response.body#/id"})
        for each in routes
        if (match := item.fullmatch(each.path))
    }


def _errors(schemas: Schemas) -> dict[str, Response]:
    refusal = {"application/json": MediaType(schema=schemas.of(wire.ErrorAnswer, "serialization"))}
    return {
        "4XX": Response(description="Refused; the message says what to do", content=refusal),
        "5XX": Response(description="The daemon cannot do this now", content=refusal),
    }
