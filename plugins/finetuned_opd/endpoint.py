"""A server that answers JSON to JSON, asked again until it answers or its time is up."""

from __future__ import annotations

import email.utils
import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any, Final
from urllib.parse import urlsplit

from finetuned_sdk import RefusedError

Json = Any

RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
BACKOFF_FIRST_S: Final = 0.5
BACKOFF_LONGEST_S: Final = 30.0
CONNECT_S: Final = 10.0
LEAST_S: Final = 1.0  # that an answer is waited for
PATIENCE: Final = 0.5  # of the time that is left, with one answer
LONGEST_ANSWER: Final = 1 << 29  # bytes
SHOWN: Final = 200  # characters of what the server said


class UnavailableError(Exception):
    """There was no answer; says why, in a few words."""


class ClosedError(UnavailableError):
    """Nobody waits for the answer any more."""


class _RetryError(Exception):
    def __init__(self, why: str, after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = after_s


class Endpoint:
    """One URL that is posted to, from several threads. Redirects are not followed: the URL is the one that was allowed.

    ``secret`` is sent as a bearer token and told to nobody else.
    """

    def __init__(
        self, url: str, *, secret: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        parts = urlsplit(url)
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port = parts.hostname or "", parts.port
        self._path = parts.path + (f"?{parts.query}" if parts.query else "")
        self._headers = {"Content-Type": "application/json", "Connection": "close"}
        if secret is not None:
            self._headers["Authorization"] = f"Bearer {secret}"
        self._clock = clock
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = threading.Event()

    def post(self, body: Mapping[str, Json], *, deadline: float) -> Json:
        """The answer. Asks again after what may pass, until ``deadline``. Raises :class:`UnavailableError`.

        An answer is waited for during half of the time that is left, so that a server that hangs is asked again.
        """
        data = json.dumps(body).encode()
        tries = 0
        while True:
            left = deadline - self._clock()
            try:
                return self._ask(data, timeout_s=max(left * PATIENCE, LEAST_S))
            except _RetryError as error:
                tries += 1
                wait_s = error.after_s if error.after_s is not None else _backoff_s(tries)
                if self._closed.is_set():
                    raise ClosedError(str(error)) from None
                if self._clock() + wait_s >= deadline:
                    raise UnavailableError(str(error)) from None
            if self._closed.wait(wait_s):
                raise ClosedError("nobody waits for it")

    def close(self) -> None:
        """End all requests that are on their way; their threads have :class:`ClosedError`. For good."""
        with self._lock:
            self._closed.set()
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)  # wakes who reads from it

    def _ask(self, data: bytes, *, timeout_s: float) -> Json:
        try:
            status, after, content = self._exchanged(data, timeout_s)
        except TimeoutError:
            raise _RetryError(f"no answer within {timeout_s:.0f} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise _RetryError(str(error) or type(error).__name__) from None
        if status != 200:
            why = f"status {status}: {_shown(content)}"
            if status in RETRIED:
                raise _RetryError(why, _retry_after_s(after))
            raise UnavailableError(why)
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise _RetryError(f"an answer that is no JSON: {_shown(content)}") from None

    def _exchanged(self, data: bytes, timeout_s: float) -> tuple[int, str | None, bytes]:
        """Status, ``Retry-After`` and content of one answer. Raises ``OSError``, ``HTTPException``."""
        with closing(self._kind(self._host, self._port, timeout=min(timeout_s, CONNECT_S))) as connection:
            connection.connect()
            with self._admitted(connection.sock):
                connection.sock.settimeout(timeout_s)
                connection.request("POST", self._path, data, self._headers)
                with connection.getresponse() as response:
                    content = response.read(LONGEST_ANSWER)
                    return response.status, response.headers.get("Retry-After"), content

    @contextmanager
    def _admitted(self, connected: socket.socket) -> Iterator[None]:
        """While a connection may be closed by :meth:`close`, or is not begun because all are."""
        with self._lock:
            if self._closed.is_set():
                raise ClosedError("nobody waits for it")
            self._open.add(connected)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connected)


def completions_url(url: str) -> str:
    """Where completions are asked for, from a server's base URL."""
    base = url.rstrip("/").removesuffix("/completions")
    return f"{base}/completions" if base.endswith("/v1") else f"{base}/v1/completions"


def check_url(url: str, *, param: str) -> None:
    """Refuse what is no URL of a server. Raises ``RefusedError``; whether the host may be asked is the daemon's to say."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - it is read for its error
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname or not url.isprintable() or " " in url:
        raise RefusedError(f"{param} is no URL of a server; write it as https://host:port/v1.", param=param)
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise RefusedError(
            f"{param} must have no user, password or query: it is shown and recorded. Name a secret for the key.",
            param=param,
        )


def _backoff_s(tries: int) -> float:
    """Doubled each time, and spread over its upper half so that many do not come at once."""
    longest = min(BACKOFF_FIRST_S * 2.0 ** (tries - 1), BACKOFF_LONGEST_S)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def _retry_after_s(value: str | None) -> float | None:
    """The seconds of a ``Retry-After`` header: a number, or a date (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    with suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _shown(content: bytes) -> str:
    text = " ".join(content[: 4 * SHOWN].decode("utf-8", "replace").split())
    return text[:SHOWN] or "nothing"
