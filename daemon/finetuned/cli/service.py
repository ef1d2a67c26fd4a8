"""``install-service``, ``uninstall-service``, ``upgrade`` and ``stop-workers``: the daemon as a service."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import anyio
import click

from finetuned.cli import console
from finetuned.cli.session import json_option, with_daemon
from finetuned.client import Client
from finetuned.domain.errors import InvalidRequestError, NotFoundError, Rejected
from finetuned.service import plans, releases, units
from finetuned.service.layout import ACCOUNT, Layout, Scope, find_layout
from finetuned.service.plans import Candidate
from finetuned.service.sources import find_python, find_source
from finetuned.service.steps import Plan, StepError
from finetuned_sdk.bundle import BundleError, read_json

P = ParamSpec("P")
R = TypeVar("R")

POLL_S = 0.5


def _common(command: Callable[P, R]) -> Callable[P, R]:
    for option in (
        click.option(
            "--system", "scope", flag_value=Scope.SYSTEM.value, help="The whole machine's. Default for root."
        ),
        click.option(
            "--user", "scope", flag_value=Scope.USER.value, help="Your own. Default for everybody else."
        ),
        click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing."),
        click.option("--yes", is_flag=True, help="Do not ask."),
        json_option("Print JSON: the steps.", shape=list[str]),
    ):
        command = option(command)
    return command


source_option = click.option(
    "--from",
    "source",
    metavar="WHEEL|DIR|VERSION",
    help="A wheel, a checkout, or a version that the package index has. Default: what runs this command.",
)
python_option = click.option(
    "--python",
    metavar="PATH",
    help="The interpreter for the release's environment. Default: the one that runs this command.",
)


root_option = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/"),
    help="Work below this directory, an image, and run nothing of the system's.",
)


@click.command("install-service")
@source_option
@python_option
@root_option
@click.option("--units-only", is_flag=True, help="Write the units of this release and nothing else.")
@_common
def install_service(
    *,
    source: str | None,
    python: str | None,
    root: Path,
    units_only: bool,
    scope: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Install the daemon as a service of systemd."""
    layout = find_layout(_scope(scope), root)
    files = tuple(units.files(layout, units.shipped()))
    if units_only:
        plan = plans.unit_files(layout, files)
    else:
        candidate = _candidate(layout, source, python)
        if layout.current.is_symlink() and layout.current.readlink() != candidate.path:
            raise Rejected(
                "already_installed",
                f"{releases.version(layout.current.readlink())} is installed; `finetune upgrade` puts another in its place.",
            )
        plan = plans.install(layout, candidate, files)
    if _done(plan, dry_run=dry_run, yes=yes, as_json=as_json) and not units_only:
        console.note(_welcome(layout))


@click.command("uninstall-service")
@click.option("--purge", is_flag=True, help="Remove the log, all jobs and all models as well.")
@root_option
@_common
def uninstall_service(
    *, purge: bool, root: Path, scope: str | None, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Remove the service; the log and the jobs stay."""
    layout = find_layout(_scope(scope), root)
    installed = _installed(layout)
    if list(releases.interpreters_in_use(layout.state / "jobs")):
        raise Rejected(
            "jobs_running",
            "Jobs are running in the releases that would be removed; wait for them, or end them with"
            " `finetune stop-workers`.",
        )
    _done(plans.uninstall(layout, installed, purge=purge), dry_run=dry_run, yes=yes, as_json=as_json)
    if not purge and not dry_run:
        console.note(f"The log and the jobs are still in {layout.state}.")


@click.command
@source_option
@python_option
@click.option(
    "--prune", "prune_only", is_flag=True, help="Only remove old releases that no running job uses."
)
@_common
def upgrade(
    *,
    source: str | None,
    python: str | None,
    prune_only: bool,
    scope: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Put another release in the service's place; running jobs lose nothing."""
    layout = find_layout(_scope(scope))
    _installed(layout)
    before = layout.current.readlink()
    if prune_only:
        _done(_prune(layout, before), dry_run=dry_run, yes=yes, as_json=as_json)
        return
    if source is None and python is None and Path(sys.prefix) == before:
        raise InvalidRequestError(
            f"{before.name} runs this command; name another release with --from.", param="from"
        )
    candidate = _candidate(layout, source, python)
    switch = plans.switch(layout, candidate.path, candidate.source.version)
    plan = (*plans.prepare(layout, candidate), *switch)
    if not _agreed(plan, dry_run=dry_run, yes=yes, as_json=as_json):
        return
    _run(plan[: -len(switch)])
    try:
        _run(switch)
    except StepError as error:
        _take_back(layout, before, error)
    if candidate.path != before:
        _run(_prune(layout, candidate.path, before))
    console.note(f"finetuned {candidate.source.version} runs, from {candidate.path}.")


@click.command("stop-workers")
@click.option("--reason", default="the workers are to stop", help="Why; it is kept in the log.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option("Print JSON: the jobs that were cancelled.", shape=list[str])
@with_daemon
async def stop_workers(daemon: Client, *, reason: str, yes: bool, as_json: bool) -> None:
    """Cancel every job that has not ended, and wait until no process of any is left."""
    live = [job async for job in daemon.all_jobs() if not _has_ended(job)]
    if not live:
        console.emit([]) if as_json else console.note("No job is live.")
        return
    if not yes:
        _confirm(f"Cancel {len(live)} jobs?")
    # Those that wait go first, or they would take the devices of those that end.
    for job in sorted(live, key=lambda job: job["state"] not in {"queued", "paused"}):
        with suppress(Rejected):  # it has ended meanwhile
            await daemon.cancel(job["id"], reason=reason)
    for job in live:
        while not _has_ended(await daemon.job(job["id"])):  # noqa: ASYNC110 - the daemon is another process
            await anyio.sleep(POLL_S)
    if as_json:
        console.emit([job["id"] for job in live])
    else:
        console.say(f"{len(live)} jobs are cancelled; nothing runs.")


def _has_ended(job: Any) -> bool:
    return job["state"] in {"succeeded", "failed", "cancelled"}


def _scope(named: str | None) -> Scope | None:
    return None if named is None else Scope(named)


def _candidate(layout: Layout, source: str | None, python: str | None) -> Candidate:
    interpreter = find_python(python, layout.scope)
    found = find_source(source).made_with(interpreter)
    return Candidate(releases.place(layout.releases, found), found, interpreter)


def _installed(layout: Layout) -> list[Path]:
    """What the installation has put there. Raises ``NotFoundError`` if there is none."""
    try:
        receipt = read_json(layout.receipt)
    except (BundleError, OSError) as error:
        raise NotFoundError(
            f"{layout.receipt} cannot be read ({error}); use the account that installed it."
        ) from None
    if receipt is None:
        raise NotFoundError(
            f"No service is installed ({layout.receipt} is not there); `finetune install-service` does that,"
            " --user and --system say whose is meant."
        )
    return [Path(each) for each in (*receipt["files"], *receipt["links"])]


def _prune(layout: Layout, *keep: Path) -> Plan:
    there = sorted(layout.releases.iterdir())
    used = list(releases.interpreters_in_use(layout.state / "jobs"))
    return plans.prune(releases.prunable(there, keep=keep, interpreters=used))


def _take_back(layout: Layout, before: Path, error: StepError) -> None:
    """Let the release run that ran before. Raises ``StepError`` in any case: the upgrade has failed."""
    version = releases.version(before)
    console.note(f"{error.message}\nGoing back to {version}.")
    try:
        _run(plans.switch(layout, before, version))
    except StepError as second:
        raise StepError(
            f"The new release did not come up, and neither did {version} again: {second.message} The jobs run on;"
            " start the daemon as soon as you can."
        ) from error
    raise StepError(
        f"The new release did not come up; {version} runs again, and no job has lost a step."
    ) from error


def _done(plan: Plan, *, dry_run: bool, yes: bool, as_json: bool) -> bool:
    """Show a plan, ask, and do it; whether it was done."""
    if not _agreed(plan, dry_run=dry_run, yes=yes, as_json=as_json):
        return False
    _run(plan)
    return True


def _agreed(plan: Plan, *, dry_run: bool, yes: bool, as_json: bool) -> bool:
    if as_json:
        console.emit([step.text for step in plan])
    else:
        for number, step in enumerate(plan, start=1):
            console.say(f"{number:2}. {step.text}")
        if not plan:
            console.note("There is nothing to do.")
    if dry_run or not plan:
        return False
    if not yes:
        _confirm("Do this?")
    return True


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise InvalidRequestError(
            "There is nobody to ask; say --yes, or look first with --dry-run.", param="yes"
        )
    if not click.confirm(question, default=False, err=True):
        raise Rejected("not_confirmed", "Nothing was done.")


def _run(plan: Plan) -> None:
    for step in plan:
        console.note(f"… {step.text}")
        step.run()


def _welcome(layout: Layout) -> str:
    if layout.scope is Scope.USER:
        return f"It runs. `systemctl --user status finetuned` shows it; its files are in {layout.state}."
    return (
        f"It runs. `systemctl status finetuned` shows it; its files are in {layout.state}. Root and members of the"
        f" group {ACCOUNT} may use it: `usermod -aG {ACCOUNT} NAME`, then log in again."
    )
