"""A daemon goes on from what a crash left: it must start, and bring every job to its end."""

from __future__ import annotations

from pathlib import Path

import anyio
from tests.powerloss.workload import TIMEOUT_S, KeptDaemon

from finetuned.store import open_log


def restart(root: Path) -> list[str]:
    """Start a daemon on the files below ``root``, wait for its jobs, stop it, check its log; what does not hold."""
    state = root / "state"
    try:
        with KeptDaemon(state) as daemon:
            daemon.start()
            jobs = [job["id"] for job in daemon.ok("GET", "/v1/jobs?limit=100")["data"]]
            for job in jobs or [daemon.submit(steps=1)]:
                # One that was being paused is paused by a crash, too.
                if daemon.wait_for(job, "paused", "succeeded", timeout=TIMEOUT_S)["state"] == "paused":
                    daemon.ok("POST", f"/v1/jobs/{job}/resume", {})
                    daemon.wait_for(job, "succeeded", timeout=TIMEOUT_S)
            daemon.stop()
    except (AssertionError, OSError) as error:
        return [f"A daemon does not go on: {error!s:.2000}"]
    return anyio.run(_verified, state / "events.sqlite")


async def _verified(path: Path) -> list[str]:
    async with open_log(path) as log:
        report = await log.verify()
        return [
            *report.problems,
            *(f"Table {name} is not what a replay gives." for name in await log.differing()),
        ]
