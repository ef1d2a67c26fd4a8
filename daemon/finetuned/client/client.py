"""An asynchronous client of the daemon, for programs and for the command line.

.. code-block:: python

    async with Client() as daemon:
        job = await daemon.submit("sft", {"model": "smollm2", "dataset": "/data/train.jsonl"})
        async with aclosing(daemon.follow(job=job["id"])) as events:
            async for event in events:
                print(event["type"], event["data"])

Every method raises a ``FinetunedError``: the server's own refusal with its code, or ``UnreachableError`` when
nothing answers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

from finetuned.client.endpoint import Endpoint, find_endpoint
from finetuned.client.errors import UnreachableError
from finetuned.client.follow import OnConnection, follow
from finetuned.client.transport import LOST, Transport
from finetuned.wire import (
    BackupReport,
    Device,
    Event,
    Job,
    Kind,
    Model,
    Page,
    RebuildReport,
    Token,
    VerifyReport,
)

Json = Any

PAGE: Final = 500  # items a page when all are asked for


class Client:
    """A connection to one daemon. Use it as an asynchronous context manager."""

    def __init__(self, endpoint: Endpoint | None = None) -> None:
        self._transport = Transport(endpoint or find_endpoint())
        self._request = self._transport.request

    @property
    def endpoint(self) -> Endpoint:
        """Where the daemon is."""
        return self._transport.endpoint

    async def __aenter__(self) -> Self:
        self._transport.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.close()

    # ---- jobs --------------------------------------------------------------------------------------------

    async def submit(
        self,
        kind: str,
        params: Mapping[str, Json],
        *,
        name: str | None = None,
        priority: int | None = None,
        metadata: Mapping[str, Json] | None = None,
        max_attempts: int | None = None,
    ) -> Job:
        """Submit a job; when this returns, the daemon has it on disk."""
        body = {
            "kind": kind,
            "params": params,
            "name": name,
            "priority": priority,
            "metadata": metadata,
            "max_attempts": max_attempts,
        }
        given = {key: value for key, value in body.items() if value is not None}
        job: Job = await self._request("POST", "/v1/jobs", body=given)
        return job

    async def job(self, job_id: str) -> Job:
        """One job."""
        job: Job = await self._request("GET", _job_path(job_id))
        return job

    async def jobs(
        self,
        *,
        state: str | None = None,
        kind: str | None = None,
        name: str | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> Page[Job]:
        """A page of jobs, newest first."""
        query = _query(state=state, kind=kind, name=name, after=after, limit=limit)
        page: Page[Job] = await self._request("GET", "/v1/jobs", query=query)
        return page

    async def all_jobs(
        self, *, state: str | None = None, kind: str | None = None, name: str | None = None
    ) -> AsyncGenerator[Job, None]:
        """Every job, newest first, page by page."""
        after: str | None = None
        while True:
            page = await self.jobs(state=state, kind=kind, name=name, after=after, limit=PAGE)
            for job in page["data"]:
                yield job
            if not page["has_more"] or not page["data"]:
                return
            after = page["data"][-1]["id"]

    async def cancel(self, job_id: str, *, reason: str | None = None) -> Job:
        """Ask a job to end."""
        body = {} if reason is None else {"reason": reason}
        job: Job = await self._request("POST", f"{_job_path(job_id)}/cancel", body=body)
        return job

    async def retry(
        self, job_id: str, *, from_checkpoint: str | None = None, priority: int | None = None
    ) -> Job:
        """Submit an ended job again, as a new one. ``from_checkpoint`` is a step or ``latest``."""
        body = {"from_checkpoint": from_checkpoint, "priority": priority}
        given = {key: value for key, value in body.items() if value is not None}
        job: Job = await self._request("POST", f"{_job_path(job_id)}/retry", body=given)
        return job

    async def delete(self, job_id: str) -> None:
        """Hide an ended job and have its files removed."""
        await self._request("DELETE", _job_path(job_id))

    # ---- events and logs ---------------------------------------------------------------------------------

    async def events(
        self, *, job: str | None = None, after: int = 0, limit: int = 100, types: Collection[str] = ()
    ) -> Page[Event]:
        """A page of events in order: of one job, or of everything.

        With ``types`` it may be short, even empty, and yet have more after it: go on from ``next_after``.
        """
        query = _query(after=after, limit=limit, types=",".join(types) or None)
        page: Page[Event] = await self._request("GET", _events_path(job), query=query)
        return page

    async def all_events(
        self, *, job: str | None = None, after: int = 0, types: Collection[str] = ()
    ) -> AsyncGenerator[Event, None]:
        """Every event after ``after`` that is there now."""
        while True:
            page = await self.events(job=job, after=after, limit=PAGE, types=types)
            for event in page["data"]:
                yield event
            if not page["has_more"]:
                return
            after = int(page["next_after"] or 0)

    def follow(
        self,
        *,
        job: str | None = None,
        after: int = 0,
        types: Collection[str] = (),
        on_connection: OnConnection = lambda _trouble: None,
    ) -> AsyncGenerator[Event, None]:
        """Events after ``after`` as they happen, for ever, each once and in order.

        A lost connection or a restarted daemon is waited for: ``on_connection`` is told the trouble, and
        ``None`` once the stream is there. Only a refusal raises, and ``ResetError`` when the log itself was
        put back. Close the generator (``contextlib.aclosing``) to close the connection.
        """
        return follow(
            self._transport,
            _events_path(job),
            query=_query(types=",".join(types) or None),
            after=after,
            on_connection=on_connection,
        )

    async def logs(
        self, job_id: str, *, tail: int | None = None, follow: bool = False, attempt: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """What the job's processes printed: its last ``tail`` lines, or all; with ``follow`` until it ends.

        Raises ``UnreachableError`` if the connection is lost on the way.
        """
        query = _query(tail=tail, follow="true" if follow else None, attempt=attempt)
        path = f"{_job_path(job_id)}/logs"
        async with self._transport.stream(path, query=query, headers={}, silence=None) as content:
            try:
                async for chunk in content.iter_any():
                    yield chunk
            except LOST as error:
                raise UnreachableError(f"The connection was lost: {error}. The job goes on.") from error

    # ---- kinds, models, devices --------------------------------------------------------------------------

    async def kinds(self) -> list[Kind]:
        """The job kinds that the daemon's plugins declare."""
        page: Page[Kind] = await self._request("GET", "/v1/kinds")
        return page["data"]

    async def kind(self, name: str) -> Kind:
        """One job kind with its parameters' schema."""
        kind: Kind = await self._request("GET", f"/v1/kinds/{quote(name, safe='')}")
        return kind

    async def models(self) -> list[Model]:
        """The registered models."""
        page: Page[Model] = await self._request("GET", "/v1/models")
        return page["data"]

    async def model(self, name: str) -> Model:
        """One registered model."""
        model: Model = await self._request("GET", f"/v1/models/{quote(name, safe='')}")
        return model

    async def delete_model(self, name: str) -> None:
        """Free a model's name. Its files stay."""
        await self._request("DELETE", f"/v1/models/{quote(name, safe='')}")

    async def devices(self) -> list[Device]:
        """The devices that the daemon schedules, and who holds them."""
        page: Page[Device] = await self._request("GET", "/v1/devices")
        return page["data"]

    # ---- tokens and the log itself -----------------------------------------------------------------------

    async def tokens(self) -> list[Token]:
        """All tokens, without their secrets."""
        page: Page[Token] = await self._request("GET", "/v1/tokens")
        return page["data"]

    async def create_token(self, *, scope: str, name: str | None = None) -> dict[str, Json]:
        """A new token; ``token`` in the answer is its secret, shown this once."""
        body = {"scope": scope} if name is None else {"scope": scope, "name": name}
        token: dict[str, Json] = await self._request("POST", "/v1/tokens", body=body)
        return token

    async def revoke_token(self, token_id: str) -> None:
        """Close a token."""
        await self._request("DELETE", f"/v1/tokens/{quote(token_id, safe='')}")

    async def log_state(self) -> dict[str, Json]:
        """The log's head and size."""
        state: dict[str, Json] = await self._request("GET", "/v1/log")
        return state

    async def verify_log(self) -> VerifyReport:
        """Check the whole hash chain; as long as that takes."""
        report: VerifyReport = await self._request("POST", "/v1/log/verify", body={}, timeout=None)
        return report

    async def rebuild_log(self) -> RebuildReport:
        """Fold the projections anew from the events; as long as that takes."""
        report: RebuildReport = await self._request("POST", "/v1/log/rebuild", body={}, timeout=None)
        return report

    async def backup_log(self, path: str) -> BackupReport:
        """Write a checked copy of the log to ``path``, a path on the daemon's machine."""
        report: BackupReport = await self._request(
            "POST", "/v1/log/backup", body={"path": path}, timeout=None
        )
        return report

    async def ready(self) -> bool:
        """Whether the daemon takes work. Raises ``UnreachableError`` if nothing answers."""
        answer = await self._request("GET", "/readyz")
        return answer is not None


def _query(**values: str | int | None) -> dict[str, str]:
    return {key: str(value) for key, value in values.items() if value is not None}


def _job_path(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _events_path(job_id: str | None) -> str:
    return "/v1/events" if job_id is None else f"{_job_path(job_id)}/events"
