"""What a release is installed from: a wheel, a checkout, or a version that the package index has."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from finetuned import __version__
from finetuned.domain.errors import InvalidRequestError
from finetuned.service.layout import Scope

PROJECT: Final = "finetuned"
REMEDY: Final = "name a wheel, a checkout or a version with --from."
_WHEEL: Final = re.compile(r"finetuned-([^-]+)-[^/]*\.whl")
_VERSION: Final = re.compile(r"\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[a-z0-9.]+)?", re.ASCII)
_PRIVATE: Final = (Path("/home"), Path("/root"), Path("/run/user"))  # what ProtectHome= hides


@dataclass(frozen=True, slots=True)
class Source:
    """``requirement`` is what pip is given; sources with one ``fingerprint`` make the same release."""

    requirement: str
    version: str
    fingerprint: str

    def made_with(self, python: Path) -> Source:
        """The same source for another interpreter: that is another release."""
        return replace(self, fingerprint=f"{self.fingerprint} {python.resolve()}")


def find_source(named: str | None = None) -> Source:
    """The source that is named, else the one that the running program came from.

    Raises ``InvalidRequestError`` if it is none.
    """
    if named is None:
        named = _own()
    path = Path(named).expanduser().absolute()
    if path.is_dir():
        return _checkout(path)
    if path.is_file() and (match := _WHEEL.fullmatch(path.name)):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return Source(_requirement(path), match[1], digest)
    if _VERSION.fullmatch(named):
        extras = _extras()
        return Source(f"{PROJECT}{extras}=={named}", named, f"=={named}{extras}")
    raise InvalidRequestError(
        f"{named} is no wheel of finetuned, no checkout and no version; {REMEDY}", param="from"
    )


def find_python(named: str | None, scope: Scope) -> Path:
    """The interpreter that a release is made with; by default the one below the running environment.

    Raises ``InvalidRequestError`` if the service could not read it.
    """
    path = Path(named or getattr(sys, "_base_executable", None) or sys.executable).expanduser().absolute()
    if not os.access(path, os.X_OK):
        raise InvalidRequestError(f"{path} cannot be run; correct --python.", param="python")
    private = [each for each in (path, path.resolve()) if any(each.is_relative_to(home) for home in _PRIVATE)]
    if scope is Scope.SYSTEM and private:
        raise InvalidRequestError(
            f"The service may not look into home directories, and {private[0]} is in one; name another"
            " interpreter, for instance --python /usr/bin/python3.",
            param="python",
        )
    return path


def _own() -> str:
    """Where the running program was installed from, as pip has noted it (PEP 610)."""
    try:
        noted = metadata.distribution(PROJECT).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        raise InvalidRequestError(f"The running finetuned is not installed; {REMEDY}", param="from") from None
    if noted is None:  # it came from the index
        return __version__
    url = urlsplit(str(json.loads(noted)["url"]))
    path = unquote(url.path)
    if url.scheme != "file" or not Path(path).exists():
        raise InvalidRequestError(
            f"The running finetuned was installed from {url.geturl()}, which is not at hand; {REMEDY}",
            param="from",
        )
    return path


def _checkout(path: Path) -> Source:
    try:
        project = tomllib.loads((path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        name, version = project["name"], str(project["version"])
    except (OSError, KeyError, ValueError):
        name, version = "", ""
    if name != PROJECT:
        raise InvalidRequestError(f"{path} is no checkout of finetuned; {REMEDY}", param="from")
    digest = hashlib.sha256()
    for each in _sources(path):
        digest.update(f"{each.relative_to(path)}\0".encode() + each.read_bytes())
    return Source(_requirement(path), version, digest.hexdigest())


def _sources(path: Path) -> Iterator[Path]:
    yield path / "pyproject.toml"
    for folder in ("daemon", "events", "plugins", "systemd"):
        for each in sorted((path / folder).rglob("*")):
            if each.is_file() and "__pycache__" not in each.parts:
                yield each


def _requirement(path: Path) -> str:
    return f"{PROJECT}{_extras()} @ {path.as_uri()}"


def _extras() -> str:
    """A release trains if the running environment does."""
    return "[train]" if importlib.util.find_spec("torch") is not None else ""
