"""``worker``: the processes of engines and trainers, looked at and, if need be, ended by hand."""

from __future__ import annotations

from collections.abc import Iterable

import click
from rich.table import Table
from rich.text import Text

from finetuned.cli import console, tables, units
from finetuned.cli.nouns import Noun
from finetuned.cli.output import logs
from finetuned.cli.session import json_option, with_daemon
from finetuned.cli.shapes import Listing
from finetuned.client import Client
from finetuned.wire import Cleared, ClearedGpu, Job, Worker

MB = 1_000_000


@click.group(cls=Noun)
def worker() -> None:
    """Look after the processes of engines and trainers: status, restart, kill, clear-gpu, logs."""


@worker.command
@json_option(shape=Listing[Worker])
@with_daemon
async def status(daemon: Client, *, as_json: bool) -> None:
    """Show each worker's processes, device memory, queue and heartbeat."""
    listed = await daemon.workers()
    if as_json:
        console.emit({"data": listed, "has_more": False})
    else:
        console.show(_table(listed), empty="No worker lives. `finetune ls --state queued` shows what waits.")


@worker.command
@click.argument("job_id", metavar="JOB")
@json_option(shape=Job)
@with_daemon
async def restart(daemon: Client, *, job_id: str, as_json: bool) -> None:
    """Have the worker of a JOB leave, and come again.

    A trainer saves a checkpoint first and goes on from it. An engine's requests may end first; it comes again when it is
    asked.
    """
    job = await daemon.restart_worker(job_id)
    if as_json:
        console.emit(job)
    else:
        console.say(f"The worker of {job['id']} was asked to leave; the job is {job['state']}.")


@worker.command
@click.argument("job_id", metavar="JOB")
@json_option(shape=Job)
@with_daemon
async def kill(daemon: Client, *, job_id: str, as_json: bool) -> None:
    """Kill the processes of a JOB's worker at once.

    The job is tried again as after a crash, from its newest complete checkpoint, which uses up one of its tries.
    """
    job = await daemon.kill_worker(job_id)
    if as_json:
        console.emit(job)
    else:
        console.say(
            f"The worker of {job['id']} is being killed; `finetune cancel {job['id']}` ends the job too."
        )


@worker.command("clear-gpu")
@json_option(shape=Cleared)
@with_daemon
async def clear_gpu(daemon: Client, *, as_json: bool) -> None:
    """End the engines that nobody asks, and show that their memory is back."""
    found = await daemon.clear_gpu()
    if as_json:
        console.emit(found)
        return
    console.say(found["message"])
    if found["gpus"]:
        console.show(_gpus(found["gpus"]))


worker.add_command(logs, "logs")


def _table(listed: Iterable[Worker]) -> Table:
    shown = tables.table(
        "JOB", "KIND", "PHASE", "PIDS", "DEVICES", "DEVICE MEMORY", "MEMORY", "QUEUE", "KV", "HEARTBEAT",
        right=("DEVICE MEMORY", "MEMORY", "QUEUE", "KV", "HEARTBEAT"),
    )  # fmt: skip
    for each in listed:
        engine = each["engine"]
        shown.add_row(
            each["job"],
            each["kind"],
            (each["phase"] or each["state"]).replace("_", " "),
            Text(", ".join(map(str, each["pids"] or ())) or units.NOTHING),
            Text(", ".join(each["devices"]) or units.NOTHING),
            _device_memory(each),
            units.size(each["rss_bytes"]),
            units.NOTHING if engine is None else f"{engine['running']} + {engine['waiting']} waiting",
            units.NOTHING if engine is None else units.share(engine["kv_used"]),
            units.NOTHING if each["heartbeat_s"] is None else f"{units.duration(each['heartbeat_s'])} ago",
        )
    return shown


def _device_memory(each: Worker) -> str:
    held, shares = each["gpu_memory_bytes"], each["gpu_memory_share"] or {}
    if not held:
        return units.NOTHING
    return ", ".join(
        f"{used / MB:.0f} MB" + (f" ({units.share(shares[device])})" if device in shares else "")
        for device, used in held.items()
    )


def _gpus(listed: Iterable[ClearedGpu]) -> Table:
    shown = tables.table("GPU", "NAME", "BEFORE", "AFTER", "OF", right=("BEFORE", "AFTER", "OF"))
    for each in listed:
        figures = (each["used_before_bytes"], each["used_after_bytes"], each["total_bytes"])
        shown.add_row(
            each["id"],
            Text(each["name"]),
            *(units.NOTHING if figure is None else f"{figure / MB:.0f} MB" for figure in figures),
        )
    return shown
