"""Who may name a path on the server in a job: administrators any, everybody else below the roots allowed.

A path is read with the daemon's rights, not with the caller's: without this rule a token that may submit jobs
could train on, and be shown rows of, whatever file the daemon may read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import BaseModel
from yarl import URL

from finetuned.access.server_paths import UnsafePathError, check_beneath, root_of
from finetuned.domain.errors import PermissionDeniedError

#: a dataset or file that was uploaded: what it stands for is the daemon's own file
DATASET_REFERENCE: Final = re.compile(r"dataset:[\w.-]+(@[\w.-]+)?|file:[\w-]+", re.ASCII)
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_URL: Final = re.compile(r"https?://", re.IGNORECASE)
_LONGEST: Final = 4095  # bytes; PATH_MAX with its closing zero


class PathNotAllowedError(PermissionDeniedError):
    """A job names a path on the server, and its caller may not name that one."""

    code: ClassVar[str] = "path_not_allowed"


class UrlNotAllowedError(PermissionDeniedError):
    """A job names a URL for its worker to call, and its caller may not name that one."""

    code: ClassVar[str] = "url_not_allowed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PathPolicy:
    """Which paths a caller may name: ``anywhere``, or beneath ``roots``; by itself none.

    ``hosts`` are those that a worker may be sent to by a caller who may not name paths: names, addresses and networks.
    """

    anywhere: bool = False
    roots: tuple[Path, ...] = ()
    hosts: frozenset[str] = frozenset()

    def of(self, *, may_name_paths: bool) -> PathPolicy:
        """This policy for a caller: unbound for who may name paths."""
        return replace(self, anywhere=True) if may_name_paths else self

    def check(
        self, params: Mapping[str, Any], names: Collection[str], *, prefix: str, known: Collection[str] = ()
    ) -> None:
        """Refuse values of the parameters ``names`` that are paths and may not be named.

        ``known`` are names that the daemon resolves itself. It reads the file system: call it off the event
        loop. Raises ``PathNotAllowedError`` or ``UrlNotAllowedError`` with the parameter and the remedy.
        """
        if self.anywhere:
            return
        for name in names:
            for value in _texts(params.get(name)):
                self._check_value(value, param=f"{prefix}{name}", known=known)

    def _check_value(self, value: str, *, param: str, known: Collection[str]) -> None:
        if value in known or DATASET_REFERENCE.fullmatch(value):
            return
        if _URL.match(value):
            self._check_url(value, param)
        elif is_path(value):
            self._check_path(value, param)

    def _check_url(self, value: str, param: str) -> None:
        try:
            host = (URL(value).host or "").lower().removesuffix(".")
        except ValueError:
            host = ""
        if not self._is_listed(host):
            raise UrlNotAllowedError(
                f"{param} sends the job to {host or 'a URL'}, which needs scope admin; ask the operator to add the"
                " host to outbound_allow in the configuration.",
                param=param,
            )

    def _is_listed(self, host: str) -> bool:
        """Whether a host is among ``hosts``: by its name, or as an address that is written out in a network."""
        listed = {each.strip().lower().removesuffix(".") for each in self.hosts}
        if host in listed:
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address.version == each.version and address in each for each in _networks(listed))

    def _check_path(self, value: str, param: str) -> None:
        path = Path(value)
        root = None
        if path.is_absolute() and ".." not in path.parts and "\0" not in value:
            root = root_of(path, self.roots)
        if root is None:
            raise PathNotAllowedError(
                f"{param} names a path on the server, which needs scope admin; upload the data instead, or ask the"
                " operator to allow the folder with data_roots in the configuration.",
                param=param,
            )
        try:
            check_beneath(root, path)
        except UnsafePathError as error:
            raise PathNotAllowedError(
                f"{param} is not allowed: {error}; upload the data instead, or ask the operator to allow the folder"
                " that it really lies in with data_roots.",
                param=param,
            ) from None
        except OSError as error:
            raise PathNotAllowedError(
                f"{param} cannot be opened beneath {root} ({error.strerror}); correct it.", param=param
            ) from None


NOWHERE: Final = PathPolicy()
ANYWHERE: Final = PathPolicy(anywhere=True)


def _networks(listed: Collection[str]) -> Iterator[IPv4Network | IPv6Network]:
    for each in listed:
        with suppress(ValueError):  # a name
            yield ip_network(each.strip("[]"), strict=False)


def is_path(value: str) -> bool:
    """Whether a plugin may take the value for a path: all but a plain name or hub id that names nothing here."""
    if not value:
        return False
    if len(os.fsencode(value)) > _LONGEST or "\0" in value:
        return True
    if not _HUB_ID.fullmatch(value) and (re.search(r"[/\\:~]", value) or value in {".", ".."}):
        return True
    return os.path.lexists(value)


def _texts(value: Any) -> Iterator[str]:
    """The texts in a parameter: itself, or those of a list or mapping."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, os.PathLike):
        yield os.fsdecode(value)
    elif isinstance(value, BaseModel):
        yield from _texts(value.model_dump())
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _texts(each)
