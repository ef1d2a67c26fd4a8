"""What a plan is made of: each step says what it does, and does nothing when that is done already."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from finetuned.domain.errors import FinetunedError
from finetuned_sdk.bundle import sync_directory

TAIL = 15  # lines of a failed command's output that are shown


class StepError(FinetunedError):
    """A step of a plan did not succeed; those before it have been done."""

    code: ClassVar[str] = "step_failed"
    exit_code: ClassVar[int] = 1


class Step(Protocol):
    """One thing to do. Done again, it changes nothing."""

    @property
    def text(self) -> str:
        """What it does, for people, in one line."""

    def run(self) -> None:
        """Do it. Raises ``StepError``."""


Plan = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """Run a command, as ``account`` or else as ourselves. One that ``may_fail`` is no reason to stop."""

    command: tuple[str, ...]
    why: str
    may_fail: bool = False
    account: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The command and its reason."""
        whose = f" as {self.account}" if self.account else ""
        return f"run {' '.join(self.command)}{whose}: {self.why}"

    def run(self) -> None:
        """Run it; its output is only shown when it fails."""
        try:
            done = subprocess.run(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
                umask=0o022,  # others must be able to read what root installs
                cwd="/",
                # Settings of a daemon that the administrator talks to are not those of the service.
                env={**_without_settings(os.environ), **self.environment},
                user=self.account,
                group=self.account,
                extra_groups=None if self.account is None else [],
            )
        except (OSError, LookupError) as error:
            if self.may_fail:
                return
            raise StepError(
                f"{self.command[0]} cannot be run ({error}); install what it belongs to and do this again."
            ) from None
        if done.returncode and not self.may_fail:
            said = "\n".join(done.stdout.strip().splitlines()[-TAIL:])
            raise StepError(
                f"`{' '.join(self.command)}` ended with {done.returncode}:\n{said}\nMend that and do this again:"
                " what was done already is left as it is."
            )


@dataclass(frozen=True, slots=True)
class Write:
    """Have a file with this text."""

    path: Path
    content: str
    mode: int = 0o644

    @property
    def text(self) -> str:
        """The file."""
        return f"write {self.path}"

    def run(self) -> None:
        """Write it beside and move it over, unless it is there as it should be."""
        with _explained(self.path):
            if (
                self.path.is_file()
                and not self.path.is_symlink()
                and self.path.read_text("utf-8") == self.content
            ):
                return
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            beside = self.path.with_name(f".{self.path.name}.new")
            with beside.open("w", encoding="utf-8") as file:
                file.write(self.content)
                os.fchmod(file.fileno(), self.mode)
                file.flush()
                os.fsync(file.fileno())  # or a power failure leaves the name without the text
            beside.replace(self.path)
            sync_directory(self.path.parent)


@dataclass(frozen=True, slots=True)
class Link:
    """Have a link point to a target. What is no link there is not touched."""

    path: Path
    target: Path

    @property
    def text(self) -> str:
        """Both ends."""
        return f"link {self.path} -> {self.target}"

    def run(self) -> None:
        """Make it beside and move it over: there is no moment without it."""
        with _explained(self.path):
            if self.path.is_symlink():
                if self.path.readlink() == self.target:
                    return
            elif self.path.exists():
                raise StepError(f"{self.path} is there and no link of ours; move it away and do this again.")
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            beside = self.path.with_name(f".{self.path.name}.new")
            beside.unlink(missing_ok=True)
            beside.symlink_to(self.target)
            beside.replace(self.path)
            sync_directory(self.path.parent)


@dataclass(frozen=True, slots=True)
class Remove:
    """Have something gone: a file, a link, or a directory with all in it."""

    path: Path
    why: str = ""

    @property
    def text(self) -> str:
        """What goes."""
        return f"remove {self.path}{': ' if self.why else ''}{self.why}"

    def run(self) -> None:
        """Remove it; a link only, never what it points to."""
        with _explained(self.path):
            if self.path.is_dir() and not self.path.is_symlink():
                shutil.rmtree(self.path)
            else:
                self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class RemoveEmpty:
    """Have a directory gone if nothing is in it."""

    path: Path

    @property
    def text(self) -> str:
        """The directory."""
        return f"remove {self.path} if it is empty"

    def run(self) -> None:
        """Remove it if it is empty."""
        try:
            self.path.rmdir()
        except OSError:  # others use it, or it is gone
            return


def _without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith("FINETUNED_")}


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StepError(
            f"{error.filename or path}: {error.strerror}. Use an account that may change it (`sudo`), or `--user`"
            " for a service of your own."
        ) from None
