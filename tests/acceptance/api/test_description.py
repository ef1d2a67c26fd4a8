"""The API describes itself: OpenAPI 3.1 made from the handlers, and a page of it that needs no network."""

from __future__ import annotations

import re
from typing import Any

from openapi_pydantic import OpenAPI

from finetuned.api.openapi import plain_path
from finetuned.api.routes import OPEN_ROUTES, ROUTES


async def described(client: Any) -> dict[str, Any]:
    document: dict[str, Any] = await (await client.get("/openapi.json")).json()
    return document


def references(node: Any) -> set[str]:
    """Every ``$ref`` in a document."""
    if isinstance(node, dict):
        found = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return found.union(*(references(each) for each in node.values()))
    return set().union(*(references(each) for each in node)) if isinstance(node, list) else set()


async def test_every_route_is_described_and_nothing_else(client: Any) -> None:
    document = await described(client)
    OpenAPI.model_validate(document)
    shown = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    listed = {(route.method, plain_path(route.path)) for route in ROUTES}
    assert shown == listed | {(route.method, route.path) for route in OPEN_ROUTES}


async def test_every_reference_leads_somewhere(client: Any) -> None:
    document = await described(client)
    names = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= names
    operations = {
        operation["operationId"] for item in document["paths"].values() for operation in item.values()
    }
    links = [
        link["operationId"]
        for item in document["paths"].values()
        for operation in item.values()
        for response in operation["responses"].values()
        for link in response.get("links", {}).values()
    ]
    assert links
    assert set(links) <= operations


async def test_every_parameter_and_every_field_of_a_body_says_what_it_is(client: Any) -> None:
    document = await described(client)
    for path, item in document["paths"].items():
        for method, operation in item.items():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "query":
                    assert parameter.get("description"), f"{method} {path} {parameter['name']}"
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if body is not None:
                name = body["schema"]["$ref"].rpartition("/")[2]
                for field, schema in document["components"]["schemas"][name]["properties"].items():
                    assert schema.get("description"), f"{name}.{field}"


async def test_a_range_stands_in_the_words_of_json_schema(client: Any) -> None:
    document = await described(client)
    (limit,) = [
        each for each in document["paths"]["/v1/jobs"]["get"]["parameters"] if each["name"] == "limit"
    ]
    assert limit["schema"] == {"type": "integer", "default": 50, "minimum": 1, "maximum": 1000}
    assert not limit["required"]


async def test_what_a_job_is_answered_with_is_what_is_described(client: Any) -> None:
    document = await described(client)
    job = await (await client.post("/v1/jobs", json={"kind": "fake"})).json()
    assert set(document["components"]["schemas"]["Job"]["required"]) == set(job)


async def test_the_page_shows_every_operation_and_loads_nothing(client: Any) -> None:
    response = await client.get("/docs")
    text = await response.text()
    assert response.content_type == "text/html"
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    for route in ROUTES:
        assert f"<code>{plain_path(route.path)}</code>" in text
    assert "<script" not in text
    assert not re.search(r"(src|href)=\"https?:", text)
    anchors = set(re.findall(r'id="([^"]+)"', text))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= anchors
