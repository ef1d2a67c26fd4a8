"""Arguments that several commands take, and what the tab key makes of them."""

from __future__ import annotations

import anyio
import click
from click.shell_completion import CompletionItem

from finetuned.client import Client
from finetuned.domain.errors import FinetunedError
from finetuned.wire import Job

PATIENCE = 1.0  # seconds; who pressed the tab key waits for it
NEWEST = 50


def complete_jobs(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The ids of the newest jobs that begin so; none if no daemon answers in time."""
    del context, parameter

    async def newest() -> list[Job]:
        with anyio.move_on_after(PATIENCE):
            async with Client() as daemon:
                return (await daemon.jobs(limit=NEWEST))["data"]
        return []

    try:
        listed = anyio.run(newest)
    except FinetunedError:
        return []
    return [
        CompletionItem(job["id"], help=f"{job['state']} {job['name'] or job['kind']}")
        for job in listed
        if job["id"].startswith(incomplete)
    ]


job_argument = click.argument("job_id", metavar="JOB", shell_complete=complete_jobs)
