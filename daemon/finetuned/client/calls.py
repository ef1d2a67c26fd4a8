"""What the calls of every noun share."""

from __future__ import annotations

from typing import Any, Final, cast
from urllib.parse import quote

from finetuned.client.transport import ANSWER_TIMEOUT, Transport
from finetuned.wire import Page

Json = Any

PAGE: Final = 500  # items a page when all are asked for


class Calls:
    """Calls over one transport. ``Client`` is all of its subclasses together."""

    _transport: Transport

    async def _get(
        self, path: str, *, timeout: float | None = ANSWER_TIMEOUT, **query: str | int | None
    ) -> Any:
        return await self._transport.request("GET", path, query=parameters(**query), timeout=timeout)

    async def _listed(
        self, path: str, *, timeout: float | None = ANSWER_TIMEOUT, **query: str | int | None
    ) -> list[Any]:
        """All items of a list, page after page."""
        items: list[Any] = []
        after: str | int | None = None
        while True:
            page = cast("Page[Any]", await self._get(path, timeout=timeout, **query, after=after))
            items += page["data"]
            if not page["has_more"] or not page["data"]:
                return items
            after = page["next_after"]

    async def _post(self, path: str, body: Json = None, *, timeout: float | None = ANSWER_TIMEOUT) -> Any:
        """Ask for something to be done, once, however often the connection is lost."""
        given = {} if body is None else body
        return await self._transport.request("POST", path, body=given, once=True, timeout=timeout)

    async def _put(self, path: str, body: Json) -> Any:
        """Have something be as ``body`` says; twice is the same as once, so a lost connection is no reason to stop."""
        return await self._transport.request("PUT", path, body=body, once=True)

    async def _delete(self, path: str) -> None:
        await self._transport.request("DELETE", path)


def parameters(**values: str | int | None) -> dict[str, str]:
    """Query parameters: those that were given."""
    return {key: str(value) for key, value in values.items() if value is not None}


def given(**values: Json) -> dict[str, Json]:
    """A body: the fields that were given."""
    return {key: value for key, value in values.items() if value is not None}


def part(name: str) -> str:
    """A name as one part of a path: it cannot reach another route."""
    return quote(name, safe="")


def job_path(job_id: str) -> str:
    """The path of a job."""
    return f"/v1/jobs/{part(job_id)}"
