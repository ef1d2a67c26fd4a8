"""HTTP to one daemon: requests, streams, and what their failures mean."""

from __future__ import annotations

import json
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import anyio
from aiohttp import hdrs

from finetuned.client.endpoint import Endpoint
from finetuned.client.errors import UnexpectedAnswerError, UnreachableError, error_from, wait_s
from finetuned.domain.errors import FinetunedError

Json = Any

CONNECT_TIMEOUT: Final = 5.0  # seconds
ANSWER_TIMEOUT: Final = 60.0  # seconds
SILENCE_TIMEOUT: Final = 60.0  # seconds of a stream without so much as a heartbeat: the connection is dead
PATIENCE: Final = 30.0  # seconds for which a request that may be repeated outlives the daemon
FIRST_PAUSE: Final = 0.1  # seconds before the first repetition
LONGEST_PAUSE: Final = 2.0  # seconds
KEPT_ANSWERS: Final = 32  # answers that are asked for again with their ETag
LARGEST_KEPT: Final = 1 << 20  # bytes of one of them

IDEMPOTENCY_KEY: Final = "Idempotency-Key"

LOST = (aiohttp.ClientError, TimeoutError, OSError)

OnConnection = Callable[[str | None], None]


class AbsentError(UnreachableError):
    """Nobody took the connection: nothing was sent."""


class LostError(UnreachableError):
    """The connection broke before the answer came: the request may have been carried out."""


@dataclass(frozen=True, slots=True)
class _Kept:
    tag: str
    raw: bytes


class Transport:
    """The HTTP session with a daemon. Open it and close it on one event loop.

    ``on_connection`` is told why a request is repeated, and ``None`` once it was answered.
    """

    def __init__(self, endpoint: Endpoint, on_connection: OnConnection = lambda _trouble: None) -> None:
        self.endpoint = endpoint
        self._on_connection = on_connection
        self._session: aiohttp.ClientSession | None = None
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._met = False  # whether this daemon has answered before: it is away then, not absent

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
        content: Callable[[], Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = ANSWER_TIMEOUT,
        once: bool = False,
    ) -> Json:
        """The JSON of the answer; ``None`` if it has none. ``timeout`` is in seconds.

        ``content`` makes the bytes to send where that is no JSON ``body``. With ``once`` the request carries an
        ``Idempotency-Key`` and is repeated for up to :data:`PATIENCE` seconds when the daemon goes away: the daemon
        carries it out once however often it comes. A refusal that says when to come again (``Retry-After``) is obeyed
        as long as patience lasts, whatever was asked. Raises the server's refusal, or ``UnreachableError``.
        """
        sent = dict(headers or {})
        if once:
            sent[IDEMPOTENCY_KEY] = str(uuid.uuid4())
        pause, patience = FIRST_PAUSE, anyio.current_time() + PATIENCE
        while True:
            try:
                answer = await self._ask(method, path, query, body, content, sent, timeout)
            except FinetunedError as error:
                asked = wait_s(error)
                if asked is None and not (once and self._may_come_back(error)):
                    raise
                wait = max(pause, asked or 0)
                if anyio.current_time() + wait > patience:
                    raise
                self._met = True  # from here on it is a daemon that went away, and may come back
                self._on_connection(error.message)
            else:
                if once or pause > FIRST_PAUSE:
                    self._on_connection(None)
                return answer
            await anyio.sleep(wait)
            pause = min(LONGEST_PAUSE, pause * 2)

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Mapping[str, str], headers: Mapping[str, str], silence: float | None
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """The body of an answer as it comes; broken off after ``silence`` seconds without a byte.

        Raises the server's refusal or ``UnreachableError`` on entering; reading raises what :data:`LOST` names.
        """
        async with self.opened(path, query=query, headers=headers, silence=silence) as answer:
            yield answer.content

    @asynccontextmanager
    async def opened(
        self,
        path: str,
        *,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        silence: float | None,
        method: str = hdrs.METH_GET,
        body: Json = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer whose body is still to be read; as :meth:`stream`, with its status and headers."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=silence)
        try:
            answer = await self._ready.request(
                method,
                self.endpoint.base_url + path,
                params=query,
                headers=headers,
                timeout=limits,
                json=body,
            )
        except LOST as error:
            raise AbsentError(self._why(error)) from error
        async with answer:
            if answer.status >= 400:
                content, later = _json_or_none(await answer.read()), answer.headers.get(hdrs.RETRY_AFTER)
                raise error_from(answer.status, content, retry_after=later)
            self._met = True
            yield answer

    async def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Json,
        content: Callable[[], Any] | None,
        headers: Mapping[str, str],
        timeout: float | None,
    ) -> Json:
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT)
        kept = self._kept.get(_key(path, query)) if method == hdrs.METH_GET else None
        if kept is not None:
            headers = {**headers, hdrs.IF_NONE_MATCH: kept.tag}
        given: dict[str, Any] = {"json": body} if content is None else {"data": content()}
        try:
            async with self._ready.request(
                method, self.endpoint.base_url + path, params=query, headers=headers, timeout=limits, **given
            ) as answer:
                raw = await answer.read()
        except aiohttp.ClientConnectorError as error:
            raise AbsentError(self._why(error)) from error
        except LOST as error:
            raise LostError(self._lost(method, error)) from error
        if answer.status == 304 and kept is not None:
            raw = kept.raw
        elif method == hdrs.METH_GET and hdrs.ETAG in answer.headers and len(raw) <= LARGEST_KEPT:
            self._keep(_key(path, query), _Kept(answer.headers[hdrs.ETAG], raw))
        found = _content(answer.status, raw, answer.headers.get(hdrs.RETRY_AFTER))
        self._met = True
        return found

    def _keep(self, key: tuple[str, str], answer: _Kept) -> None:
        self._kept[key] = answer
        self._kept.move_to_end(key)
        if len(self._kept) > KEPT_ANSWERS:
            self._kept.popitem(last=False)

    def _may_come_back(self, error: FinetunedError) -> bool:
        """Whether the same request may be answered later: one that was sent, or a daemon that was there before."""
        if isinstance(error, AbsentError):
            return self._met
        if isinstance(error, LostError):
            return not isinstance(error.__cause__, TimeoutError)
        return error.status == 503

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
            if method == hdrs.METH_GET
            else " Whether it was done is not known: `finetune ls` shows how things stand."
        )
        return f"{what}.{tail} `finetuned` must run; try again."


def _key(path: str, query: Mapping[str, str] | None) -> tuple[str, str]:
    return path, json.dumps(query or {}, sort_keys=True)


def _content(status: int, raw: bytes, retry_after: str | None) -> Json:
    content = _json_or_none(raw)
    if status >= 400:
        raise error_from(status, content, retry_after=retry_after)
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
