"""``SyncClient`` is ``Client`` without an event loop."""

from __future__ import annotations

import inspect
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator, Iterator
from types import GenericAlias
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from tests.acceptance.cli.fake_daemon import FakeDaemon

from finetuned.client import Client, SyncClient
from finetuned.client.endpoint import Endpoint
from finetuned.domain.errors import NotFoundError


def calls(client: type) -> dict[str, Any]:
    """The public methods of a client class."""
    return {
        name: call
        for name, call in inspect.getmembers(client, inspect.isfunction)
        if not name.startswith("_")
    }


def test_both_have_the_same_methods() -> None:
    assert set(calls(SyncClient)) == set(calls(Client))
    assert len(calls(Client)) > 20


@pytest.mark.parametrize("name", calls(Client))
def test_a_method_takes_and_gives_the_same_on_both(name: str) -> None:
    awaited, waiting = calls(Client)[name], calls(SyncClient)[name]
    assert waiting.__wrapped__ is awaited
    assert inspect.isgeneratorfunction(waiting) == inspect.isasyncgenfunction(awaited)
    hints, own = get_type_hints(awaited), get_type_hints(waiting)
    if inspect.isasyncgenfunction(awaited):
        assert get_origin(hints["return"]) is AsyncGenerator
        assert own.pop("return") == GenericAlias(Generator, (*get_args(hints.pop("return")), None))
    assert own == hints
    assert waiting.__doc__


@pytest.fixture
def client(daemon: FakeDaemon) -> Iterator[SyncClient]:
    with SyncClient(Endpoint(socket=daemon.socket)) as connected:
        yield connected


def test_a_program_without_an_event_loop_can_submit_and_follow(
    client: SyncClient, daemon: FakeDaemon
) -> None:
    assert client.ready()
    assert client.endpoint.socket == daemon.socket
    job = client.submit("sft", {"model": "tiny"}, name="first")
    steps = []
    following = client.follow(job=job["id"], types=["job.progress"])
    for event in following:
        steps.append(event["data"]["current_step"])
        if len(steps) == 3:
            following.close()
    assert steps == [1, 2, 3]
    assert [each["id"] for each in client.all_jobs()] == [job["id"]]
    assert b"".join(client.logs(job["id"])) == b""


def test_an_iteration_that_is_left_in_the_middle_outlives_its_client_quietly(daemon: FakeDaemon) -> None:
    daemon.runs("job-1")
    with SyncClient(Endpoint(socket=daemon.socket)) as client:
        following = client.follow(job="job-1")
        assert next(following)["seq"] == 1
    following.close()


def test_ctrl_c_ends_a_program_that_follows(daemon: FakeDaemon) -> None:
    daemon.runs("job-1", ends=False)
    code = (
        "from finetuned.client import SyncClient\n"
        "with SyncClient() as daemon:\n"
        "    for event in daemon.follow(job='job-1'):\n"
        "        print(event['seq'], flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        program.stdout.readline()
        program.send_signal(signal.SIGINT)
        _, err = program.communicate(timeout=30)
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert program.returncode == -signal.SIGINT


def test_a_refusal_is_raised_where_it_was_asked(client: SyncClient) -> None:
    with pytest.raises(NotFoundError):
        client.job("none")


def test_it_can_be_used_only_while_it_is_open(daemon: FakeDaemon) -> None:
    client = SyncClient(Endpoint(socket=daemon.socket))
    with client:
        assert client.jobs()["data"] == []
    with pytest.raises(RuntimeError, match="`with`"):
        client.jobs()
