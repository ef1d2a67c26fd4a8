"""Who may do what: peer credentials on the socket, tokens on TCP, and the Host header."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import aiohttp
import anyio
import pytest
from yarl import URL

from finetuned.api import auth
from finetuned.api.auth import Scope
from finetuned.api.failures import BURST, Failures
from finetuned.api.routes import ROUTES
from finetuned.testing import House
from finetuned_events import LogFullError

SECOND = 1_000_000

ASK = """
import http.client, os, socket, sys
uid, gid, groups, path, method, target = int(sys.argv[1]), int(sys.argv[2]), eval(sys.argv[3]), *sys.argv[4:]
if os.getuid() == 0:
    os.setgroups(groups); os.setgid(gid); os.setuid(uid)
connection = http.client.HTTPConnection("localhost")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(path)
connection.request(method, target)
print(connection.getresponse().status)
"""


def moment(at: str) -> int:
    """RFC 3339 as microseconds since the epoch."""
    return (datetime.fromisoformat(at) - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)


def at(house: Any, now: int) -> None:
    """Have it be so late, in microseconds since the epoch."""
    house.queries.now = lambda: now
    house.commands.tokens.appending = replace(house.commands.appending, now=lambda: now)


@pytest.fixture
async def tcp(house: Any) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(house.url) as session:
        yield session


async def bearer(house: Any, scope: str) -> dict[str, str]:
    _, secret = await house.commands.tokens.create(scope=scope, name=None, actor="test")
    return {"Authorization": f"Bearer {secret}"}


async def status_as(house: Any, uid: int, groups: list[int], method: str, target: str) -> int:
    """What the daemon answers to a process of that user."""
    path = str(house.addresses.socket)
    command = [sys.executable, "-c", ASK, str(uid), str(uid), repr(groups), path, method, target]
    done = await anyio.run_process(command)
    return int(done.stdout)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
async def test_a_peer_gets_what_its_user_and_groups_allow(house: Any) -> None:
    # Past the file's own mode, so that it is the credentials that are asked.
    await anyio.Path(house.addresses.socket).chmod(0o666)
    await anyio.Path(house.addresses.socket.parent).chmod(0o755)
    daemon_group = os.getegid()
    granted = {
        (uid, method): await status_as(house, uid, groups, method, target)
        for uid, groups in ((0, []), (1001, [daemon_group]), (1002, []), (65534, [daemon_group]))
        for method, target in (("GET", "/v1/jobs"), ("POST", "/v1/jobs/none/cancel"), ("POST", "/v1/log/verify"))
    }  # fmt: skip
    assert granted == {
        (0, "GET"): 200, (0, "POST"): 200,
        (1001, "GET"): 200, (1001, "POST"): 403,
        (1002, "GET"): 403, (1002, "POST"): 403,
        (65534, "GET"): 403, (65534, "POST"): 403,
    }  # fmt: skip
    assert await status_as(house, 1001, [daemon_group], "POST", "/v1/jobs/none/cancel") == 404


async def test_the_socket_is_for_its_owner_and_group_only(house: Any) -> None:
    mode = (await anyio.Path(house.addresses.socket).stat()).st_mode
    assert stat.S_IMODE(mode) == 0o660


@pytest.mark.parametrize("scope", ["read", "operate", "admin"])
async def test_a_token_opens_exactly_what_its_scope_includes(house: Any, tcp: Any, scope: str) -> None:
    headers = await bearer(house, scope)
    for route in ROUTES:
        path = re.sub(r"\{[^}]+\}", "none", route.path)
        if path.endswith(("verify", "rebuild")) and scope == "admin":
            continue  # they would do it
        response = await tcp.request(route.method, path, headers=headers)
        denied = response.status == 403
        assert denied == (route.scope > Scope[scope.upper()]), f"{route.method} {path}: {response.status}"
        if denied:
            assert route.scope.name.lower() in (await response.json())["error"]["message"]


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", "Basic eDp5"])
async def test_without_a_token_tcp_is_shut(tcp: Any, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    for route in ROUTES:
        path = re.sub(r"\{[^}]+\}", "none", route.path)
        response = await tcp.request(route.method, path, headers=headers)
        assert response.status == 401, path
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert (await response.json())["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("secret", ["ft_wrong", "ft__", "tok-1", "\u2713", "ft_" + "0" * 4000])
async def test_a_wrong_token_opens_no_route(tcp: Any, secret: str) -> None:
    for route in ROUTES:
        path = re.sub(r"\{[^}]+\}", "none", route.path)
        response = await tcp.request(route.method, path, headers={"Authorization": f"Bearer {secret}"})
        refusal = (await response.json())["error"]
        assert (response.status, refusal["code"]) in {(401, "invalid_token"), (429, "too_many_failures")}, (
            path
        )
        assert "finetune tokens create" in refusal["message"] or "wait" in refusal["message"]


async def test_the_id_of_a_token_with_another_secret_opens_nothing(house: Any, tcp: Any) -> None:
    token, secret = await house.commands.tokens.create(scope="admin", name=None, actor="test")
    for wrong in (token.id, secret[:-1], secret + "x", secret.replace("ft_", "fT_"), secret.swapcase()):
        response = await tcp.get("/v1/jobs", headers={"Authorization": f"Bearer {wrong}"})
        assert response.status == 401, wrong
    assert (await tcp.get("/v1/jobs", headers={"Authorization": f"bearer  {secret} "})).status == 200


async def test_health_needs_no_token(tcp: Any) -> None:
    for path in ("/healthz", "/readyz"):
        assert (await tcp.get(path)).status == 200


async def test_a_token_is_shown_once_works_and_is_shut_by_revocation(
    house: Any, client: Any, tcp: Any
) -> None:
    made = await (await client.post("/v1/tokens", json={"scope": "operate", "name": "ci"})).json()
    assert {"id", "token", "scope"} <= set(made)
    headers = {"Authorization": f"Bearer {made['token']}"}
    job = await (await tcp.post("/v1/jobs", json={"kind": "fake"}, headers=headers)).json()
    assert job["submitted_by"] == f"token:{made['id']}"
    listed = await (await client.get("/v1/tokens")).text()
    assert made["id"] in listed
    assert made["token"] not in listed
    events = json.dumps(await (await client.get("/v1/events?limit=1000")).json())
    assert made["token"] not in events
    assert (await client.delete(f"/v1/tokens/{made['id']}")).status == 200
    assert (await tcp.get("/v1/jobs", headers=headers)).status == 401
    for _ in range(2):
        assert (await client.delete(f"/v1/tokens/{made['id']}")).status == 200


async def test_revoking_a_token_ends_the_streams_that_it_opened(house: Any, client: Any, tcp: Any) -> None:
    made, kept = [await (await client.post("/v1/tokens", json={"scope": "read"})).json() for _ in range(2)]

    async def opened(token: dict[str, str]) -> Any:
        headers = {"Authorization": f"Bearer {token['token']}"}
        response = await tcp.get("/v1/events?stream=true&types=job.submitted", headers=headers)
        assert await response.content.readuntil(b"\n\n") == b"retry: 2000\n\n"
        return response

    shut, open_still = await opened(made), await opened(kept)
    await client.delete(f"/v1/tokens/{made['id']}")
    with anyio.fail_after(10), pytest.raises(aiohttp.ClientPayloadError):
        await shut.content.read()
    await house.accept_job()
    with anyio.fail_after(10):
        assert b"job.submitted" in await open_still.content.readuntil(b"\n\n")
    for response in (shut, open_still):
        response.close()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "scope"),
        ({"scope": "root"}, "scope"),
        ({"scope": "read", "nam": "x"}, "nam"),
        ({"scope": "read", "expires_in": 0}, "expires_in"),
        ({"scope": "read", "expires_in": 10**12}, "expires_in"),
        ({"scope": "read", "expires_in": "1d"}, "expires_in"),
        ({"scope": "read", "expires_in": True}, "expires_in"),
    ],
)
async def test_a_bad_token_request_is_refused_by_name(
    client: Any, body: dict[str, Any], param: str | None
) -> None:
    response = await client.post("/v1/tokens", json=body)
    refusal = (await response.json())["error"]
    assert (response.status, refusal["param"]) == (400, param), refusal


async def test_a_token_expires_when_it_was_told_to(house: Any, client: Any, tcp: Any) -> None:
    start = house.queries.now()
    at(house, start)
    asked = {"scope": "read", "expires_in": 3600}
    made = await (await client.post("/v1/tokens", json=asked)).json()
    assert moment(made["expires_at"]) == start + 3600 * SECOND
    headers = {"Authorization": f"Bearer {made['token']}"}
    at(house, start + 3600 * SECOND - 1)
    assert (await tcp.get("/v1/jobs", headers=headers)).status == 200
    at(house, start + 3600 * SECOND)
    response = await tcp.get("/v1/jobs", headers=headers)
    refusal = (await response.json())["error"]
    assert (response.status, refusal["code"]) == (401, "token_expired")
    assert made["id"] in refusal["message"]
    assert "finetune tokens create" in refusal["message"]


async def test_the_end_of_a_token_ends_the_streams_that_it_opened(house: Any, client: Any, tcp: Any) -> None:
    body = {"scope": "read", "expires_in": 3600}
    made = await (await client.post("/v1/tokens", json=body)).json()
    kept = await (await client.post("/v1/tokens", json={"scope": "read"})).json()
    job_id = await house.accept_job()

    async def opened(token: dict[str, str], path: str) -> Any:
        return await tcp.get(path, headers={"Authorization": f"Bearer {token['token']}"})

    shut = [
        await opened(made, path) for path in ("/v1/events?stream=true", f"/v1/jobs/{job_id}/logs?follow=true")
    ]
    still = await opened(kept, "/v1/events?stream=true")
    start = house.queries.now()
    at(house, start + 3600 * SECOND)
    for response in shut:
        with anyio.fail_after(10), pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()
    await house.accept_job()
    with anyio.fail_after(10):
        assert b"job.submitted" in await still.content.readuntil(b"job.submitted")
    for response in (*shut, still):
        response.close()


async def test_a_stream_opened_with_a_token_that_was_just_revoked_ends(
    house: Any, tcp: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, secret = await house.commands.tokens.create(scope="read", name=None, actor="test")
    identify = auth.identify

    async def slowly(request: Any) -> Any:
        caller = await identify(request)
        await house.commands.tokens.revoke(token.id, actor="test")
        await until(lambda: house.feed._position >= house.log.head)
        return caller

    monkeypatch.setattr(auth, "identify", slowly)
    response = await tcp.get("/v1/events?stream=true", headers={"Authorization": f"Bearer {secret}"})
    with anyio.fail_after(10), pytest.raises(aiohttp.ClientPayloadError):
        await response.content.read()
    response.close()


async def test_the_last_use_of_a_token_is_recorded_once_an_hour(house: Any, client: Any, tcp: Any) -> None:
    start = house.queries.now()
    made, unused = [await (await client.post("/v1/tokens", json={"scope": "read"})).json() for _ in range(2)]
    headers = {"Authorization": f"Bearer {made['token']}"}

    async def uses() -> list[dict[str, Any]]:
        return list((await (await client.get("/v1/events?types=token.used&limit=1000")).json())["data"])

    async def recorded(count: int) -> None:
        with anyio.fail_after(10):
            while len(await uses()) < count:  # noqa: ASYNC110 - no event comes from there
                await anyio.sleep(0.05)

    for _ in range(20):
        assert (await tcp.get("/v1/jobs", headers=headers)).status == 200
    await recorded(1)
    for _ in range(20):
        await tcp.get("/v1/jobs", headers=headers)
    at(house, start + 2 * 3600 * SECOND)
    await tcp.get("/v1/jobs", headers=headers)
    await recorded(2)
    assert [(event["stream"], event["actor"]) for event in await uses()] == [
        (f"token/{made['id']}", f"token:{made['id']}")
    ] * 2
    listed = {each["id"]: each for each in (await (await client.get("/v1/tokens")).json())["data"]}
    assert listed[made["id"]]["last_used_at"] == (await uses())[-1]["at"]
    assert listed[unused["id"]]["last_used_at"] is None


async def test_wrong_tokens_slow_their_address_down_and_leave_good_ones_alone(
    open_house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # While no time passes none may be tried again.
    monkeypatch.setattr("finetuned.api.app.Failures", partial(Failures, clock=lambda: 0.0))
    answers = []
    async with open_house() as house, aiohttp.ClientSession(house.url) as tcp:
        good = await bearer(house, "read")
        for _ in range(BURST + 5):
            answer = await tcp.get("/v1/jobs", headers={"Authorization": "Bearer ft_guess_1"})
            answers.append((answer.status, (await answer.json())["error"]["code"]))
            assert (await tcp.get("/v1/jobs", headers=good)).status == 200
        limited = await tcp.get("/v1/jobs", headers={"Authorization": "Bearer ft_guess_2"})
        assert limited.headers["Retry-After"] == "1"
        assert limited.headers["Connection"] == "close"
        assert "wait 1 s" in (await limited.json())["error"]["message"]
        without = await tcp.get("/v1/jobs")
        assert without.status == 401  # nothing was tried
    assert answers[:BURST] == [(401, "invalid_token")] * BURST
    assert answers[-1] == (429, "too_many_failures")


async def test_a_foreign_host_header_is_refused_on_tcp_and_ignored_on_the_socket(
    house: Any, client: Any, tcp: Any
) -> None:
    headers = await bearer(house, "read")
    for host in ("evil.example", "evil.example:8642", "127.0.0.1.evil.example", ""):
        response = await tcp.get("/v1/jobs", headers=headers | {"Host": host})
        assert response.status in {421, 400}, host
        assert (await client.get("/v1/jobs", headers={"Host": host})).status == 200
    for host in ("localhost", "LOCALHOST.:1", "127.0.0.1:8642", "[::1]:8642"):
        assert (await tcp.get("/v1/jobs", headers=headers | {"Host": host})).status == 200, host


@pytest.mark.parametrize("path", ["/v1/jobs/j/artifacts/n/files/x://localhost/y", "/docs", "/openapi.json"])
async def test_what_a_path_holds_is_no_host(house: Any, path: str) -> None:
    address = URL(house.url)
    asked = f"GET {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    async with await anyio.connect_tcp(address.host or "", address.port or 0) as stream:
        await stream.send(asked.encode())
        answer = await stream.receive(65536)
    assert answer.startswith(b"HTTP/1.1 421 ")


async def test_a_host_that_the_operator_allows_is_answered(open_house: Any, open_client: Any) -> None:
    async with open_house(allowed_hosts=["gpu.example"]) as house, aiohttp.ClientSession(house.url) as tcp:
        headers = await bearer(house, "read")
        assert (await tcp.get("/v1/jobs", headers=headers | {"Host": "gpu.example:443"})).status == 200
        assert (await tcp.get("/v1/jobs", headers=headers | {"Host": "localhost"})).status == 421


async def test_a_token_is_closed_also_while_the_disk_is_full(
    house: House, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever holds it may be who has filled the disk."""
    token, secret = await house.commands.tokens.create(scope="operate", name=None, actor="test")
    execute = house.log.execute

    async def full(decide: Any, **how: Any) -> Any:
        if not how.get("necessary"):
            raise LogFullError("The disk is full.")
        return await execute(decide, **how)

    monkeypatch.setattr(house.log, "execute", full)
    async with client.delete(f"/v1/tokens/{token.id}") as answer:
        assert answer.status == 200
    headers = {"Authorization": f"Bearer {secret}"}
    async with (
        aiohttp.ClientSession() as theirs,
        theirs.get(f"{house.url}/v1/jobs", headers=headers) as answer,
    ):
        assert answer.status == 401
