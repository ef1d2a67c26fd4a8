"""Pages in a browser: which may ask over TCP, and what each answer tells the browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

ALLOWED = "https://lab.example.org"


@pytest.fixture
async def tcp(house: Any) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(house.url) as session:
        yield session


async def bearer(house: Any) -> dict[str, str]:
    _, secret = await house.commands.tokens.create(scope="admin", name=None, actor="test")
    return {"Authorization": f"Bearer {secret}"}


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT"])
@pytest.mark.parametrize("path", ["/v1/jobs", "/healthz", "/nowhere", "/docs"])
@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://127.0.0.1", "http://localhost:1", "", "http://[::1]:8642"],
)
async def test_pages_of_other_origins_are_refused_whatever_they_ask(
    house: Any, tcp: Any, method: str, path: str, origin: str
) -> None:
    response = await tcp.request(method, path, headers=await bearer(house) | {"Origin": origin})
    assert response.status == 403
    assert "Access-Control-Allow-Origin" not in response.headers
    if method != "HEAD":
        error = (await response.json())["error"]
        assert error["code"] == "origin_not_allowed"
        assert "allowed_origins" in error["message"]


async def test_the_daemons_own_pages_may_ask_and_need_no_cors(house: Any, tcp: Any) -> None:
    for own in (house.url, house.url.upper().replace("HTTP", "http")):
        response = await tcp.get("/v1/jobs", headers=await bearer(house) | {"Origin": own})
        assert response.status == 200
        assert "Access-Control-Allow-Origin" not in response.headers
    # A page of the same name that was rebound is caught by its Host header.
    rebound = {"Origin": "http://evil.example", "Host": "evil.example"}
    response = await tcp.get("/v1/jobs", headers=await bearer(house) | rebound)
    assert (response.status, (await response.json())["error"]["code"]) == (421, "host_not_allowed")


async def test_two_origins_are_nobodys(house: Any, tcp: Any) -> None:
    headers = [*(await bearer(house)).items(), ("Origin", house.url), ("Origin", house.url)]
    assert (await tcp.get("/v1/jobs", headers=headers)).status == 403


async def test_the_unix_socket_takes_no_notice_of_origins(client: Any) -> None:
    headers = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert (await client.get("/v1/jobs", headers=headers)).status == 200


async def test_a_page_that_is_allowed_may_ask_and_read(open_house: Any) -> None:
    async with (
        open_house(allowed_origins=[ALLOWED.upper()]) as house,
        aiohttp.ClientSession(house.url) as tcp,
    ):
        headers = await bearer(house) | {"Origin": ALLOWED}
        wanted = {
            "/v1/jobs": 200, "/v1/jobs/none": 404, "/nowhere": 404, "/v1/events?stream=true": 200,
        }  # fmt: skip
        for path, status in wanted.items():
            response = await tcp.get(path, headers=headers)
            assert response.status == status
            assert response.headers["Access-Control-Allow-Origin"] == ALLOWED
            assert "ETag" in response.headers["Access-Control-Expose-Headers"]
            assert "Access-Control-Allow-Credentials" not in response.headers
            response.close()
        unauthorized = await tcp.get("/v1/jobs", headers={"Origin": ALLOWED})
        assert (unauthorized.status, unauthorized.headers["Access-Control-Allow-Origin"]) == (401, ALLOWED)
        other = await tcp.get(
            "/v1/jobs", headers=headers | {"Origin": "https://lab.example.org.evil.example"}
        )
        assert other.status == 403
        assert other.headers["Vary"] == "Origin"


async def test_a_preflight_is_answered_to_pages_that_are_allowed(open_house: Any) -> None:
    preflight = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
    }
    async with open_house(allowed_origins=[ALLOWED]) as house, aiohttp.ClientSession(house.url) as tcp:
        response = await tcp.options("/v1/jobs", headers=preflight | {"Origin": ALLOWED})
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == ALLOWED
        assert "POST" in response.headers["Access-Control-Allow-Methods"]
        allowed = response.headers["Access-Control-Allow-Headers"].lower()
        assert all(name in allowed for name in ("authorization", "content-type", "idempotency-key"))
        refused = await tcp.options("/v1/jobs", headers=preflight | {"Origin": "https://evil.example"})
        assert refused.status == 403
        own = await tcp.options("/v1/jobs", headers=preflight | {"Origin": house.url})
        assert own.status == 405


@pytest.mark.parametrize(
    ("fetch", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),  # an image, a script
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, 403),  # another port of this host
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),  # a link
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200),  # typed in
        ({}, 200),
    ],
)
async def test_other_sites_may_link_to_it_and_load_nothing_of_it(
    tcp: Any, fetch: dict[str, str], status: int
) -> None:
    response = await tcp.get("/docs", headers=fetch)
    assert response.status == status
    if status == 403:
        assert (await response.json())["error"]["code"] == "origin_not_allowed"


async def test_every_answer_tells_browsers_to_keep_it_to_themselves(
    house: Any, tcp: Any, client: Any
) -> None:
    headers = await bearer(house)
    for session, path in (
        (tcp, "/healthz"), (tcp, "/docs"), (tcp, "/openapi.json"), (tcp, "/v1/jobs"), (tcp, "/nowhere"),
        (tcp, "/v1/events?stream=true"), (client, "/v1/jobs/none"), (client, "/metrics"),
    ):  # fmt: skip
        response = await session.get(path, headers=headers)
        assert response.headers["X-Content-Type-Options"] == "nosniff", path
        assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Server"] == "finetuned"  # and of which version of what is nobody's business
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        response.close()
