"""What schemathesis is told about this API beyond its description. Loaded by SCHEMATHESIS_HOOKS."""

from __future__ import annotations

import itertools
import os
from typing import Any

import schemathesis

_numbers = itertools.count()
_at_work = itertools.cycle(os.environ["FUZZ_JOBS"].split())
STEERING = frozenset({"jobs.pause", "jobs.resume", "jobs.checkpoint"})
ENDLESS = (
    "stream",
    "follow",
)  # a stream has no end that a test could wait for; tests of their own cover them


@schemathesis.hook
def filter_query(_context: Any, query: Any) -> bool:
    """Never ask for an endless answer."""
    return not query or not any(str(query.get(name, "")).lower() in {"true", "1"} for name in ENDLESS)


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: Any) -> Any:
    """Have what steers a job steer one that is at work: one that is made up is refused whatever is asked of it."""
    operation = context.operation.definition.raw.get("operationId")
    if operation in STEERING and isinstance(path_parameters, dict) and next(_numbers) % 2:
        return {**path_parameters, "job_id": next(_at_work)}
    return path_parameters


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Where a body names what must exist, name what does: else nearly nothing would ever be made, and then used."""
    operation = context.operation.definition.raw.get("operationId")
    if operation == "datasets.upload" and isinstance(body, (bytes, str)):
        return b'{"text": "%d"}\n' % next(_numbers)
    if not isinstance(body, dict):
        return body
    if operation == "jobs.submit" and isinstance(body.get("kind"), str):
        return _job(body)
    if operation in {"templates.create", "templates.save"} and isinstance(body.get("request"), dict):
        return {**body, "request": _job(body["request"])}
    if operation == "jobs.resume" and next(_numbers) % 2:  # a checkpoint that is made up never is one
        return {key: value for key, value in body.items() if key != "from_checkpoint"}
    if operation == "webhooks.create" and isinstance(body.get("url"), str):
        return {**body, "url": "https://127.0.0.1/"}  # refused: nobody outside is called
    if operation == "log_routes.backup" and isinstance(body.get("path"), str):
        return {**body, "path": f"{os.environ['FUZZ_SCRATCH']}/backup-{next(_numbers)}.sqlite"}
    return body


def _job(request: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in request.items() if key not in {"template", "secrets", "metadata"}}
    return {**kept, "kind": "fake", "params": {}}
