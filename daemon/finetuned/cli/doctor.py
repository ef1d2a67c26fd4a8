"""``doctor``: checks of the machine, the daemon and its files."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

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

JOBS, SECRETS = "jobs", "secrets"  # in the state directory
MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "bold red")}


@click.command
@click.option(
    "--deep",
    is_flag=True,
    help="Read the whole log, replay it, and read every checkpoint through; takes as long as that takes.",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Look at this state directory, its secrets and its socket. Default: those of the configuration.",
)
@json_option(shape=Diagnosis)
def doctor(*, deep: bool, state_dir: Path | None, as_json: bool) -> int:
    """Check this machine: what works, what does not, and what to do about it.

    Nothing is changed, and no daemon need run. The exit code is 1 if a check failed.
    """
    found: list[Check] = []
    for check in _checks(state_dir, deep=deep):
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


def _checks(state_dir: Path | None, *, deep: bool) -> Iterator[Check]:
    yield checks.python()
    yield from _safely("packages", checks.packages)
    yield from _safely("trainer", checks.trainer)
    from finetuned import config  # noqa: PLC0415 - what is wrong with them is for the checks to tell
    from finetuned.cli import gpu_check, state_checks  # noqa: PLC0415
    from finetuned.cli.offline import LOG_FILE  # noqa: PLC0415
    from finetuned.config_sources import SOCKET_NAME  # noqa: PLC0415
    from finetuned.machine import devices  # noqa: PLC0415

    try:
        settings = config.load()
    except FinetunedError as error:
        yield fail("configuration", error.message, "Correct it; `finetune config check` lists everything.")
        return
    yield ok("configuration", "can be used")
    state = settings.state_dir if state_dir is None else state_dir.expanduser().absolute()
    yield from _safely("state directory", lambda: checks.state_directory(state))
    yield from _safely("file system", lambda: checks.file_system(state, _mounts()))
    yield from _safely("disk", lambda: checks.disk(state, least=settings.min_free_disk_bytes))
    yield from _safely("log", lambda: checks.log(state / LOG_FILE))
    if (state / LOG_FILE).exists():
        yield from _kept(state, state / LOG_FILE, deep=deep)
    socket, secrets = settings.socket, settings.secrets_dir
    if state != settings.state_dir:  # what is configured belongs to another daemon
        socket, secrets = state / SOCKET_NAME, state / SECRETS
    yield from _safely("permissions", lambda: state_checks.permissions(state, socket, secrets))
    yield from _safely("space", lambda: state_checks.space(state))
    there = daemon()
    yield there
    answers = there["verdict"] == "ok"
    yield from _safely("port", lambda: checks.port(settings.address, daemon_there=answers))
    yield from _safely("gpu", lambda: gpu_check.gpus(devices.load_nvml()))
    yield from _safely("shared memory", checks.shared_memory)
    yield from _safely("open files", checks.open_files)
    yield from _safely("service", lambda: checks.systemd(checks.command))
    yield from _safely("clock", lambda: checks.clock(checks.command))


def _kept(state: Path, log: Path, *, deep: bool) -> Iterator[Check]:
    """What the daemon keeps, against its log."""
    from finetuned.cli import state_checks  # noqa: PLC0415 - as above

    if deep:
        yield from _safely("chain", lambda: state_checks.chain(state))
        yield from _safely("projections", lambda: state_checks.projections(state))
    yield from _safely("archives", lambda: state_checks.archives(log))
    try:
        there = state_checks.known(log)
    except sqlite3.Error as error:
        yield warn("bundles", f"{log} cannot be read: {error}.", "Run this as the daemon's user.")
        return
    yield from _safely("bundles", lambda: state_checks.bundles(state / JOBS, there))
    yield from _safely("checkpoints", lambda: state_checks.checkpoints(state / JOBS, there, deep=deep))


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
        version, ready = anyio.run(ask)
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
    if not ready:
        return warn(
            "daemon",
            "It answers and is not ready: it starts, or one of its parts is ill.",
            "Ask again in a minute; then its journal says more: `journalctl -u finetuned -e`.",
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
