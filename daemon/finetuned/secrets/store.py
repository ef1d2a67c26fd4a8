"""Secrets by name: one file each, in a directory that only the daemon's user can read.

What systemd's ``LoadCredential=`` handed to the unit is read too, and cannot be changed here. Nothing of a value
leaves this module but to the processes of a job that names it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from finetuned.domain.errors import FinetunedError, InvalidRequestError, NotFoundError, Rejected
from finetuned_sdk.bundle import sync_directory
from finetuned_sdk.secrets import REFERENCE, SHORTEST

NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
LEFT: Final = re.compile(rf"\.{NAME.pattern}-[0-9a-f]{{8}}")  # a value on its way to its name
LONGEST: Final = 8192  # bytes of a value
CREDENTIAL_PREFIX: Final = (
    "secret_"  # what LoadCredential=secret:DIRECTORY puts before the names of its files
)


class SecretMissingError(NotFoundError):
    """A secret that is named is not in the store."""

    code: ClassVar[str] = "secret_not_found"


class SecretUnsafeError(FinetunedError):
    """A file or directory of secrets that others can read: its content is not used."""

    code: ClassVar[str] = "secret_unsafe"
    status: ClassVar[int] = 503
    exit_code: ClassVar[int] = 6
    retry_after_s: ClassVar[int] = (
        60  # people have to mend it: nobody waits for that with the request in hand
    )


@dataclass(frozen=True, slots=True)
class SecretName:
    """A secret that can be named; ``writable`` unless systemd brought it."""

    name: str
    writable: bool


@dataclass(frozen=True, slots=True)
class SecretStore:
    """The secrets below ``directory`` and, read-only, those of systemd in ``credentials``.

    Every method reads or writes files: call them off the event loop.
    """

    directory: Path
    credentials: Path | None = None

    def names(self) -> list[SecretName]:
        """The names of all secrets, in order; never a value."""
        own = {each.name for each in _files(self.directory) if NAME.fullmatch(each.name)}
        brought = set()
        if self.credentials is not None:
            names = [each.name.removeprefix(CREDENTIAL_PREFIX) for each in self._credential_files()]
            brought = {name for name in names if NAME.fullmatch(name)}
        found = [SecretName(name, writable=False) for name in brought]
        return sorted(
            [*found, *(SecretName(name, writable=True) for name in own - brought)],
            key=lambda each: each.name,
        )

    def read(self, name: str) -> str:
        """The value. Raises ``SecretMissingError`` or ``SecretUnsafeError`` with the remedy."""
        for path, of_systemd in self._places(name):
            try:
                return _read(path, of_systemd=of_systemd)
            except FileNotFoundError:
                continue
        raise SecretMissingError(
            f"There is no secret {name!r}; store it with `finetune secrets set {name}`.", param="name"
        )

    def resolve(self, references: Mapping[str, str]) -> dict[str, str]:
        """The value behind each ``secret:NAME``. Raises as :meth:`read` does."""
        return {name: self.read(name_of(reference)) for name, reference in references.items()}

    def put(self, name: str, value: str) -> None:
        """Store a value, replacing an older one at once. Raises ``InvalidRequestError`` or ``Rejected``."""
        _check_name(name)
        self._require_own(name)
        _check_value(value)
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_directory(self.directory.parent)
        _require_private(self.directory)
        temporary = self.directory / f".{name}-{os.urandom(4).hex()}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(value.encode())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.directory / name)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(self.directory)

    def sweep(self) -> None:
        """Remove values that a killed daemon left half-stored: no name leads to them. Blocks."""
        for left in _files(self.directory):
            if LEFT.fullmatch(left.name):
                with suppress(OSError):  # a daemon starts without this
                    left.unlink()

    def delete(self, name: str) -> None:
        """Remove a value. Raises ``SecretMissingError`` or ``Rejected``."""
        _check_name(name)
        self._require_own(name)
        try:
            (self.directory / name).unlink()
        except FileNotFoundError:
            raise SecretMissingError(
                f"There is no secret {name!r}; `finetune secrets` lists them.", param="name"
            ) from None
        sync_directory(self.directory)

    def _places(self, name: str) -> list[tuple[Path, bool]]:
        if not NAME.fullmatch(name):
            return []
        own = (self.directory / name, False)
        if self.credentials is None:
            return [own]
        return [(self.credentials / f"{CREDENTIAL_PREFIX}{name}", True), own]

    def _credential_files(self) -> list[Path]:
        assert self.credentials is not None
        return [each for each in _files(self.credentials) if each.name.startswith(CREDENTIAL_PREFIX)]

    def _require_own(self, name: str) -> None:
        if any(each.name == name and not each.writable for each in self.names()):
            raise Rejected(
                "secret_read_only",
                f"The secret {name!r} came from systemd (LoadCredential=); change its file and restart the daemon.",
                param="name",
            )


def name_of(reference: str) -> str:
    """The name in ``secret:NAME``. Raises ``InvalidRequestError``."""
    match = REFERENCE.fullmatch(reference)
    if match is None:
        raise InvalidRequestError(
            "A secret is named as secret:NAME, with a name of small letters, digits, dots and dashes.",
            code="secret_not_a_reference",
        )
    return match[1]


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise InvalidRequestError(
            "A secret's name has 1 to 64 small letters, digits, dots, dashes and underscores and begins with a"
            " letter or digit; choose such a name.",
            param="name",
            code="invalid_params",
        )


def _check_value(value: Any) -> None:
    """Refuse a value that cannot be kept or masked. No message of it quotes the value."""
    if not isinstance(value, str) or "\0" in value or len(value.encode("utf-8", "replace")) > LONGEST:
        raise InvalidRequestError(
            f"A secret is a text of at most {LONGEST} bytes without NUL; send such a one.",
            param="value",
            code="invalid_params",
        )
    if len(value) < SHORTEST or value != value.strip():
        raise InvalidRequestError(
            f"A secret has at least {SHORTEST} characters and no space around it: a shorter one could not be masked"
            " in output. Use a longer one.",
            param="value",
            code="invalid_params",
        )


def _files(directory: Path) -> list[Path]:
    with suppress(FileNotFoundError):
        return sorted(each for each in directory.iterdir() if each.is_file())
    return []


def _read(path: Path, *, of_systemd: bool) -> str:
    """The text of a file that nobody else can read. Raises ``FileNotFoundError`` or ``SecretUnsafeError``."""
    if not of_systemd:
        with suppress(FileNotFoundError):
            _require_private(path.parent)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SecretUnsafeError(f"{path} cannot be read ({error.strerror}); correct it.") from None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        # systemd lets the unit's user read by an access list, which shows as the group's permission.
        forbidden = 0o007 if of_systemd else 0o077
        if not stat.S_ISREG(found.st_mode) or found.st_mode & forbidden:
            raise SecretUnsafeError(f"{path} can be read by others; chmod 600 it.")
        data = file.read(LONGEST + 2)
    try:
        value = data.decode().strip()
    except UnicodeDecodeError:
        raise SecretUnsafeError(f"{path} is not UTF-8 text; write it again.") from None
    if len(value) < SHORTEST or len(data) > LONGEST + 1 or "\0" in value:
        raise SecretUnsafeError(
            f"{path} holds no text of {SHORTEST} characters to {LONGEST} bytes; write it again."
        )
    return value


def _require_private(directory: Path) -> None:
    found = directory.stat()
    if found.st_mode & 0o077 or found.st_uid not in {0, os.geteuid()}:
        raise SecretUnsafeError(
            f"The directory {directory} is open to others; chmod 700 it, and have the daemon's user own it."
        )
