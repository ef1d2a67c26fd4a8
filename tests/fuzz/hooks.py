"""What schemathesis is told about this API beyond its description. Loaded by SCHEMATHESIS_HOOKS."""

from __future__ import annotations

import itertools
import os
from typing import Any

import schemathesis

_numbers = itertools.count()
ENDLESS = ("stream", "follow")  # a stream has no end that a test could wait for; tests of their own cover them


@schemathesis.hook
def filter_query(_context: Any, query: Any) -> bool:
    """Never ask for an endless answer."""
    return not query or not any(str(query.get(name, "")).lower() in {"true", "1"} for name in ENDLESS)


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Where a body names what must exist, or a place to write to, name one that is there."""
    operation = context.operation.definition.raw.get("operationId")
    if not isinstance(body, dict):
        return body
    if operation == "jobs.submit" and isinstance(body.get("kind"), str):
        return {**body, "kind": "fake", "params": {}}
    if operation == "log_routes.backup" and isinstance(body.get("path"), str):
        return {**body, "path": f"{os.environ['FUZZ_SCRATCH']}/backup-{next(_numbers)}.sqlite"}
    return body
