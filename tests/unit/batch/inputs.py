"""Inputs of batches for tests."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from finetuned_batch.requests import Limits

URL = "/v1/chat/completions"
MODEL = "m"


def line(custom_id: str, text: str = "hello", **changes: Any) -> dict[str, Any]:
    """A well-formed request; ``changes`` are of its own keys."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
    return {"custom_id": custom_id, "method": "POST", "url": URL, "body": body, **changes}


def written(path: Path, lines: Iterable[object]) -> Path:
    """A file of these lines; bytes and texts as they are."""
    raw = [
        each if isinstance(each, bytes) else (each if isinstance(each, str) else json.dumps(each)).encode()
        for each in lines
    ]
    path.write_bytes(b"".join(each + b"\n" for each in raw))
    return path


def limits(**changes: Any) -> Limits:
    """Limits that no small file comes near."""
    return Limits(**{"endpoint": URL, "model": MODEL, "max_requests": 1000, "max_bytes": 1 << 20, **changes})
