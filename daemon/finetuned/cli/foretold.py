"""``run --dry-run``: what would come of a job, as a short table."""

from __future__ import annotations

from rich.text import Text

from finetuned.cli import console, tables, units
from finetuned.domain.errors import InvalidRequestError
from finetuned.wire import DryRun

STYLES = {"ok": "green", "warning": "yellow", "refused": "bold red", "unknown": "dim"}
NAMES = {"device_memory": "GPU memory", "host_memory": "memory", "slot_memory": "CPU slot", "disk": "disk"}


def show(found: DryRun, *, as_json: bool) -> int:
    """Print it; the exit code: 0 if the job would be accepted, else that of its refusal."""
    if as_json:
        console.emit(found)
    else:
        _show_checks(found)
        for line in lines(found):
            console.say(line)
    return 0 if found["accepted"] else InvalidRequestError.exit_code


def _show_checks(found: DryRun) -> None:
    shown = tables.table("CHECK", "VERDICT", "WHY")
    for check in found["checks"]:
        verdict = Text(check["verdict"], style=STYLES.get(check["verdict"], ""))
        shown.add_row(
            NAMES.get(check["name"], check["name"]), verdict, Text(check["message"], overflow="fold")
        )
    console.show(shown, empty="Its kind foretells nothing.")


def lines(found: DryRun) -> list[str]:
    """What it takes, how long, when it would start, and what would fit."""
    parts = [
        f"{name} {units.size(size)}" for name, size in found["estimate"].get("breakdown", {}).items() if size
    ]
    told = [f"of it: {', '.join(parts)}"] if parts else []
    told.append(f"time: {_time(found)}")
    told.append(f"start: {_start(found)}")
    for fix in found["fixes"]:
        changes = " ".join(f"--param {name}={tables.compact(value)}" for name, value in fix["params"].items())
        needed = fix["estimate"]["device_bytes"] or fix["estimate"]["host_bytes"]
        told.append(f"would fit: {changes} ({units.size(needed)})")
    told.append(
        "It would be accepted." if found["accepted"] else "It would be refused; --ignore-estimate submits it."
    )
    return told


def _time(found: DryRun) -> str:
    duration = found["duration"]
    steps = "" if duration["steps"] is None else f" for {duration['steps']} steps"
    if duration["seconds"] is None:
        return f"not known{steps}: no similar job has ended here"
    similar = f", as {duration['jobs']} similar jobs here" if duration["source"] == "history" else ""
    return f"about {units.duration(duration['seconds'])}{steps}{similar}"


def _start(found: DryRun) -> str:
    start = found["start"]
    checked = "once its data are checked, " if start["after_validation"] else ""
    if start["now"]:
        on = f" on {', '.join(start['devices'])}" if start["devices"] else ""
        return f"{checked}at once{on}"
    return f"{checked}as #{start['queue_position']} of the queue: {start['wait_reason']}"
