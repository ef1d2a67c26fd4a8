"""The sockets: taken ones, stale ones, and an orderly end."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import anyio.lowlevel
import pytest

from finetuned.domain.errors import StartError


async def test_a_port_in_use_is_named_with_the_setting_to_change(open_house: Any, open_client: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=rf"Port {port} .*FINETUNED_LISTEN"):
            async with open_house(listen=f"127.0.0.1:{port}"):
                pass


async def test_an_address_of_another_host_is_refused(open_house: Any, open_client: Any) -> None:
    with pytest.raises(StartError, match=r"192\.0\.2\.1:0 cannot be listened on"):
        async with open_house(listen="192.0.2.1:0"):
            pass


async def test_a_start_that_fails_leaves_no_socket_behind(
    open_house: Any, open_client: Any, state_dir: Path
) -> None:
    with pytest.raises(StartError):
        async with open_house(listen="192.0.2.1:0"):
            pass
    assert not (state_dir / "finetuned.sock").exists()


async def test_a_stale_socket_is_replaced(open_house: Any, open_client: Any, state_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(state_dir / "finetuned.sock"))
    async with open_house() as house, open_client(house) as client:
        assert (await client.get("/healthz")).status == 200


async def test_a_socket_that_answers_is_left_alone(
    open_house: Any, open_client: Any, state_dir: Path
) -> None:
    path = str(state_dir / "finetuned.sock")
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(path)
        alive.listen()
        with pytest.raises(StartError, match="Another daemon answers"):
            async with open_house():
                pass
        assert await anyio.Path(path).exists()


@pytest.mark.parametrize("in_the_way", ["a file", "no directory"])
async def test_a_socket_that_cannot_be_made_is_refused_with_the_remedy(
    open_house: Any, open_client: Any, state_dir: Path, in_the_way: str
) -> None:
    path = state_dir / "x" / "finetuned.sock" if in_the_way == "no directory" else state_dir / "file"
    (state_dir / "file").write_text("precious")
    with pytest.raises(StartError, match="FINETUNED_SOCKET"):
        async with open_house(socket=path):
            pass
    assert (state_dir / "file").read_text() == "precious"


async def test_no_listen_address_means_no_tcp(open_house: Any, open_client: Any) -> None:
    async with open_house(listen="") as house, open_client(house) as client:
        assert house.addresses.tcp is None
        assert (await client.get("/v1/jobs")).status == 200


async def test_it_closes_within_a_second_with_open_streams_and_removes_its_socket(
    open_house: Any, open_client: Any, state_dir: Path
) -> None:
    async with open_house() as house:
        client = open_client(house)
        responses = [await client.get("/v1/events?stream=true") for _ in range(5)]
        closing = anyio.current_time()
    # The bound is the promise to service managers, not a measurement.
    assert anyio.current_time() - closing < 2
    assert not (state_dir / "finetuned.sock").exists()
    for response in responses:
        response.close()
    await client.close()


async def test_opening_and_closing_again_and_again_leaks_nothing(open_house: Any, open_client: Any) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - no Path objects are wanted

    async def once() -> None:
        async with open_house() as house, open_client(house) as client:
            assert (await client.get("/v1/jobs")).status == 200
            async with client.get("/v1/events?stream=true") as stream:
                await stream.content.readany()

    await once()
    before = descriptors()
    for _ in range(15):
        await once()
    assert descriptors() <= before + 2


async def test_http_1_0_clients_get_a_stream_without_chunks(house: Any) -> None:
    await house.accept_job()
    async with await anyio.connect_unix(house.addresses.socket) as stream:
        await stream.send(b"GET /v1/events?stream=true&after=0 HTTP/1.0\r\n\r\n")
        received = b""
        with anyio.fail_after(10):
            while b"job.submitted" not in received or not received.endswith(b"\n\n"):
                received += await stream.receive()
    body = received.partition(b"\r\n\r\n")[2]
    assert body.startswith(b"retry: 2000\n\nid: 1\nevent: devices.detected\ndata: ")


async def test_broken_requests_do_no_harm(house: Any, open_client: Any) -> None:
    for rubbish in (b"\x16\x03\x01\x02\x00", b"GET /v1/jobs HTTP/9.9\r\n\r\n", b"A" * 70_000):
        async with await anyio.connect_unix(house.addresses.socket) as stream:
            await stream.send(rubbish)
            with anyio.move_on_after(1):
                await stream.receive()
    async with open_client(house) as client, client.get("/healthz") as response:
        assert response.status == 200


async def test_a_request_in_progress_is_answered_before_the_server_closes(
    open_house: Any, open_client: Any
) -> None:
    answered: list[int] = []

    async def ask(client: aiohttp.ClientSession) -> None:
        async with client.post("/v1/log/verify") as response:
            answered.append(response.status)

    async with anyio.create_task_group() as tasks:
        async with open_house() as house:
            client = open_client(house)
            tasks.start_soon(ask, client)
            await anyio.sleep(0.01)
        await anyio.lowlevel.checkpoint()
    await client.close()
    assert answered == [200]
