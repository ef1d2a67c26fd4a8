"""A moment of the log, named by a position or by a time."""

from __future__ import annotations

from datetime import datetime

from finetuned.domain.errors import ArchivedError, InvalidRequestError
from finetuned.store import Log, queries

LARGEST_SEQ = 2**63 - 1


async def position(log: Log, at: str, *, param: str = "at") -> int:
    """The position of the newest event up to a moment: a position itself, or an RFC 3339 time.

    ``param`` is what the request calls it. Raises ``InvalidRequestError`` for what is neither, ``ArchivedError`` for one before the log's newest seal.
    """
    if at.isascii() and at.isdigit() and len(at) <= 19 and int(at) <= LARGEST_SEQ:
        found = min(int(at), log.head)
        is_archived = found < log.sealed
    else:
        moment = microseconds(at, param=param)
        is_archived = bool(log.seals) and moment < log.seals[-1].at
        rows = await log.fetch(queries()["select_position"], (moment,))
        found = int(rows[0][0])
    if is_archived:
        raise ArchivedError(
            f"What was before event {log.sealed} is in an archive ({log.seals[-1].file.name}); ask for {log.sealed} or a"
            " later one.",
            param=param,
        )
    return found


def microseconds(at: str, *, param: str = "at") -> int:
    """An RFC 3339 time as microseconds since the epoch. Raises ``InvalidRequestError``."""
    try:
        # A plus that was not encoded arrives as a space.
        moment = datetime.fromisoformat(at.replace(" ", "+") if "T" in at else at)
        whole = int(moment.replace(microsecond=0).timestamp()) * 1_000_000 + moment.microsecond
    except (ValueError, OverflowError):
        moment, whole = None, 0
    if moment is None or moment.tzinfo is None:
        raise InvalidRequestError(
            f"{param} must be a position of the log (a whole number) or a time with its offset, such as"
            f" 2026-01-31T12:00:00Z; got {at[:40]!r}.",
            param=param,
        )
    return min(max(whole, 0), LARGEST_SEQ)
