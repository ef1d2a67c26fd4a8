"""The table of routes and its reference page."""

from __future__ import annotations

import inspect
from pathlib import Path

from finetuned.api import body
from finetuned.api.auth import HostRefusedError
from finetuned.api.call import signature
from finetuned.api.openapi import plain_path
from finetuned.api.routes import OPEN_ROUTES, ROUTES
from finetuned.domain import errors

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


def test_the_reference_names_the_code_and_status_of_each_error_a_client_can_see() -> None:
    rows = [line for line in REFERENCE.read_text().splitlines() if line[:3] in {"| 4", "| 5"}]
    for error in (
        errors.InvalidRequestError, errors.AuthenticationError, errors.PermissionDeniedError, errors.NotFoundError,
        errors.TooLargeError, errors.StorageFullError, errors.UnavailableError, HostRefusedError,
    ):  # fmt: skip
        assert any(row.startswith(f"| {error.status} ") and f"`{error.code}`" in row for row in rows), error
    media_type = body.UnsupportedMediaTypeError
    assert any(row.startswith(f"| {media_type.status} ") for row in rows)
