"""How long the client waits for an answer."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from finetuned.client import Client
from finetuned.client.transport import ANSWER_TIMEOUT

Ask = Callable[[Client], Coroutine[Any, Any, Any]]

LONG: dict[str, Ask] = {
    "checkpoints that are read through": lambda client: client.checkpoints("job-1", verify=True),
    "a resume": lambda client: client.resume("job-1"),
    "a retry from a checkpoint": lambda client: client.retry("job-1", from_checkpoint="latest"),
    "a check of the log": lambda client: client.verify_log(),
}
SHORT: dict[str, Ask] = {
    "a list of checkpoints": lambda client: client.checkpoints("job-1"),
    "a retry from the beginning": lambda client: client.retry("job-1"),
    "a pause": lambda client: client.pause("job-1"),
}


async def patience(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> float | None:
    """The time-out of the request that a call makes."""
    found: list[float | None] = []

    async def request(*_given: Any, timeout: float | None = ANSWER_TIMEOUT, **_more: Any) -> Any:
        found.append(timeout)
        return {"data": [], "has_more": False}

    client = Client()
    monkeypatch.setattr(client._transport, "request", request)
    await ask(client)
    (timeout,) = found
    return timeout


@pytest.mark.parametrize("what", LONG)
async def test_what_reads_gigabytes_is_waited_for_as_long_as_it_takes(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await patience(LONG[what], monkeypatch) is None


@pytest.mark.parametrize("what", SHORT)
async def test_what_reads_nothing_has_a_time_out(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await patience(SHORT[what], monkeypatch) == ANSWER_TIMEOUT
