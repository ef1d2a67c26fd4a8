"""Jobs, models, kinds and the rest as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from finetuned.cli import console, parameters, standing, units
from finetuned.cli.timeline import Row
from finetuned.wire import Alias, Device, Job, Kind, Model, Secret, Token

Json = Any

STATE_STYLES = {
    "validating": "cyan",
    "queued": "yellow",
    "starting": "cyan",
    "running": "bold blue",
    "pausing": "yellow",
    "paused": "yellow",
    "cancelling": "yellow",
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "dim",
}


class _Table(Table):
    """A table whose columns are as wide as what is shown of their cells."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """As rich does, with control characters made visible before they are measured."""
        super().add_row(*(cell and console.visible(cell) for cell in cells), **options)


def table(*headings: str, right: Iterable[str] = ()) -> Table:
    """An empty table without lines; columns named in ``right`` hold figures."""
    empty = _Table(box=None, pad_edge=False, header_style="bold")
    for index, heading in enumerate(headings):
        empty.add_column(
            heading,
            justify="right" if heading in right else "left",
            no_wrap=index == 0,
            overflow="fold" if index == 0 else "ellipsis",
        )
    return empty


def state(name: str) -> Text:
    """A state in its colour."""
    return Text(name, style=STATE_STYLES.get(name, ""))


def jobs(listed: Iterable[Job], *, now: datetime) -> Table:
    """Jobs, one a line."""
    shown = table(
        "ID", "STATE", "KIND", "NAME", "PROGRESS", "LOSS", "AGE", "WHY", right=("PROGRESS", "LOSS", "AGE")
    )
    for job in listed:
        progress = job["progress"] or {}
        percent = progress.get("progress")
        shown.add_row(
            job["id"],
            state(job["state"]),
            job["kind"],
            Text(job["name"] or ""),
            "" if percent is None else f"{percent:.0f} %",
            "" if progress.get("loss") is None else units.figure(progress["loss"]),
            units.ago(job["created_at"], now),
            Text(why(job)),
        )
    return shown


def why(job: Job) -> str:
    """What a job waits for, does, or ended with."""
    if job["error"]:
        return str(job["error"].get("message") or job["error"].get("code"))
    if job["state"] == "paused":
        return standing.paused(job)
    if job["wait_reason"]:
        place = f"#{job['queue_position']}: " if job["queue_position"] else ""
        return f"{place}{job['wait_reason']}"
    return (job["phase"] or job["cancel_reason"] or "").replace("_", " ")


def details(job: Job) -> Table:
    """A job's own facts, one a line."""
    shown = _Table(box=None, pad_edge=False, show_header=False)
    shown.add_column(style="bold", no_wrap=True)
    shown.add_column(overflow="fold")
    for name, value in _details(job):
        shown.add_row(name, value if isinstance(value, Text) else Text(value))
    return shown


def _details(job: Job) -> Iterable[tuple[str, str | Text]]:
    yield "state", state(job["state"])
    if text := why(job):
        yield "why", text
    yield "kind", job["kind"]
    if job["name"]:
        yield "name", job["name"]
    yield (
        "submitted",
        f"{units.local(job['created_at'])} by {job['submitted_by']}, priority {job['priority']}",
    )
    if job["retry_of"]:
        yield "retry of", job["retry_of"]
    if job["progress"]:
        yield "progress", progress_line(job["progress"])
    if job["devices"]:
        yield "devices", ", ".join(job["devices"])
    yield from _request(job)
    for name, value in job["params"].items():
        yield f"  {name}", compact(value)
    for name, value in (job["result"] or {}).items():
        yield f"result {name}", compact(value)
    for artifact in job["artifacts"]:
        yield f"{artifact['kind']}", f"{artifact['path']} ({units.size(artifact['bytes'])})"
    for advice in job["advice"]:
        yield "advice", str(advice["message"])
    for alert in job["alerts"]:
        yield "alert", f"attempt {alert['attempt']}: {alert['message']}"


def _request(job: Job) -> Iterable[tuple[str, str]]:
    """What was asked for beside the parameters, and what was made of it when it was submitted."""
    if job["template"]:
        yield "template", job["template"]
    for variable, reference in job["secrets"].items():
        yield f"secret {variable}", reference
    for name, value in job["metadata"].items():
        yield f"metadata {name}", compact(value)
    for param, used in job["datasets"].items():
        yield f"dataset {param}", f"{used['name']}@{used['version']}"
    yield from standing.bounds(job)
    if job["estimate"] and (expected := estimate(job["estimate"])):
        yield "estimate", expected
    if job["measured"] and (measured := estimate(job["measured"])):
        yield "measured", measured


def estimate(expected: Mapping[str, Json]) -> str:
    """What a job was expected to take when it was submitted: ``duration 5 min 00 s, device 2.0 GB``."""
    parts = []
    for name, value in expected.items():
        what, _, unit = name.rpartition("_")
        if value is not None and not isinstance(value, Mapping):
            shown = {"s": units.duration, "bytes": units.size}.get(unit)
            parts.append(f"{what} {shown(value)}" if shown else f"{name} {compact(value)}")
    return ", ".join(parts)


def compact(value: Json) -> str:
    """A value on one line."""
    if isinstance(value, float):
        return units.figure(value)
    return value if isinstance(value, str) else parameters.dump(value)


def progress_line(figures: Mapping[str, Json]) -> str:
    """The newest figures in a sentence: step, percent, loss, rates, time left."""
    step, total = figures.get("current_step"), figures.get("total_steps")
    parts = [f"step {step}/{total}" if total else f"step {step}"]
    if figures.get("progress") is not None:
        parts.append(f"{figures['progress']:.0f} %")
    for label, name in FIGURES:
        if figures.get(name) is not None:
            parts.append(f"{label} {units.figure(figures[name])}")
    if figures.get("eta_seconds") is not None:
        parts.append(f"{units.clock(figures['eta_seconds'])} left")
    return "  ".join(parts)


#: What is shown of a progress event, and under which short name.
FIGURES = (
    ("loss", "loss"),
    ("eval loss", "eval_loss"),
    ("lr", "learning_rate"),
    ("accuracy", "mean_token_accuracy"),
    ("tokens/s", "tokens_per_second"),
)


def timeline(rows: Iterable[Row]) -> Table:
    """A timeline: states to the left, what happened within them indented."""
    shown = table("TIME", "STATE", "FOR", "BY", "WHAT", right=("FOR",))
    for row in rows:
        label = (
            state(row.state) if row.state else Text(f"  {row.phase or '·'}".replace("_", " "), style="dim")
        )
        shown.add_row(
            units.local(row.at, date=False),
            label,
            "" if row.seconds is None else units.duration(row.seconds),
            row.actor if row.state else "",
            Text(row.text if not row.phase else ""),
        )
    return shown


def attempts(job: Job) -> Table:
    """A job's attempts."""
    shown = table("ATTEMPT", "PURPOSE", "STARTED", "ENDED", "OUTCOME", "DEVICES", "CAUSE")
    for each in job["attempts"]:
        shown.add_row(
            str(each["number"]),
            each["purpose"],
            units.local(each["started_at"], date=False),
            units.local(each["ended_at"], date=False),
            each["outcome"] or "live",
            ", ".join(each["devices"]) or units.NOTHING,
            Text(standing.cause(each)),
        )
    return shown


def models(listed: Iterable[Model]) -> Table:
    """Registered models."""
    shown = table("NAME", "ALIASES", "KIND", "BASE", "JOB", "CREATED", "PATH")
    for model in listed:
        shown.add_row(
            model["id"],
            Text(", ".join(model["aliases"]) or units.NOTHING),
            model["kind"],
            model["base"] or units.NOTHING,
            model["job"] or units.NOTHING,
            units.unix_local(model["created"]),
            model["path"],
        )
    return shown


def aliases(listed: Iterable[Alias]) -> Table:
    """Aliases and what they stand for."""
    shown = table("ALIAS", "MODEL", "BEFORE", "SET", "BY")
    for alias in listed:
        shown.add_row(
            alias["id"],
            Text(alias["model"]),
            Text(", ".join(alias["history"]) or units.NOTHING),
            units.local(alias["set_at"]),
            Text(alias["set_by"]),
        )
    return shown


def kinds(listed: Iterable[Kind]) -> Table:
    """Job kinds."""
    shown = table("KIND", "CHECKS DATA", "WHAT IT DOES")
    for kind in listed:
        shown.add_row(kind["name"], "yes" if kind["validates"] else "no", Text(kind["summary"]))
    return shown


def params(schema: Mapping[str, Json]) -> Table:
    """A kind's parameters."""
    shown = table("PARAMETER", "TAKES", "DEFAULT", "MEANS")
    shown.columns[1].overflow = shown.columns[3].overflow = "fold"
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        choices = [c for c in parameters.alternatives(field, schema) if c.get("type") != "null"]
        takes = " or ".join(dict.fromkeys(parameters.describe(choice, schema) for choice in choices))
        default = "(required)" if name in required else parameters.dump(field.get("default"))
        shown.add_row(name, Text(takes), Text(default), Text(str(field.get("description") or "")))
    return shown


def tokens(listed: Iterable[Token]) -> Table:
    """Tokens without their secrets."""
    shown = table("ID", "SCOPE", "NAME", "CREATED", "LAST USED", "EXPIRES", "REVOKED")
    for token in listed:
        shown.add_row(
            token["id"],
            token["scope"],
            Text(token["name"] or ""),
            units.local(token["created_at"]),
            units.local(token["last_used_at"]),
            units.local(token["expires_at"]),
            units.local(token["revoked_at"]),
        )
    return shown


def secrets(listed: Iterable[Secret]) -> Table:
    """Secrets by name."""
    shown = table("NAME", "FROM")
    for secret in listed:
        shown.add_row(secret["name"], "finetune" if secret["writable"] else "systemd")
    return shown


def devices(listed: Iterable[Device]) -> Table:
    """Devices and who holds them."""
    shown = table("ID", "KIND", "NAME", "MEMORY", "HELD BY", right=("MEMORY",))
    for device in listed:
        holder = device["holder"]
        shown.add_row(
            device["id"],
            device["kind"],
            Text(device["name"]),
            units.size(device["memory_bytes"]),
            f"{holder['job']} attempt {holder['attempt']}" if holder else "free",
        )
    return shown
