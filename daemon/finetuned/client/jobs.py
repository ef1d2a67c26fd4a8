"""Calls about jobs and their kinds."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from finetuned.client.calls import PAGE, Calls, given, job_path, part
from finetuned.client.transport import ANSWER_TIMEOUT
from finetuned.wire import DryRun, Job, Kind, NextStep, Page

Json = Any


class JobCalls(Calls):
    """Submit, look, steer."""

    async def submit(
        self,
        kind: str | None,
        params: Mapping[str, Json],
        *,
        template: str | None = None,
        name: str | None = None,
        priority: int | None = None,
        metadata: Mapping[str, Json] | None = None,
        max_attempts: int | None = None,
        secrets: Mapping[str, str] | None = None,
        timeouts: Mapping[str, float] | None = None,
        limits: Mapping[str, float] | None = None,
        preemptible: bool | None = None,
        reduces_batch: bool | None = None,
        ignores_estimate: bool | None = None,
    ) -> Job:
        """Submit a job; when this returns, the daemon has it on disk.

        ``secrets`` are names and references: ``{"HF_TOKEN": "secret:hf"}``. ``timeouts`` are seconds
        (``{"max_duration_s": 28800}``), ``limits`` cores and bytes (``{"memory": 24_000_000_000}``). With
        ``ignores_estimate`` it is accepted though it does not fit as far as the daemon can foretell.
        It is submitted once, even if the daemon goes away in the middle and comes back.
        """
        job: Job = await self._post(
            "/v1/jobs",
            given(
                kind=kind,
                template=template,
                params=params,
                name=name,
                priority=priority,
                metadata=metadata,
                max_attempts=max_attempts,
                secrets=secrets,
                timeouts=timeouts,
                limits=limits,
                preemptible=preemptible,
                reduces_batch=reduces_batch,
                ignores_estimate=ignores_estimate,
            ),
        )
        return job

    async def dry_run(
        self,
        /,
        kind: str | None,
        params: Mapping[str, Json],
        *,
        template: str | None = None,
        **request: Json,
    ) -> DryRun:
        """What would come of submitting a job: estimate, checks, when it would start. Nothing is recorded.

        ``request`` is what else :meth:`submit` takes.
        """
        body = given(kind=kind, template=template, params=params, **request)
        query = {"dry_run": "true"}
        found: DryRun = await self._transport.request("POST", "/v1/jobs", query=query, body=body, once=True)
        return found

    async def job(self, job_id: str, *, at: int | str | None = None) -> Job:
        """One job; as it was ``at`` a position of the log or an RFC 3339 time."""
        job: Job = await self._get(job_path(job_id), at=at)
        return job

    async def jobs(
        self,
        *,
        state: str | None = None,
        kind: str | None = None,
        name: str | None = None,
        after: str | None = None,
        limit: int = 50,
        at: int | str | None = None,
    ) -> Page[Job]:
        """A page of jobs, newest first; as they were ``at`` a position of the log or an RFC 3339 time."""
        page: Page[Job] = await self._get(
            "/v1/jobs", state=state, kind=kind, name=name, after=after, limit=limit, at=at
        )
        return page

    async def all_jobs(
        self,
        *,
        state: str | None = None,
        kind: str | None = None,
        name: str | None = None,
        at: int | str | None = None,
    ) -> AsyncGenerator[Job, None]:
        """Every job, newest first, page by page."""
        after: str | None = None
        while True:
            page = await self.jobs(state=state, kind=kind, name=name, after=after, limit=PAGE, at=at)
            for job in page["data"]:
                yield job
            if not page["has_more"] or not page["data"]:
                return
            after = page["data"][-1]["id"]

    async def cancel(self, job_id: str, *, reason: str | None = None) -> Job:
        """Ask a job to end."""
        job: Job = await self._post(f"{job_path(job_id)}/cancel", given(reason=reason))
        return job

    async def pause(self, job_id: str, *, reason: str | None = None, wait_s: float | None = None) -> Job:
        """Ask a job to save a checkpoint and leave its devices; ``wait_s``: how long the checkpoint is waited for."""
        job: Job = await self._post(f"{job_path(job_id)}/pause", given(reason=reason, wait_s=wait_s))
        return job

    async def resume(self, job_id: str, *, from_checkpoint: str | None = None) -> Job:
        """Let a paused job go on. ``from_checkpoint`` is a step or an id; by default the newest whole one.

        It is read through first, as long as that takes.
        """
        body = given(from_checkpoint=from_checkpoint)
        job: Job = await self._post(f"{job_path(job_id)}/resume", body, timeout=None)
        return job

    async def checkpoint(self, job_id: str) -> Job:
        """Ask a running job for a checkpoint at its next step; a ``checkpoint.saved`` tells of it."""
        job: Job = await self._post(f"{job_path(job_id)}/checkpoint")
        return job

    async def retry(
        self, job_id: str, *, from_checkpoint: str | None = None, priority: int | None = None
    ) -> Job:
        """Submit an ended job again, as a new one. ``from_checkpoint`` is a step, an id or ``latest``.

        A checkpoint is read through first, as long as that takes.
        """
        body = given(from_checkpoint=from_checkpoint, priority=priority)
        timeout = ANSWER_TIMEOUT if from_checkpoint is None else None
        job: Job = await self._post(f"{job_path(job_id)}/retry", body, timeout=timeout)
        return job

    async def next_steps(self, job_id: str) -> list[NextStep]:
        """What makes sense next for a job."""
        return await self._listed(f"{job_path(job_id)}/next")

    async def delete(self, job_id: str) -> None:
        """Hide an ended job and have its files removed."""
        await self._delete(job_path(job_id))

    async def kinds(self) -> list[Kind]:
        """The job kinds that the daemon's plugins declare."""
        return await self._listed("/v1/kinds")

    async def kind(self, name: str) -> Kind:
        """One job kind with its parameters' schema."""
        kind: Kind = await self._get(f"/v1/kinds/{part(name)}")
        return kind
