"""Clients that are slow, silent, deaf, many or malformed: each is refused in the one shape and costs the others nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import socket
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import anyio
import anyio.abc
import pytest

from finetuned.api.body import MOST_LEVELS
from finetuned.client.sse import Parser

DOORS = ("tcp", "unix")
STATUS_LINE = re.compile(rb"HTTP/1\.[01] \d{3} ")


@dataclass
class Door:
    """One way to a served daemon, and what a request there has to carry."""

    house: Any
    name: str
    credentials: bytes

    async def connect(self, *, receive_bytes: int | None = None) -> Raw:
        """A connection that nothing was said on yet; a small ``receive_bytes`` makes it deaf sooner."""
        unix = self.name == "unix"
        plain = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        plain.setblocking(False)
        if receive_bytes is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        to = str(self.house.addresses.socket) if unix else self.house.addresses.tcp
        await asyncio.get_running_loop().sock_connect(plain, to)
        return Raw(plain)

    def get(self, path: str) -> bytes:
        return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n".encode() + self.credentials + b"\r\n"

    def post(self, path: str, body: bytes, *headers: bytes) -> bytes:
        length = b"Content-Length: %d" % len(body)
        lines = b"".join(line + b"\r\n" for line in (length, *headers))
        return (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\n".encode()
            + self.credentials
            + lines
            + b"\r\n"
            + body
        )


@dataclass
class Raw:
    """A client that says exactly what it is told to."""

    plain: socket.socket

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.plain, data)

    async def everything(self) -> bytes:
        """What comes until the daemon closes."""
        received = b""
        with anyio.fail_after(20):
            while chunk := await self.some():
                received += chunk
        return received

    async def some(self, most: int = 1 << 16) -> bytes:
        """What comes next; nothing once the daemon has closed."""
        try:
            return await asyncio.get_running_loop().sock_recv(self.plain, most)
        except ConnectionResetError:
            return b""

    async def answers(self, count: int) -> list[Answer]:
        """The next so many answers, all of known length."""
        received, found = b"", list[Answer]()
        with anyio.fail_after(20):
            while len(found) < count:
                head, end, rest = received.partition(b"\r\n\r\n")
                if end and len(rest) >= (length := Answer.read(head).length):
                    found.append(Answer.read(head, rest[:length]))
                    received = rest[length:]
                    continue
                chunk = await self.some()
                assert chunk, f"closed after {len(found)} answers: {received!r}"
                received += chunk
        return found

    async def drip(self, data: bytes) -> None:
        """Send a byte at a time, as long as the daemon takes it."""
        try:
            for byte in data:
                await self.send(bytes([byte]))
                await anyio.sleep(0.05)
        except (ConnectionError, OSError):
            pass  # that is what it was for

    def close(self) -> None:
        self.plain.close()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def read(cls, head: bytes, body: bytes = b"") -> Answer:
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        return cls(int(first.split()[1]), {name.lower(): value for name, value in pairs}, body)

    @property
    def length(self) -> int:
        return int(self.headers["content-length"])

    @property
    def refusal(self) -> tuple[int, str]:
        """Status and code, after a look at the shape."""
        assert self.headers["content-type"].startswith("application/json")
        assert self.headers["x-content-type-options"] == "nosniff"
        error = json.loads(self.body)["error"]
        assert set(error) == {"code", "message", "param", "type"}
        assert "Traceback" not in error["message"]
        assert len(error["message"]) > 20
        return self.status, error["code"]


def refusal(received: bytes) -> tuple[int, str]:
    """What a connection was told at last, before it was closed."""
    head, _, body = received.rpartition(b"\r\n\r\n")
    answer = Answer.read(head[head.rindex(b"HTTP/1.") :], body)
    assert answer.headers.get("connection") == "close" or b"HTTP/1.0" in head
    return answer.refusal


def held() -> tuple[int, int]:
    """Open sockets and tasks of this process, in which the daemon and its clients are.

    Not all descriptors: SQLite keeps some of files that it has closed, for as long as another connection has locks.
    """
    sockets = 0
    for descriptor in os.listdir("/proc/self/fd"):  # noqa: PTH208 - no Path objects are wanted
        with suppress(OSError):
            sockets += os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")  # noqa: PTH115
    return sockets, len(asyncio.all_tasks())


Enter = Callable[..., Any]


@pytest.fixture
def at(open_house: Any, open_client: Any, until: Any) -> Enter:
    """Opens a daemon at a door, with a healthy client beside whoever is tested, and looks for what was left."""

    @asynccontextmanager
    async def enter(door: str, **settings: Any) -> AsyncIterator[Door]:
        async with open_house(**settings) as house:
            credentials = b""
            if door == "tcp":
                _, secret = await house.commands.tokens.create(scope="admin", name=None, actor="test")
                credentials = f"Authorization: Bearer {secret}\r\n".encode()
            entered = Door(house, door, credentials)
            warm = await entered.connect()
            await warm.send(entered.get("/v1/jobs"))
            assert [answer.status for answer in await warm.answers(1)] == [200]
            warm.close()
            async with open_client(house) as client:
                served, failed = 0, list[object]()
                assert (await client.get("/v1/jobs")).status == 200
                before = held()

                async def live() -> None:
                    nonlocal served
                    while True:
                        with anyio.fail_after(10):
                            async with client.get("/v1/jobs") as response:
                                if response.status != 200:
                                    failed.append(response.status)
                        served += 1
                        await anyio.sleep(0.01)

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(live)
                    yield entered
                    reached = served + 3
                    await until(lambda: served >= reached)
                    tasks.cancel_scope.cancel()
                assert failed == []
                await until(lambda: held()[0] <= before[0] + 1 and held()[1] <= before[1] + 1)

    return enter


# ---- slow ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
async def test_headers_that_drip_in_are_waited_for_so_long_and_no_longer(at: Enter, door: str) -> None:
    async with at(door, header_timeout_s=0.5) as entered, anyio.create_task_group() as tasks:
        clients = [await entered.connect() for _ in range(20)]
        for client in clients:
            tasks.start_soon(client.drip, entered.get("/v1/jobs")[:-2] + b"X-Slow: " + b"a" * 1000)
        for client in clients:
            assert refusal(await client.everything()) == (408, "request_timeout")
            client.close()


@pytest.mark.parametrize("door", DOORS)
async def test_the_next_request_of_a_connection_may_not_drip_in_either(at: Enter, door: str) -> None:
    async with at(door, header_timeout_s=0.5) as entered, anyio.create_task_group() as tasks:
        client = await entered.connect()
        await client.send(entered.get("/healthz"))
        assert (await client.answers(1))[0].status == 200
        tasks.start_soon(client.drip, entered.get("/v1/jobs")[:-2] + b"X-Slow: " + b"a" * 1000)
        assert refusal(await client.everything()) == (408, "request_timeout")
        client.close()


@pytest.mark.parametrize("door", DOORS)
async def test_who_connects_and_says_nothing_is_closed_without_a_word(at: Enter, door: str) -> None:
    async with at(door, header_timeout_s=0.3) as entered:
        clients = [await entered.connect() for _ in range(20)]
        for client in clients:
            assert await client.everything() == b""
            client.close()


@pytest.mark.parametrize("door", DOORS)
async def test_a_connection_that_asks_nothing_more_is_closed(at: Enter, door: str) -> None:
    async with at(door, idle_timeout_s=0.4) as entered:
        client = await entered.connect()
        await client.send(entered.get("/healthz"))
        assert (await client.answers(1))[0].status == 200
        assert await client.everything() == b""
        client.close()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("framing", [b"Content-Length: 400", b"Transfer-Encoding: chunked"])
async def test_a_body_that_drips_in_is_refused_and_nothing_done(at: Enter, door: str, framing: bytes) -> None:
    async with (
        at(door, body_timeout_s=0.3, max_body_bytes=1024) as entered,
        anyio.create_task_group() as tasks,
    ):
        slow = await entered.connect()
        head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\n" + entered.credentials + framing + b"\r\n\r\n"
        await slow.send(head + (b"190\r\n" if b"chunked" in framing else b""))
        tasks.start_soon(slow.drip, b'{"kind": "fake"' + b" " * 300)
        received = b""
        with anyio.fail_after(20):
            while b"}}" not in received:
                chunk = await slow.some()
                assert chunk
                received += chunk
        assert refusal(received) == (408, "upload_stalled")
        slow.close()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("door", DOORS)
async def test_a_stream_may_last_longer_than_headers_may(at: Enter, door: str) -> None:
    settings = {"header_timeout_s": 0.2, "idle_timeout_s": 0.2, "sse_heartbeat_s": 0.1}
    async with at(door, **settings) as entered:
        client = await entered.connect()
        await client.send(entered.get("/v1/events?stream=true") + b"\r\n")
        received = b""
        with anyio.fail_after(20):
            while received.count(b"\nid: ") < 10:  # a second of heartbeats
                chunk = await client.some()
                assert chunk, "the stream was cut"
                received += chunk
        client.close()


# ---- half closed, deaf -----------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/events?stream=true", "/v1/log/verify"])
async def test_half_closed_clients_leave_nothing_behind(at: Enter, door: str, path: str) -> None:
    async with at(door) as entered:
        for _ in range(5):
            client = await entered.connect()
            request = entered.post(path, b"") if "verify" in path else entered.get(path)
            await client.send(request)
            client.plain.shutdown(socket.SHUT_WR)
            await client.everything()  # an answer or none, and an end
            client.close()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("path", "events"),
    [("/v1/events?stream=true&after=0", 20_000), ("/v1/events?limit=1000", 1000), ("/docs", 0)],
)
async def test_clients_that_never_read_are_cut(at: Enter, door: str, path: str, events: int) -> None:
    async with at(door, sse_write_timeout_s=0.5) as entered:
        job_id = await entered.house.accept_job()
        for first in range(0, events, 1000):
            await entered.house.progress(job_id, *range(first, first + 1000))
        deaf = [await entered.connect(receive_bytes=4096) for _ in range(3)]
        for client in deaf:
            await client.send(entered.get(path) * 30)
        for client in deaf:
            await reset(client)
            client.close()


@pytest.mark.parametrize("door", DOORS)
async def test_who_reads_slowly_gets_everything(at: Enter, door: str) -> None:
    async with at(door, sse_write_timeout_s=1.5) as entered:
        job_id = await entered.house.accept_job()
        await entered.house.progress(job_id, *range(1000))
        client = await entered.connect(receive_bytes=4096)
        await client.send(entered.get("/v1/events?limit=1000") * 6)
        received = 0
        with anyio.fail_after(60):
            # Each answer is longer than that; all take longer than a deaf client is given.
            while received < 6 * 150_000:
                chunk = await client.some(4096)
                assert chunk, f"cut after {received} bytes"
                received += len(chunk)
                await anyio.sleep(0.02)
        client.close()


async def reset(client: Raw) -> None:
    """Wait until the daemon has closed the connection of a client that reads nothing."""
    with anyio.fail_after(20):
        while True:
            try:
                client.plain.send(b"")
                client.plain.send(b"\r\n")
            except BlockingIOError:
                pass
            except OSError:
                return
            await anyio.sleep(0.05)


# ---- too many --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
async def test_one_connection_too_many_is_told_so_and_the_others_go_on(at: Enter, door: str) -> None:
    async with at(door, max_connections_per_client=10) as entered:
        room = 10 - (1 if door == "unix" else 0)  # the healthy client has one
        clients = [await entered.connect() for _ in range(room)]
        for client in clients:
            await client.send(entered.get("/healthz"))
            assert (await client.answers(1))[0].status == 200
        over = await entered.connect()
        await over.send(entered.get("/healthz"))
        received = await over.everything()
        assert refusal(received) == (503, "too_many_connections")
        assert b"max_connections_per_client" in received
        assert b"Retry-After: 1\r\n" in received
        over.close()
        clients.pop().close()
        await entered_again(entered)
        for client in clients:
            await client.send(entered.get("/v1/jobs"))
            assert (await client.answers(1))[0].status == 200
            client.close()


async def entered_again(entered: Door) -> None:
    """Connect until there is room."""
    with anyio.fail_after(20):
        while True:
            client = await entered.connect()
            await client.send(entered.get("/healthz"))
            first = await client.answers(1)
            client.close()
            if first[0].status == 200:
                return
            assert first[0].refusal == (503, "too_many_connections")


async def test_a_flood_over_tcp_leaves_the_unix_socket_free(at: Enter) -> None:
    async with at("tcp", max_connections=20) as entered:
        clients = [await entered.connect() for _ in range(600)]
        told = [await client.everything() for client in clients[20:120]]
        assert {refusal(each) for each in told} == {(503, "too_many_connections")}
        assert all(b"raise max_connections in" in each for each in told)
        # More than can be told are closed without a word.
        for client in clients[120:]:
            assert (
                refusal(last) == (503, "too_many_connections")
                if (last := await client.everything())
                else True
            )
        for client in clients[:20]:
            await client.send(entered.get("/healthz"))
            assert (await client.answers(1))[0].status == 200
        for client in clients:
            client.close()
        await entered_again(entered)


async def test_a_storm_of_reconnects_misses_nothing_and_repeats_nothing(at: Enter) -> None:
    async with at("unix") as entered:
        job_id = await entered.house.accept_job()
        start, seen, reconnects = entered.house.log.head, list[int](), 0

        async def write() -> None:
            for step in range(0, 3000, 3):
                await entered.house.progress(job_id, step, step + 1, step + 2)

        async def storm() -> None:
            nonlocal reconnects
            last = start
            while reconnects < 1000 or last < start + 3000:
                client = await entered.connect()
                reconnects += 1
                lines = f"Accept: text/event-stream\r\nLast-Event-ID: {last}\r\n".encode()
                await client.send(entered.get("/v1/events")[:-2] + lines + b"\r\n")
                parser = Parser()
                while last < start + 3000:
                    chunk = await client.some()
                    # The chunked framing's own lines are no fields of an event.
                    frames = [frame for frame in parser.feed(chunk) if frame.event == "job.progress"]
                    seen.extend(int(frame.id or 0) for frame in frames)
                    if frames:
                        last = seen[-1]
                        break
                client.close()

        with anyio.fail_after(100):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write)
                tasks.start_soon(storm)
        assert reconnects >= 1000
        assert seen == list(range(start + 1, start + 3001))


@pytest.mark.parametrize("door", DOORS)
async def test_pipelined_requests_are_answered_in_their_order(at: Enter, door: str) -> None:
    async with at(door) as entered:
        client = await entered.connect()
        paths = ["/healthz", "/v1/nothing", "/v1/jobs", "/v1/jobs/none"] * 50
        await client.send(b"".join(entered.get(path) for path in paths))
        assert [each.status for each in await client.answers(200)] == [200, 404, 200, 404] * 50
        client.close()


# ---- malformed -------------------------------------------------------------------------------------------

LONG = b"x" * 9000
CHUNKED = b"Transfer-Encoding: chunked"
SMUGGLED = b"GET /v1/tokens HTTP/1.1\r\nHost: localhost\r\n\r\n"


def with_headers(
    *lines: bytes, body: bytes = b"", method: bytes = b"POST", target: bytes = b"/v1/jobs"
) -> bytes:
    return (
        b"\r\n".join((method + b" " + target + b" HTTP/1.1", b"Host: localhost", *lines)) + b"\r\n\r\n" + body
    )


MALFORMED = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    "another version": b"GET / HTTP/9.9\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no method of HTTP's": b"G@T / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two hosts": with_headers(b"Host: evil.example", method=b"GET"),
    "bare line feeds": b"GET /healthz HTTP/1.1\nHost: localhost\n\n",
    "folded header": with_headers(b"A: b\r\n c", method=b"GET"),
    "NUL in a header": with_headers(b"A: b\0c", method=b"GET"),
    "NUL in the path": with_headers(method=b"GET", target=b"/v1/jobs/\0"),
    "no UTF-8 in the path": with_headers(method=b"GET", target=b"/v1/jobs/\xff\xfe"),
    "length and chunks": with_headers(b"Content-Length: 4", CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
    "chunks and length": with_headers(CHUNKED, b"Content-Length: 4", body=b"0\r\n\r\n" + SMUGGLED),
    "two lengths": with_headers(b"Content-Length: 2", b"Content-Length: 46", body=b"{}" + SMUGGLED),
    "two equal lengths": with_headers(b"Content-Length: 2", b"Content-Length: 2", body=b"{}"),
    "a list of lengths": with_headers(b"Content-Length: 2, 2", body=b"{}"),
    "signed length": with_headers(b"Content-Length: +2", body=b"{}"),
    "negative length": with_headers(b"Content-Length: -1", body=b"{}"),
    "endless length": with_headers(b"Content-Length: 99999999999999999999999", body=b"{}"),
    "space before the colon": with_headers(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "unknown coding": with_headers(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + SMUGGLED),
    "chunked not last": with_headers(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n" + SMUGGLED),
    "chunked twice": with_headers(CHUNKED, CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
    "no size of a chunk": with_headers(CHUNKED, body=b"zz\r\n{}\r\n0\r\n\r\n"),
    "chunk longer than it says": with_headers(CHUNKED, body=b"2\r\n{}XX\r\n0\r\n\r\n"),
    "endless chunk": with_headers(CHUNKED, body=b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
    "unknown encoding": with_headers(b"Content-Encoding: br", b"Content-Length: 2", body=b"{}"),
}  # fmt: skip
TOO_LARGE = {
    "target": with_headers(method=b"GET", target=b"/" + LONG),
    "header": with_headers(b"A: " + LONG, method=b"GET"),
    "name of a header": with_headers(LONG + b": a", method=b"GET"),
    "headers": with_headers(*(b"A%d: b" % number for number in range(300)), method=b"GET"),
}


@pytest.mark.parametrize("door", DOORS)
async def test_what_cannot_be_parsed_is_refused_closed_and_not_logged(
    at: Enter, door: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    cases = [(name, sent, (400, "bad_request")) for name, sent in MALFORMED.items()]
    cases += [(name, sent, (431, "headers_too_large")) for name, sent in TOO_LARGE.items()]
    async with at(door) as entered:
        for name, sent, expected in cases:
            client = await entered.connect()
            await client.send(sent)
            received = await client.everything()
            assert refusal(received) == expected, name
            assert len(STATUS_LINE.findall(received)) == 1, f"{name}: what came behind it was answered"
            client.close()
    assert caplog.records == []


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("head", "rest"),
    [
        ((CHUNKED,), b"zz\r\n{}\r\n"),
        ((b"Content-Encoding: gzip", b"Content-Length: 2"), b"{}"),
        ((b"Content-Encoding: deflate", b"Content-Length: 2"), b"{}"),
    ],
)
async def test_a_body_that_turns_out_malformed_is_refused(
    at: Enter, door: str, head: tuple[bytes, ...], rest: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with at(door) as entered:
        client = await entered.connect()
        await client.send(with_headers(entered.credentials.strip() or b"A: b", *head))
        await anyio.sleep(0.05)  # so that the handler waits for the body already
        await client.send(rest)
        assert (await client.answers(1))[0].refusal == (400, "bad_request")
        client.close()
    assert caplog.records == []


def nested(depth: int, opening: bytes = b'{"a":', closing: bytes = b"}") -> bytes:
    return b'{"kind":"fake","metadata":{"a":' + opening * depth + b"1" + closing * depth + b"}}"


BODIES = {
    "deep objects": nested(300),
    "very deep objects": nested(100_000),
    "deep lists": nested(300, b"[", b"]"),
    "unclosed lists": b"[" * 100_000,
    "huge integer": b'{"kind":"fake","params":{"steps":' + b"9" * 5000 + b"}}",
    "huge float": b'{"kind":"fake","metadata":{"a":1e400}}',
    "NaN": b'{"kind":"fake","metadata":{"a":NaN}}',
    "a key twice": b'{"kind":"fake","kind":"fake"}',
    "a key twice, far down": b'{"kind":"fake","metadata":{"a":[{"b":1,"b":2}]}}',
    "a key twice, once escaped": b'{"kind":"fake","k\\u0069nd":"fake"}',
    "no UTF-8": b'{"kind":"\xff\xfe"}',
    "UTF-16": '{"kind":"fake"}'.encode("utf-16"),
    "half a surrogate pair": b'{"kind":"fake","name":"\\ud800"}',
    "byte order mark": b'\xef\xbb\xbf{"kind":"fake"}',
    "NUL": b"\0",
    "a string": b'"kind"',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_json_that_no_two_parsers_agree_on_is_refused(client: Any, body: bytes) -> None:
    response = await client.post("/v1/jobs", data=body, headers={"Content-Type": "application/json"})
    error = (await response.json())["error"]
    assert (response.status, error["code"]) == (400, "invalid_json"), error


async def test_what_is_nested_as_deep_as_may_be_can_be_shown_everywhere(client: Any) -> None:
    deep = MOST_LEVELS - 2
    deeper = await client.post(
        "/v1/jobs", data=nested(deep + 1), headers={"Content-Type": "application/json"}
    )
    assert deeper.status == 400
    sent = await client.post("/v1/jobs", data=nested(deep), headers={"Content-Type": "application/json"})
    job = await sent.json()
    assert sent.status == 201, job
    for path in (f"/v1/jobs/{job['id']}", "/v1/jobs", "/v1/events", f"/v1/jobs/{job['id']}/events"):
        response = await client.get(path)
        assert response.status == 200
        assert (await response.text()).count('{"a":') == deep + 1


async def test_an_integer_that_is_too_large_for_its_field_is_refused_by_name(client: Any) -> None:
    body = b'{"kind":"fake","priority":18446744073709551616}'
    response = await client.post("/v1/jobs", data=body, headers={"Content-Type": "application/json"})
    assert (response.status, (await response.json())["error"]["param"]) == (400, "priority")


async def test_a_body_that_unpacks_to_more_than_is_taken_is_refused(client: Any) -> None:
    bomb = zlib.compress(b" " * 100_000_000, 9)
    response = await client.post(
        "/v1/jobs", data=bomb, headers={"Content-Encoding": "deflate", "Content-Type": "application/json"}
    )
    assert (response.status, (await response.json())["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    "target",
    [
        "/v1/jobs/%00", "/v1/jobs/%ff%zz", "/v1/jobs/%ed%a0%80", "/v1/jobs/%2e%2e%2f%2e%2e/logs", "/v1/../../etc/passwd",
        "//etc/passwd", "/v1/models/..%2f..%2fetc%2fpasswd", "/v1/kinds/" + "a" * 4000, "/%", "/?=&&=%00",
        "/v1/jobs/none/artifacts/..%2f..%2fspec.json", "/v1/datasets/..%2f..", "/v1/templates/%00",
    ],
)  # fmt: skip
async def test_odd_paths_are_nowhere(at: Enter, target: str) -> None:
    async with at("unix") as entered:
        client = await entered.connect()
        await client.send(entered.get(target))
        [answer] = await client.answers(1)
        assert answer.refusal[0] in {400, 404}, answer
        client.close()


async def test_a_path_that_is_no_route_is_said_to_be_none(client: Any) -> None:
    for method, path in (("GET", "/"), ("POST", "/v1"), ("DELETE", "/v1/jobs/a/b/c/d")):
        response = await client.request(method, path)
        error = (await response.json())["error"]
        assert (response.status, error["code"]) == (404, "no_such_route")
        assert "docs/reference/api.md" in error["message"]


@pytest.mark.parametrize("path", ["/tmp/a\0b", "/tmp/" + "a" * 5000, "\ud7ff", "/proc/1/nothing"])
async def test_paths_that_no_file_can_have_are_refused_as_such(client: Any, path: str) -> None:
    response = await client.post("/v1/log/backup", json={"path": path})
    assert (response.status, (await response.json())["error"]["param"]) == (400, "path")


@pytest.mark.parametrize("path", ["/v1/jobs", "/nowhere"])
async def test_only_one_expectation_is_met(client: Any, path: str) -> None:
    response = await client.post(path, headers={"Expect": "200-ok"}, json={})
    assert (response.status, (await response.json())["error"]["code"]) == (417, "expectation_failed")


async def test_an_absolute_target_counts_more_than_the_host_header(at: Enter) -> None:
    async with at("tcp") as entered:
        client = await entered.connect()
        lines = entered.credentials.strip()
        await client.send(with_headers(lines, method=b"GET", target=b"http://evil.example/v1/jobs"))
        await client.send(with_headers(lines, method=b"GET", target=b"http://localhost:1/v1/jobs?a=http://x"))
        await client.send(with_headers(lines, method=b"GET", target=b"http://localhost:1/v1/jobs"))
        answers = await client.answers(3)
        assert answers[0].refusal == (421, "host_not_allowed")
        assert answers[1].refusal == (400, "unknown_parameter")
        assert answers[2].status == 200
        client.close()


async def test_the_answer_to_a_client_that_went_is_nobodys_problem(
    at: Enter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with at("unix") as entered:
        for _ in range(50):
            client = await entered.connect()
            await client.send(entered.post("/v1/jobs", b'{"kind": "fake"}')[:-3])
            client.close()
            client = await entered.connect()
            await client.send(entered.post("/v1/jobs", b'{"kind": "fake"}'))
            client.close()
    assert caplog.records == []


def test_the_same_holds_on_the_loop_that_the_daemon_runs_on(state_dir: Any) -> None:
    """uvloop's transports are others than asyncio's."""
    from finetuned.testing import serve_house

    async def main() -> list[tuple[int, str]]:
        settings: dict[str, Any] = {
            "header_timeout_s": 0.4,
            "max_connections_per_client": 2,
            "sse_write_timeout_s": 0.5,
        }
        async with serve_house(state_dir, **settings) as house:
            told = []
            for door in (Door(house, "tcp", b""), Door(house, "unix", b"")):
                slow, silent = await door.connect(), await door.connect()
                await slow.send(b"GET /")
                over = await door.connect()
                told.append(refusal(await over.everything()))
                told.append(refusal(await slow.everything()))
                assert await silent.everything() == b""
                deaf = await door.connect(receive_bytes=4096)
                await deaf.send(door.get("/docs") * 60)
                await reset(deaf)
                for client in (slow, silent, over, deaf):
                    client.close()
                malformed = await door.connect()
                await malformed.send(MALFORMED["length and chunks"])
                told.append(refusal(await malformed.everything()))
                malformed.close()
            return told

    expected = [(503, "too_many_connections"), (408, "request_timeout"), (400, "bad_request")]
    assert anyio.run(main, backend_options={"use_uvloop": True}) == expected * 2


async def test_nothing_of_a_refused_request_reaches_the_log(at: Enter) -> None:
    async with at("tcp") as entered, aiohttp.ClientSession(entered.house.url) as stranger:
        before = entered.house.log.head
        for _ in range(30):
            await stranger.post("/v1/jobs", json={"kind": "fake"}, headers={"Authorization": "Bearer ft_x_y"})
            await stranger.post("/v1/tokens", json={"scope": "admin"})
        types = {event.type for event in (await entered.house.log.scan(after=before, limit=1000)).events}
        assert types <= {"token.used"}  # of the client that was let in
