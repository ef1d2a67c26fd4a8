"""HTTP to one daemon: requests, streams, and what their failures mean."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp

from finetuned.client.endpoint import Endpoint
from finetuned.client.errors import UnexpectedAnswerError, UnreachableError, error_from

Json = Any

CONNECT_TIMEOUT: Final = 5.0  # seconds
ANSWER_TIMEOUT: Final = 60.0  # seconds
SILENCE_TIMEOUT: Final = 60.0  # seconds of a stream without so much as a heartbeat: the connection is dead

LOST = (aiohttp.ClientError, TimeoutError, OSError)


class Transport:
    """The HTTP session with a daemon. Open it and close it on one event loop."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Make the session. Nothing is connected yet."""
        socket, token = self.endpoint.socket, self.endpoint.token
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(socket)) if socket else None,
            headers={"Authorization": f"Bearer {token}"} if token else {},
        )

    async def close(self) -> None:
        """Close the session and its connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Json = None,
        timeout: float | None = ANSWER_TIMEOUT,
    ) -> Json:
        """The JSON of the answer; ``None`` if it has none. ``timeout`` is in seconds.

        Raises the server's refusal, or ``UnreachableError``.
        """
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT)
        try:
            async with self._ready.request(
                method, self.endpoint.base_url + path, params=query, json=body, timeout=limits
            ) as answer:
                return _content(answer.status, await answer.read())
        except aiohttp.ClientConnectorError as error:
            raise UnreachableError(self._why(error)) from error
        except LOST as error:
            raise UnreachableError(self._lost(method, error)) from error

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Mapping[str, str], headers: Mapping[str, str], silence: float | None
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """The body of an answer as it comes; broken off after ``silence`` seconds without a byte.

        Raises the server's refusal or ``UnreachableError`` on entering; reading raises what :data:`LOST` names.
        """
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=silence)
        try:
            answer = await self._ready.get(
                self.endpoint.base_url + path, params=query, headers=headers, timeout=limits
            )
        except LOST as error:
            raise UnreachableError(self._why(error)) from error
        async with answer:
            if answer.status >= 400:
                raise error_from(answer.status, _json_or_none(await answer.read()))
            yield answer.content

    @property
    def _ready(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the client is used outside of its `async with`")
        return self._session

    def _why(self, error: Exception) -> str:
        if isinstance(error.__cause__ or error, PermissionError) or isinstance(
            getattr(error, "os_error", None), PermissionError
        ):
            return f"You may not open {self.endpoint}. Join the daemon's group, or use a token with FINETUNED_URL."
        return self.endpoint.remedy

    def _lost(self, method: str, error: Exception) -> str:
        what = f"The connection to {self.endpoint} was lost before the answer came"
        if isinstance(error, TimeoutError):
            what = f"The daemon at {self.endpoint} did not answer in time"
        tail = (
            ""
            if method == "GET"
            else " Whether it was done is not known: `finetune ls` shows how things stand."
        )
        return f"{what}.{tail} `finetuned` must run; try again."


def _content(status: int, raw: bytes) -> Json:
    content = _json_or_none(raw)
    if status >= 400:
        raise error_from(status, content)
    if raw and content is None:
        raise UnexpectedAnswerError(
            "The answer was not JSON. Is FINETUNED_URL or FINETUNED_SOCKET really a finetuned daemon's?"
        )
    return content


def _json_or_none(raw: bytes) -> Json:
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return None
