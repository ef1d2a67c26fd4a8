"""``doctor``: first checks of the machine, the daemon and its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import anyio
import click
from rich.text import Text

from finetuned import __version__
from finetuned.cli import checks, console
from finetuned.cli.checks import fail, ok, warn
from finetuned.cli.session import json_option
from finetuned.cli.shapes import Check, Diagnosis
from finetuned.client import Client
from finetuned.client.errors import UnreachableError
from finetuned.domain.errors import FinetunedError

MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "bold red")}


@click.command
@json_option(shape=Diagnosis)
def doctor(*, as_json: bool) -> int:
    """Check this machine: what works, what does not, and what to do about it.

    The exit code is 1 if a check failed.
    """
    found: list[Check] = []
    for check in _checks():
        found.append(check)
        if not as_json:
            _show(check)
    failed = [check["name"] for check in found if check["verdict"] == "fail"]
    if as_json:
        diagnosis: Diagnosis = {"ok": not failed, "checks": found}
        console.emit(diagnosis)
    elif failed:
        console.note(f"{len(failed)} of {len(found)} checks failed: {', '.join(failed)}.")
    return int(bool(failed))


def _checks() -> Iterator[Check]:
    yield checks.python()
    yield from _safely("packages", checks.packages)
    yield from _safely("trainer", checks.trainer)
    from finetuned import config  # noqa: PLC0415 - what is wrong with them is for the checks to tell
    from finetuned.cli import gpu_check  # noqa: PLC0415
    from finetuned.cli.offline import LOG_FILE  # noqa: PLC0415
    from finetuned.machine import devices  # noqa: PLC0415

    try:
        settings = config.load()
    except FinetunedError as error:
        yield fail("configuration", error.message, "Correct it; `finetune config check` lists everything.")
        return
    yield ok("configuration", "can be used")
    state = settings.state_dir
    yield from _safely("state directory", lambda: checks.state_directory(state))
    yield from _safely("file system", lambda: checks.file_system(state, _mounts()))
    yield from _safely("disk", lambda: checks.disk(state, least=settings.min_free_disk_bytes))
    yield from _safely("log", lambda: checks.log(state / LOG_FILE))
    there = daemon()
    yield there
    answers = there["verdict"] == "ok"
    yield from _safely("port", lambda: checks.port(settings.address, daemon_there=answers))
    yield from _safely("gpu", lambda: gpu_check.gpus(devices.load_nvml()))
    yield from _safely("shared memory", checks.shared_memory)
    yield from _safely("open files", checks.open_files)
    yield from _safely("service", lambda: checks.systemd(checks.command))
    yield from _safely("clock", lambda: checks.clock(checks.command))


def _safely(name: str, check: Callable[[], Check]) -> Iterator[Check]:
    """A check that breaks is itself a finding: the others still count."""
    try:
        yield check()
    except Exception as error:  # noqa: BLE001 - whatever a sick machine makes of it
        yield fail(
            name, f"The check broke: {type(error).__name__}: {error}.", "Report this as a defect of finetune."
        )


def daemon() -> Check:
    """Whether a daemon answers, takes work, and is of this release."""

    async def ask() -> tuple[str, bool]:
        async with Client() as client:
            alive = await client.alive()
            return alive["version"], await client.ready()

    try:
        version, _ = anyio.run(ask)
    except UnreachableError as error:
        verdict = fail if "may not open" in error.message else warn
        what, _, remedy = error.message.partition(". ")
        return verdict("daemon", f"{what}.", remedy or "Start one with `finetuned`.")
    except FinetunedError as error:
        return fail("daemon", error.message, "Its journal says more: `journalctl -u finetuned -e`.")
    if version != __version__:
        return warn(
            "daemon",
            f"It is of release {version}, and this command of {__version__}.",
            "Restart the daemon, or `finetune upgrade`.",
        )
    return ok("daemon", f"answers, release {version}")


def _mounts() -> list[tuple[str, str]]:
    import psutil  # noqa: PLC0415 - only wanted here

    return [(each.mountpoint, each.fstype) for each in psutil.disk_partitions(all=True)]


def _show(check: Check) -> None:
    mark, style = MARKS[check["verdict"]]
    if not console.stdout().encoding.startswith("utf"):
        mark = check["verdict"]
    console.say(
        Text().append(f"{mark} ", style).append(f"{check['name']:<16} ", "bold").append(check["message"])
    )
    if check["remedy"]:
        console.say(Text(f"  {'':<16} → {check['remedy']}"))
