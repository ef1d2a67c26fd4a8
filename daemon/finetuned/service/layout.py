"""Where an installed service lies: of the whole system, or of one user's service manager."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from finetuned.config import default_state_dir

ACCOUNT: Final = "finetuned"  # user and group of the system's service; in sysusers.d as well


class Scope(StrEnum):
    """Whose service manager runs the daemon."""

    SYSTEM = "system"
    USER = "user"


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of an installed service. ``root`` is put before each, for an image that is being built."""

    scope: Scope
    home: Path
    state_dir: Path
    root: Path = Path("/")

    @property
    def base(self) -> Path:
        """What holds the releases."""
        return self._placed("/opt/finetuned", ".local/share/finetuned")

    @property
    def releases(self) -> Path:
        """One virtual environment a release."""
        return self.base / "releases"

    @property
    def current(self) -> Path:
        """The link to the release that the unit starts."""
        return self.base / "current"

    @property
    def receipt(self) -> Path:
        """The list of what was installed, so that exactly that can be removed."""
        return self.base / "installed.json"

    @property
    def command(self) -> Path:
        """The link by which people find ``finetune``."""
        return self._placed("/usr/local/bin/finetune", ".local/bin/finetune")

    @property
    def units(self) -> Path:
        """Where units of the administrator, or of the user, go."""
        return self._placed("/etc/systemd/system", ".config/systemd/user")

    @property
    def sysusers(self) -> Path:
        """Where users of the system's services are declared."""
        return self._placed("/etc/sysusers.d", "")

    @property
    def tmpfiles(self) -> Path:
        """Where directories of the system's services are declared."""
        return self._placed("/etc/tmpfiles.d", "")

    @property
    def secrets(self) -> Path:
        """What `LoadCredential` reads."""
        return self._placed("/etc/finetuned/secrets", "")

    @property
    def state(self) -> Path:
        """The log and the jobs."""
        return self._below(self.state_dir)

    @property
    def socket(self) -> Path:
        """Where the running service answers."""
        if self.scope is Scope.SYSTEM:
            return self._below(Path("/run/finetuned/finetuned.sock"))
        return self.state / "finetuned.sock"

    @property
    def is_running_system(self) -> bool:
        """Whether commands reach the service manager that these paths belong to."""
        return self.root == Path("/")

    def _placed(self, system: str, user: str) -> Path:
        return self._below(Path(system) if self.scope is Scope.SYSTEM else self.home / user)

    def _below(self, path: Path) -> Path:
        return self.root / path.relative_to("/")


def find_layout(
    scope: Scope | None = None,
    root: Path = Path("/"),
    environ: Mapping[str, str] = os.environ,
    *,
    uid: int | None = None,
) -> Layout:
    """The layout for a scope; by default the system's for root and a user's for everybody else."""
    if scope is None:
        scope = Scope.SYSTEM if (os.geteuid() if uid is None else uid) == 0 else Scope.USER
    home = Path(environ.get("HOME") or "~").expanduser()
    state = Path("/var/lib/finetuned") if scope is Scope.SYSTEM else default_state_dir(environ)
    return Layout(scope, home.absolute(), state.absolute(), root.absolute())
