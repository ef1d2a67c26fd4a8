"""``system`` and ``workers``: the machine, and what works on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click
from rich.table import Table
from rich.text import Text

from finetuned.cli import console, tables, units
from finetuned.cli.session import json_option, with_daemon
from finetuned.cli.shapes import Listing
from finetuned.client import Client
from finetuned.wire import System, SystemHistory, Worker
from finetuned.wire.system import DiskTaken, Gpu, GpuHolder, HistorySeries


@click.command
@click.option(
    "--history", "seconds", type=click.IntRange(10, 86_400), help="The last so many seconds instead."
)
@json_option(shape=System | SystemHistory)
@with_daemon
async def system(daemon: Client, *, seconds: int | None, as_json: bool) -> None:
    """Show the machine: processors, memory, disk, GPUs and who is on them."""
    if seconds is not None:
        history = await daemon.system_history(seconds=seconds)
        if as_json:
            console.emit(history)
            return
        console.show(history_table(history), empty="Nothing was measured in that time.")
        return
    found = await daemon.system()
    if as_json:
        console.emit(found)
        return
    console.show(machine(found))
    if found["gpus"]:
        console.say("")
        console.show(gpus(found["gpus"]))


@click.command
@json_option(shape=Listing[Worker])
@with_daemon
async def workers(daemon: Client, *, as_json: bool) -> None:
    """List the live attempts and what their processes use."""
    listed = await daemon.workers()
    if as_json:
        console.emit({"data": listed, "has_more": False})
    else:
        console.show(
            worker_table(listed), empty="Nothing runs. `finetune ls --state queued` shows what waits."
        )


def machine(found: System) -> Table:
    """The machine and the daemon, a fact a line."""
    shown = Table(box=None, pad_edge=False, show_header=False)
    shown.add_column(style="bold", no_wrap=True)
    shown.add_column(overflow="fold")
    for name, value in _machine(found):
        shown.add_row(name, Text(value))
    return shown


def _machine(found: System) -> Iterator[tuple[str, str]]:
    cpu, memory, disk, daemon = found["cpu"], found["memory"], found["disk"], found["daemon"]
    load = " ".join(f"{each:.2f}" for each in cpu["load"])
    cores = f"{cpu['cores']} cores"
    if cpu["usable_cores"] != cpu["cores"]:
        cores = f"{cpu['usable_cores']} of {cores}"
    yield "cpu", f"{units.share(cpu['utilization'])} of {cores}, load {load}"
    yield "memory", _used(memory["used_bytes"], memory["total_bytes"])
    if memory["swap_total_bytes"]:
        yield "swap", _used(memory["swap_used_bytes"], memory["swap_total_bytes"])
    yield (
        "disk",
        f"{units.size(disk['free_bytes'])} of {units.size(disk['total_bytes'])} free at {disk['path']}",
    )
    if disk["taken"] is not None:
        yield "of it", _taken(disk["taken"])
    if found["driver_version"] is not None:
        yield "driver", found["driver_version"]
    yield (
        "daemon",
        (
            f"{daemon['version']}, pid {daemon['pid']}, up {units.duration(daemon['uptime_s'])}, "
            f"{units.size(daemon['rss_bytes'])}, {daemon['event_streams']} followers, event {daemon['log_head']}"
        ),
    )


def _taken(taken: DiskTaken) -> str:
    """What the daemon takes of the disk, the most first."""
    named = {
        "live jobs": taken["live_jobs_bytes"],
        "ended jobs": taken["ended_jobs_bytes"],
        "datasets": taken["datasets_bytes"],
        "cache": taken["cache_bytes"],
        "log": taken["log_bytes"],
        "reserve": taken["reserve_bytes"],
        "unknown files among the jobs'": taken["unknown_bytes"],
    }
    ordered = sorted(named.items(), key=lambda each: each[1], reverse=True)
    return ", ".join(f"{name} {units.size(size)}" for name, size in ordered if size)


def _used(used: float, total: float) -> str:
    share = used / total if total else None
    return f"{units.size(used)} of {units.size(total)} ({units.share(share)})"


def gpus(listed: Iterable[Gpu]) -> Table:
    """GPUs and who is on them."""
    shown = tables.table(
        "GPU", "NAME", "BUSY", "MEMORY", "TEMP", "POWER", "HELD BY", right=("BUSY", "MEMORY", "TEMP", "POWER")
    )
    for gpu in listed:
        total = units.size(gpu["memory_total_bytes"])
        shown.add_row(
            gpu["id"],
            Text(gpu["name"]),
            units.share(gpu["utilization"]),
            f"{units.size(gpu['memory_used_bytes'])} of {total}",
            units.NOTHING if gpu["temperature_celsius"] is None else f"{gpu['temperature_celsius']} °C",
            units.NOTHING if gpu["power_watts"] is None else f"{gpu['power_watts']:.0f} W",
            Text(gpu["problem"] or ", ".join(map(_holder, gpu["holders"])) or "free"),
        )
    return shown


def _holder(holder: GpuHolder) -> str:
    who = holder["job"] or holder["name"] or f"pid {holder['pid']}"
    return who if holder["memory_bytes"] is None else f"{who} ({units.size(holder['memory_bytes'])})"


def worker_table(listed: Iterable[Worker]) -> Table:
    """Live attempts, one a line."""
    shown = tables.table(
        "JOB", "ATTEMPT", "KIND", "PHASE", "DEVICES", "CPU", "MEMORY", "GPU MEMORY", "SILENT",
        right=("ATTEMPT", "CPU", "MEMORY", "GPU MEMORY", "SILENT"),
    )  # fmt: skip
    for worker in listed:
        held = worker["gpu_memory_bytes"]
        shown.add_row(
            worker["job"],
            str(worker["attempt"]),
            worker["kind"],
            (worker["phase"] or worker["state"]).replace("_", " "),
            ", ".join(worker["devices"]) or units.NOTHING,
            units.NOTHING if worker["cpu"] is None else f"{worker['cpu']:.1f}",
            units.size(worker["rss_bytes"]),
            units.size(sum(held.values())) if held else units.NOTHING,
            units.duration(worker["silent_s"]),
        )
    return shown


def history_table(history: SystemHistory) -> Table:
    """Each figure over the time: least, mean, greatest and newest."""
    shown = tables.table(
        "FIGURE",
        "DEVICE",
        "LEAST",
        "MEAN",
        "GREATEST",
        "NEWEST",
        right=("LEAST", "MEAN", "GREATEST", "NEWEST"),
    )
    for series in history["series"]:
        measured = [each for each in series["mean"] if each is not None]
        if not measured:
            continue
        least = min(each for each in series["min"] if each is not None)
        greatest = max(each for each in series["max"] if each is not None)
        mean = sum(measured) / len(measured)
        shown.add_row(
            series["figure"],
            series["device"] or units.NOTHING,
            *(figure(series, each) for each in (least, mean, greatest, measured[-1])),
        )
    return shown


def figure(series: HistorySeries, value: float) -> str:
    """A value of a series in its unit, which its name tells."""
    if series["figure"].endswith("bytes"):
        return units.size(value)
    return units.figure(round(value, 4))
