"""Deliveries go on, whatever one receiver does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from finetuned.webhooks.deliveries import PAUSE_S, keep_on
from finetuned.webhooks.endpoint import Clock
from finetuned_events import LogBrokenError


class Endpoint:
    """Ends with these errors, one after another, then by itself."""

    def __init__(self, *errors: Exception) -> None:
        self.webhook = SimpleNamespace(id="wh_one")
        self.slept: list[float] = []
        self.clock = Clock(sleep=self._sleep)
        self._errors = list(errors)

    async def run(self) -> None:
        if self._errors:
            raise self._errors.pop(0)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


async def test_deliveries_that_broke_off_go_on_after_a_pause() -> None:
    endpoint: Any = Endpoint(OverflowError(), ExceptionGroup("both", [ValueError()]))
    await keep_on(endpoint)
    assert endpoint.slept == [PAUSE_S, PAUSE_S]


async def test_a_log_that_is_broken_ends_them() -> None:
    endpoint: Any = Endpoint(LogBrokenError("broken"))
    with pytest.raises(LogBrokenError):
        await keep_on(endpoint)
    assert endpoint.slept == []
