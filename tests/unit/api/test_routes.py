"""The table of routes and its reference page."""

from __future__ import annotations

import inspect
from pathlib import Path

from finetuned.api.call import signature
from finetuned.api.openapi import plain_path
from finetuned.api.routes import OPEN_ROUTES, ROUTES

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "api.md"


def test_the_reference_lists_exactly_the_routes() -> None:
    listed = {
        tuple(cell.strip().strip("`") for cell in line.split("|")[1:5])
        for line in REFERENCE.read_text().splitlines()
        if line.startswith("| `") and line.split("|")[2].strip().startswith("`/")
    }
    scoped = {
        (route.method, plain_path(route.path), route.scope.name.lower(), route.summary) for route in ROUTES
    }
    assert listed == scoped | {(route.method, route.path, "none", route.summary) for route in OPEN_ROUTES}


def test_no_route_stands_twice() -> None:
    keys = [(route.method, route.path) for route in ROUTES]
    keys += [(route.method, route.path) for route in OPEN_ROUTES]
    assert len(keys) == len(set(keys))


def test_each_handler_says_what_it_does() -> None:
    for handler in [route.handler for route in ROUTES] + [route.handler for route in OPEN_ROUTES]:
        assert inspect.getdoc(handler), handler


def test_the_reference_names_each_field_that_a_body_may_have() -> None:
    text = REFERENCE.read_text()
    bodies = [body for route in ROUTES if (body := signature(route.handler).body) is not None]
    assert bodies
    for model in bodies:
        for name, field in model.model_fields.items():
            assert f"`{name}`" in text or f'"{name}"' in text, f"{model.__name__}.{name}"
            assert field.description, f"{model.__name__}.{name}"


def test_an_idempotency_key_is_offered_only_where_it_means_something() -> None:
    without = {route.path for route in ROUTES if route.method == "POST" and not route.keyed}
    assert {path for path in without if path.startswith(("/v1/uploads", "/v1/webhooks"))} == {
        "/v1/uploads",
        "/v1/uploads/{upload_id}/parts",
        "/v1/uploads/{upload_id}/complete",
        "/v1/uploads/{upload_id}/cancel",
        "/v1/webhooks/{webhook_id}/test",
    }
