"""The files of systemd that this release ships."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from finetuned.service.layout import Layout, Scope

SERVICE = "finetuned.service"
#: what is enabled and started, in this order
SYSTEM_UNITS = ("finetuned.socket", "finetuned-gpu.service", SERVICE)
USER_UNITS = (SERVICE,)


def shipped() -> Path:
    """The directory ``systemd`` of this release. In a checkout it is a link."""
    return Path(__file__).parent / "systemd"


def files(layout: Layout, source: Path) -> Iterator[tuple[Path, str]]:
    """Each file that the scope needs: where it goes, and what is in it."""
    if layout.scope is Scope.USER:
        folders = {"user": layout.units}
    else:
        folders = {"system": layout.units, "sysusers.d": layout.sysusers, "tmpfiles.d": layout.tmpfiles}
    for folder, target in folders.items():
        for path in sorted((source / folder).iterdir()):
            yield target / path.name, path.read_text(encoding="utf-8")


def enabled(scope: Scope) -> tuple[str, ...]:
    """The units that are enabled and started, in order."""
    return SYSTEM_UNITS if scope is Scope.SYSTEM else USER_UNITS


def systemctl(scope: Scope, *arguments: str) -> tuple[str, ...]:
    """A command line for the service manager of the scope."""
    return ("systemctl", *(("--user",) if scope is Scope.USER else ()), *arguments)
