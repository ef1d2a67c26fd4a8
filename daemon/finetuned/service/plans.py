"""The plans: pure lists of steps. They are shown before anything is done, and can be done again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetuned.service import units
from finetuned.service.layout import ACCOUNT, Layout, Scope
from finetuned.service.readiness import AwaitReady
from finetuned.service.releases import MakeRelease
from finetuned.service.sources import Source
from finetuned.service.steps import Link, Plan, Remove, RemoveEmpty, Run, Step, Write

Files = Sequence[tuple[Path, str]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A release to be: where it goes, what from, and the interpreter it is made with."""

    path: Path
    source: Source
    python: Path


def install(layout: Layout, candidate: Candidate, files: Files) -> Plan:
    """Put the service there and start it."""
    return (
        *unit_files(layout, files),
        *_account(layout),
        *prepare(layout, candidate),
        Link(layout.current, candidate.path),
        Link(layout.command, layout.current / "bin" / "finetune"),
        *_start(layout, candidate.source.version),
    )


def unit_files(layout: Layout, files: Files) -> Plan:
    """The units alone, as an upgrade refreshes them."""
    receipt = {"files": [str(path) for path, _ in files], "links": [str(layout.command)]}
    return (
        *(Write(path, content) for path, content in files),
        Write(layout.receipt, json.dumps(receipt, indent=1)),
        *_commands(
            layout, Run(units.systemctl(layout.scope, "daemon-reload"), "have systemd read the units")
        ),
    )


def prepare(layout: Layout, candidate: Candidate) -> Plan:
    """A release beside the others, checked and not in use yet."""
    program = str(candidate.path / "bin" / "finetuned")
    environment = {"FINETUNED_STATE_DIR": str(layout.state), "FINETUNED_SOCKET": str(layout.socket)}
    return (
        MakeRelease(candidate.path, candidate.source, candidate.python),
        *_commands(
            layout,
            Run(
                (program, "--check"),
                "check that it starts, takes the configuration and understands the log",
                account=ACCOUNT if layout.scope is Scope.SYSTEM else None,
                environment=environment,
            ),
        ),
    )


def switch(layout: Layout, release: Path, version: str) -> Plan:
    """Have a release that is whole be the one that runs. Trainers run on in theirs."""
    refresh = (
        str(release / "bin" / "finetune"), "install-service", f"--{layout.scope}", "--units-only", "--yes",
    )  # fmt: skip
    return (
        Run(refresh, "write the units of that release"),
        Link(layout.current, release),
        Run(units.systemctl(layout.scope, "restart", units.SERVICE), "restart the daemon; trainers run on"),
        AwaitReady(layout.socket, version),
    )


def prune(releases: Iterable[Path]) -> Plan:
    """Releases that nobody uses any more."""
    return tuple(Remove(each, "an old release that no running job uses") for each in releases)


def uninstall(layout: Layout, installed: Sequence[Path], *, purge: bool) -> Plan:
    """Remove what was installed; with ``purge`` also the log, the jobs and the models."""
    names = sorted(path.name for path in installed if path.parent == layout.units)
    active = [name for name in names if not name.endswith(".slice")]
    steps: list[Step] = [
        *_commands(
            layout, Run(units.systemctl(layout.scope, "disable", "--now", *active), "stop it", may_fail=True)
        ),
        *(Remove(path) for path in installed),
        *_commands(
            layout, Run(units.systemctl(layout.scope, "daemon-reload"), "have systemd forget the units")
        ),
        Remove(layout.current),
        Remove(layout.releases, "the releases"),
        Remove(layout.receipt),
        RemoveEmpty(layout.base),
    ]
    if purge:
        steps.append(Remove(layout.state, "the log, all jobs and all models"))
        if layout.scope is Scope.SYSTEM:
            steps.append(Remove(layout.secrets.parent, "the configuration and the secrets"))
            steps += _commands(layout, Run(("userdel", ACCOUNT), "remove the account", may_fail=True))
    return tuple(steps)


def _account(layout: Layout) -> Plan:
    if layout.scope is Scope.USER:
        return ()
    return _commands(
        layout,
        Run(("systemd-sysusers", str(layout.sysusers / "finetuned.conf")), f"make the account {ACCOUNT}"),
        Run(
            ("systemd-tmpfiles", "--create", str(layout.tmpfiles / "finetuned.conf")),
            "make the directories of the socket and of the secrets",
        ),
    )


def _start(layout: Layout, version: str) -> Plan:
    enabled = units.enabled(layout.scope)
    steps: list[Step] = []
    if layout.scope is Scope.USER:
        linger = "have it run while you are not logged in"
        steps.append(Run(("loginctl", "enable-linger"), linger, may_fail=True))
    steps += [
        Run(units.systemctl(layout.scope, "enable", *enabled), "start it with the system"),
        Run(units.systemctl(layout.scope, "start", *enabled), "start it now"),
        AwaitReady(layout.socket, version),
    ]
    return _commands(layout, *steps)


def _commands(layout: Layout, *steps: Step) -> Plan:
    """Steps that reach the running system: none for an image that is being built."""
    return steps if layout.is_running_system else ()
