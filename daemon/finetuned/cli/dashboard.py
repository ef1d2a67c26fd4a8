"""What ``top`` shows: the machine, its GPUs and the jobs, as tables."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from finetuned.cli import tables, units
from finetuned.cli.system import gpus as gpu_table
from finetuned.wire import Job, System, Worker

BAR, FULL, EMPTY = 12, "━", "─"


def machine(found: System) -> Table:
    """The machine in two lines."""
    cpu, memory, disk, daemon = found["cpu"], found["memory"], found["disk"], found["daemon"]
    shown = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        shown.add_column(no_wrap=True, overflow="ellipsis")
    shown.add_row(
        _share("cpu", cpu["utilization"], f"{cpu['cores']} cores"),
        _share("memory", _ratio(memory["used_bytes"], memory["total_bytes"]), units.size(memory["total_bytes"])),
        _share(
            "disk", _ratio(disk["total_bytes"] - disk["free_bytes"], disk["total_bytes"]),
            f"{units.size(disk['total_bytes'])}, {units.size(disk['free_bytes'])} free",
        ),
    )  # fmt: skip
    shown.add_row(
        Text(f"load {' '.join(f'{each:.2f}' for each in cpu['load'])}"),
        Text(f"daemon {daemon['version']}, {units.size(daemon['rss_bytes'])}"),
        Text(f"up {units.duration(daemon['uptime_s'])}, event {daemon['log_head']}"),
    )
    return shown


def gpus(found: System) -> Table:
    """Its GPUs, as ``finetune system`` shows them."""
    return gpu_table(found["gpus"])


def jobs(listed: Iterable[Job], workers: Iterable[Worker]) -> Table:
    """Jobs with their bars, and what their processes use."""
    by_job = {worker["job"]: worker for worker in workers}
    shown = tables.table(
        "JOB", "STATE", "KIND", "NAME", "PROGRESS", "LEFT", "LOSS", "CPU", "MEMORY", "DEVICES", "WHY",
        right=("LEFT", "LOSS", "CPU", "MEMORY"),
    )  # fmt: skip
    for column in shown.columns:
        column.no_wrap = True  # a job is a line, or the screen would be too low
    for job in listed:
        figures, worker = job["progress"] or {}, by_job.get(job["id"])
        cpu, rss = (worker["cpu"], worker["rss_bytes"]) if worker else (None, None)
        shown.add_row(
            job["id"],
            tables.state(job["state"]),
            job["kind"],
            Text(job["name"] or ""),
            bar(figures.get("progress")),
            units.clock(figures["eta_seconds"]) if worker and figures.get("eta_seconds") is not None else "",
            units.figure(figures["loss"]) if figures.get("loss") is not None else "",
            "" if cpu is None else f"{cpu:.1f}",
            "" if rss is None else units.size(rss),
            ", ".join(job["devices"]),
            Text(tables.why(job)),
        )
    return shown


def bar(percent: float | None) -> Text:
    """A share of a hundred as a short bar; nothing where there is none."""
    if percent is None:
        return Text("")
    full = round(BAR * min(max(percent, 0.0), 100.0) / 100)
    return Text().append(FULL * full, "green").append(EMPTY * (BAR - full), "dim").append(f" {percent:.0f} %")


def _share(name: str, share: float | None, of: str) -> Text:
    style = "" if share is None or share < 0.9 else "bold red"
    return Text(f"{name} ").append(units.share(share), f"bold {style}".strip()).append(f" of {of}", "dim")


def _ratio(used: float, total: float) -> float | None:
    return used / total if total else None
