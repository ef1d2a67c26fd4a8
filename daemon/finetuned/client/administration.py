"""Calls for who cares for the daemon: its drain, tokens and the event log itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any, Literal

from finetuned.client.calls import Calls, given, part
from finetuned.client.drained import drained
from finetuned.wire import (
    ArchiveReport,
    BackupReport,
    Drain,
    LogStatistics,
    NewToken,
    RebuildReport,
    Token,
    VerifyReport,
)

Json = Any


class AdministrationCalls(Calls):
    """Tokens, and the log's files."""

    async def tokens(self) -> list[Token]:
        """All tokens, without their secrets."""
        return await self._listed("/v1/tokens")

    async def create_token(
        self, *, scope: str, name: str | None = None, expires_in: int | None = None
    ) -> NewToken:
        """A new token; ``token`` in the answer is its secret, shown this once. It is good for ``expires_in`` seconds."""
        # Without a key: the secret is not kept, so a repetition could not be answered with it.
        token: NewToken = await self._transport.request(
            "POST", "/v1/tokens", body=given(scope=scope, name=name, expires_in=expires_in)
        )
        return token

    async def revoke_token(self, token_id: str) -> None:
        """Close a token."""
        await self._delete(f"/v1/tokens/{part(token_id)}")

    async def drain(
        self,
        *,
        mode: Literal["pause", "finish"] = "pause",
        wait_s: float | None = None,
        reason: str | None = None,
    ) -> Drain:
        """Have the daemon start nothing new and stop when nothing runs any more.

        With ``pause`` what runs saves a checkpoint, for at most ``wait_s`` seconds, and goes on after the next start.
        """
        # Sent once: the repetition could be what starts the next daemon, and drains that.
        body = given(mode=mode, wait_s=wait_s, reason=reason)
        drain: Drain = await self._transport.request("POST", "/v1/drain", body=body)
        return drain

    async def drained(
        self,
        *,
        mode: Literal["pause", "finish"] = "pause",
        wait_s: float | None = None,
        reason: str | None = None,
    ) -> AsyncGenerator[Drain, None]:
        """As :meth:`drain`: yield it as it began and after each change, and end when the daemon has stopped.

        Raises ``InvalidRequestError`` (``drain_taken_back``) if somebody takes it back.
        """
        await self.drain_state()  # waits for a daemon that starts
        begin = partial(self.drain, mode=mode, wait_s=wait_s, reason=reason)
        async with aclosing(drained(self._transport, begin)) as states:
            async for state in states:
                yield state

    async def drain_state(self) -> Drain:
        """Whether the daemon drains, and which jobs still have processes."""
        drain: Drain = await self._get("/v1/drain")
        return drain

    async def take_drain_back(self) -> None:
        """Let the daemon go on as before."""
        await self._delete("/v1/drain")

    async def log_state(self) -> LogStatistics:
        """The log's head and size."""
        state: LogStatistics = await self._get("/v1/log")
        return state

    async def verify_log(self) -> VerifyReport:
        """Check the whole hash chain; as long as that takes."""
        report: VerifyReport = await self._care("verify")
        return report

    async def rebuild_log(self) -> RebuildReport:
        """Fold the projections anew from the events; as long as that takes."""
        report: RebuildReport = await self._care("rebuild")
        return report

    async def backup_log(self, path: str) -> BackupReport:
        """Write a checked copy of the log to ``path``, a path on the daemon's machine."""
        report: BackupReport = await self._care("backup", path=path)
        return report

    async def archive_log(self, upto: str, path: str | None = None) -> ArchiveReport:
        """Move the events up to a position or an RFC 3339 time into a file, on the daemon's machine."""
        report: ArchiveReport = await self._care("archive", **given(upto=upto, path=path))
        return report

    async def _care(self, what: str, **body: Json) -> Any:
        return await self._transport.request("POST", f"/v1/log/{what}", body=body, timeout=None)
