"""Who may do what: peer credentials on the socket, tokens on TCP, and the Host header."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anyio
import pytest

from finetuned.api.auth import Scope
from finetuned.api.routes import ROUTES

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


@pytest.fixture
async def tcp(house: Any) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(house.url) as session:
        yield session


async def bearer(house: Any, scope: str) -> dict[str, str]:
    _, secret = await house.commands.create_token(scope=scope, name=None, actor="test")
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


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer ", "Basic eDp5", "Bearer ft_wrong", "Bearer \u2713"]
)
async def test_without_a_good_token_tcp_is_shut(tcp: Any, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    for route in ROUTES:
        path = re.sub(r"\{[^}]+\}", "none", route.path)
        response = await tcp.request(route.method, path, headers=headers)
        assert response.status == 401, path
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert (await response.json())["error"]["type"] == "authentication_error"


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


@pytest.mark.parametrize("body", [{}, {"scope": "root"}, {"scope": "read", "nam": "x"}])
async def test_a_bad_token_request_is_refused_by_name(client: Any, body: dict[str, str]) -> None:
    response = await client.post("/v1/tokens", json=body)
    assert response.status == 400
    assert (await response.json())["error"]["param"] in {"scope", "nam"}


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


async def test_a_host_that_the_operator_allows_is_answered(open_house: Any, open_client: Any) -> None:
    async with open_house(allowed_hosts=["gpu.example"]) as house, aiohttp.ClientSession(house.url) as tcp:
        headers = await bearer(house, "read")
        assert (await tcp.get("/v1/jobs", headers=headers | {"Host": "gpu.example:443"})).status == 200
        assert (await tcp.get("/v1/jobs", headers=headers | {"Host": "localhost"})).status == 421
