"""Result lines, as OpenAI's batches have them, and what they add up to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from finetuned_sdk.engines.errors import RequestError

Json = Any

SUCCESS: Final = 200


def answered(job: str, custom_id: str, body: Json) -> dict[str, Json]:
    """The line of a request that was answered."""
    return _line(job, custom_id, SUCCESS, body)


def refused(job: str, custom_id: str, error: RequestError) -> dict[str, Json]:
    """The line of a request that the engine refused: what an HTTP client would have got."""
    told = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return _line(job, custom_id, error.status, {"error": told})


def unfinished(job: str, custom_id: str, code: str, message: str) -> dict[str, Json]:
    """The line of a request that nobody answered."""
    return {
        "id": _id("batch_req_", job, custom_id),
        "custom_id": custom_id,
        "response": None,
        "error": {"code": code, "message": message},
    }


def encode(line: Mapping[str, Json]) -> bytes:
    """A result line in UTF-8, with its end."""
    text = json.dumps(line, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace") + b"\n"


def is_success(line: Mapping[str, Json]) -> bool:
    """Whether a result line belongs into the output file; else it belongs into the error file."""
    response = line["response"]
    return response is not None and response["status_code"] == SUCCESS


def _line(job: str, custom_id: str, status: int, body: Json) -> dict[str, Json]:
    response = {"status_code": status, "request_id": _id("req_", job, custom_id), "body": body}
    return {
        "id": _id("batch_req_", job, custom_id),
        "custom_id": custom_id,
        "response": response,
        "error": None,
    }


def _id(prefix: str, job: str, custom_id: str) -> str:
    """The same for the same request however often it is asked."""
    return prefix + hashlib.blake2b(f"{job}\0{custom_id}".encode(), digest_size=12).hexdigest()


@dataclass(slots=True)
class Tally:
    """How many results there are, and the tokens that they took."""

    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def add(self, line: Mapping[str, Json]) -> None:
        """Count a result line."""
        if not is_success(line):
            self.failed += 1
            return
        self.completed += 1
        body = line["response"]["body"]
        usage = body.get("usage") if isinstance(body, dict) else None
        if not isinstance(usage, dict):
            return
        self.input_tokens += usage.get("prompt_tokens") or 0
        self.output_tokens += usage.get("completion_tokens") or 0
        self.cached_tokens += (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        self.reasoning_tokens += (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0

    @property
    def done(self) -> int:
        """All results."""
        return self.completed + self.failed

    def figures(self) -> dict[str, int]:
        """As a job's progress and result tell them."""
        return {
            "completed": self.completed,
            "failed": self.failed,
            "input_tokens": self.input_tokens,
            "cached_tokens": self.cached_tokens,
            "output_tokens": self.output_tokens,
            "reasoning_tokens": self.reasoning_tokens,
        }
