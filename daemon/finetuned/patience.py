"""Going on after a log that could not write or read for a while: a full disk must not need a restart."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from finetuned_events import LogBrokenError, LogClosedError, LogError

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 5.0

T = TypeVar("T")

#: after these the daemon must end: the log refuses everything from then on
FATAL = (LogBrokenError, LogClosedError)


async def patiently(what: str, action: Callable[[], Awaitable[T]]) -> T:
    """What ``action`` returns, tried again while the log cannot do it. Errors of other kinds pass through.

    ``action`` must be safe to repeat: a refused transaction wrote nothing.
    """
    pause = FIRST_PAUSE_S
    while True:
        try:
            return await action()
        except FATAL:
            raise
        except LogError as error:
            log.warning("%s has to wait: %s", what, error)
        await anyio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)
