from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from finetuned.access.outbound import Address, OutboundGuard, OutboundRefusedError, is_public

PUBLIC = "93.184.216.34"


class Names:
    """A resolver that answers each question with the next of its answers and counts them."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@asynccontextmanager
async def served(handler: object) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)  # type: ignore[arg-type]
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "192.88.99.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001:db8::1",
        "100::1",
    ],
)
def test_an_address_off_the_public_internet_is_refused(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", [PUBLIC, "1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"]
)
def test_an_address_of_the_public_internet_is_called(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_the_same_in_whatever_it_is_wrapped(address: ipaddress.IPv4Address) -> None:
    for wrapped in (f"::ffff:{address}", f"64:ff9b::{address}"):
        assert is_public(ipaddress.ip_address(wrapped)) == is_public(address)
    for hidden in (f"::{address}", f"2002:{int(address) >> 16:x}:{int(address) & 0xFFFF:x}::1"):
        assert not is_public(ipaddress.ip_address(hidden))


@given(st.ip_addresses())
def test_no_url_with_an_address_off_the_public_internet_is_kept(address: Address) -> None:
    host = f"[{address}]" if address.version == 6 else str(address)
    if not is_public(address):
        with pytest.raises(OutboundRefusedError):
            OutboundGuard().check(f"https://{host}/")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://example.org/", "use https://"),
        ("ftp://example.org/", "no https:// URL"),
        ("file:///etc/passwd", "no https:// URL"),
        ("https://", "no https:// URL"),
        ("https:///path", "no https:// URL"),
        ("https://[::1", "no https:// URL"),
        ("https://[v1.a:b.evil.example]/", "neither a name nor an address"),
        ("https://user:pass@example.org/", "must not carry a user"),
        ("https://example.org\\@127.0.0.1/", "backslash"),
        ("https://example.org/\r\nX: y", "control character"),
        ("https://example.org/" + "x" * 3000, "at most 2048 bytes"),
        ("https://2130706433/", "read in more than one way"),
        ("https://0177.0.0.1/", "read in more than one way"),
        ("https://0x7f.1/", "read in more than one way"),
        ("https://0x7f000001/", "read in more than one way"),
        ("https://127.1/", "read in more than one way"),
        ("https://example.1/", "read in more than one way"),
        ("https://127.0.0.1/", "not on the public internet"),
        ("https://127.0.0.1./", "not on the public internet"),
        ("https://[::1]/", "not on the public internet"),
        ("https://[::ffff:169.254.169.254]/", "not on the public internet"),
        ("https://[::ffff:a9fe:a9fe]/latest/meta-data", "not on the public internet"),
        ("https://[64:ff9b::7f00:1]/", "not on the public internet"),
        ("https://169.254.169.254/latest/meta-data", "not on the public internet"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_before_its_name_is_resolved(url: str, sentence: str) -> None:
    with pytest.raises(OutboundRefusedError, match=sentence) as caught:
        OutboundGuard().check(url, param="url")
    assert (caught.value.stable_code, caught.value.param, caught.value.status) == (
        "outbound_refused",
        "url",
        400,
    )
    assert "pass" not in caught.value.message.replace("password", "")


def test_a_public_https_url_is_kept() -> None:
    assert str(OutboundGuard().check("https://hooks.example.org:8443/x?y=z")) == (
        "https://hooks.example.org:8443/x?y=z"
    )


def test_fullwidth_digits_are_read_as_digits() -> None:
    with pytest.raises(OutboundRefusedError):
        OutboundGuard().check("https://１２７.０.０.１/")  # noqa: RUF001 - the point


@pytest.mark.parametrize("allow", ["localhost", "127.0.0.1", "127.0.0.0/8", "::1"])
def test_what_the_operator_lists_may_be_called_in_plain(allow: str) -> None:
    host = f"[{allow}]" if ":" in allow else allow.partition("/")[0]
    OutboundGuard([allow]).check(f"http://{host}:8080/")


def test_a_listed_network_holds_for_its_mapped_form_too() -> None:
    OutboundGuard(["10.0.0.0/8"]).check("https://[::ffff:10.1.1.1]/")


@pytest.mark.parametrize("entry", ["", "http://x", "10.0.0.0/99", "a b", "2130706433", "*"])
def test_an_entry_that_is_no_host_and_no_network_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="neither a host name"):
        OutboundGuard([entry])


async def test_one_private_address_among_public_ones_spoils_a_name() -> None:
    guard = OutboundGuard(lookup=Names([PUBLIC, "10.0.0.1"]))
    with pytest.raises(OutboundRefusedError, match=r"hooks\.example\.org \(10\.0\.0\.1\)"):
        await guard.addresses("hooks.example.org")


async def test_a_name_is_resolved_to_its_addresses_once() -> None:
    names = Names([PUBLIC, "2606:4700:4700::1111"])
    found = await OutboundGuard(lookup=names).addresses("Hooks.Example.ORG.")
    assert [str(address) for address in found] == [PUBLIC, "2606:4700:4700::1111"]
    assert names.asked == ["hooks.example.org"]


async def test_a_name_without_an_address_is_an_error_of_the_network() -> None:
    with pytest.raises(OSError, match="no address"):
        await OutboundGuard(lookup=Names([])).addresses("hooks.example.org")


async def test_a_name_that_turns_private_after_it_was_registered_is_not_called() -> None:
    """DNS rebinding: the URL passes when it is kept, and its name leads inside when it is called."""

    async def never(_request: web.Request) -> web.Response:
        raise AssertionError("the request came through")

    async with served(never) as port:
        names = Names([PUBLIC], ["127.0.0.1"])
        guard = OutboundGuard(lookup=names)
        url = f"https://hooks.example.org:{port}/"
        guard.check(url)
        await guard.addresses("hooks.example.org")
        async with guard.session() as session:
            with pytest.raises(OutboundRefusedError, match=r"127\.0\.0\.1"):
                async with session.request("POST", url, data=b"x"):
                    pass


async def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    """Each request asks once, so there is no second answer that could differ from the checked one."""
    seen: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Host"))
        return web.Response(text="ok")

    async with served(handler) as port:
        names = Names(["127.0.0.1"], ["10.255.255.1"])
        guard = OutboundGuard(["label-studio.lan"], lookup=names)
        async with (
            guard.session() as session,
            session.request("GET", f"http://label-studio.lan:{port}/") as response,
        ):
            assert await response.text() == "ok"
        assert names.asked == ["label-studio.lan"]
        assert seen == [f"label-studio.lan:{port}"]


async def test_a_redirect_is_not_followed() -> None:
    async def handler(request: web.Request) -> web.Response:
        assert request.path == "/start"
        raise web.HTTPFound("/elsewhere")

    async with served(handler) as port:
        guard = OutboundGuard(["127.0.0.0/8"])
        async with (
            guard.session() as session,
            session.request("GET", f"http://127.0.0.1:{port}/start", allow_redirects=True) as response,
        ):
            assert response.status == 302


async def test_a_session_refuses_a_literal_address_which_no_resolver_sees() -> None:
    async with OutboundGuard().session() as session:
        with pytest.raises(OutboundRefusedError):
            async with session.request("GET", "https://127.0.0.1/"):
                pass


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(text="direct")

    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with served(handler) as port:
        guard = OutboundGuard(["127.0.0.1"])
        async with (
            guard.session() as session,
            session.request("GET", f"http://127.0.0.1:{port}/") as response,
        ):
            assert await response.text() == "direct"


async def test_the_systems_own_answer_is_checked_like_any_other() -> None:
    with pytest.raises(OutboundRefusedError, match="localhost"):
        await OutboundGuard().addresses("localhost")
