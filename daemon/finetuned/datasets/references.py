"""References to datasets: ``dataset:NAME`` means the newest version, ``dataset:NAME@HASH`` the one that begins so.

``file:ID`` means a file of the OpenAI API.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from finetuned.domain import files
from finetuned.domain.errors import InvalidRequestError, NotFoundError
from finetuned.domain.registers import Dataset, DatasetVersion
from finetuned.spelling import nearest

SCHEME = "dataset:"
FILE_SCHEME = "file:"
TAKEN = frozenset({"register"})  # they stand where names stand in the API's paths
SHORTEST_PREFIX = 8  # hexadecimal digits of a version
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
PREFIX = re.compile(rf"[0-9a-f]{{{SHORTEST_PREFIX},64}}")


@dataclass(frozen=True, slots=True)
class Reference:
    """What a parameter names: a dataset, and the beginning of a version or ``None`` for the newest."""

    name: str
    prefix: str | None

    def __str__(self) -> str:
        version = "" if self.prefix is None else f"@{self.prefix}"
        return f"{SCHEME}{self.name}{version}"


def parse(value: str) -> Reference | None:
    """The reference that ``value`` is; ``None`` if it is none (a path, a hub id). Raises ``InvalidRequestError``."""
    if not value.startswith(SCHEME):
        return None
    name, separator, prefix = value.removeprefix(SCHEME).partition("@")
    if not NAME.fullmatch(name):
        raise InvalidRequestError(
            f"{value[:120]!r} names no dataset; write {SCHEME}NAME, or {SCHEME}NAME@HASH for one version.",
            code="invalid_reference",
        )
    return Reference(name, check_prefix(prefix) if separator else None)


def file_id(value: str) -> str | None:
    """The id of the file that ``value`` refers to; ``None`` if it is no such reference. Raises ``InvalidRequestError``."""
    if not value.startswith(FILE_SCHEME):
        return None
    found = value.removeprefix(FILE_SCHEME)
    if not files.is_id(found):
        raise InvalidRequestError(
            f"{value[:120]!r} names no file; write {FILE_SCHEME}{files.PREFIX}… as `finetune files` lists them.",
            code="invalid_reference",
        )
    return found


def check_name(name: str) -> str:
    """The name, if a dataset can have it. Raises ``InvalidRequestError``."""
    if not NAME.fullmatch(name) or name in TAKEN:
        raise InvalidRequestError(
            f"name: {name[:120]!r} cannot be a dataset's name; use up to 96 letters, digits, dots, dashes and"
            " underscores, the first of them a letter or digit, and not a word of the API's own"
            f" ({', '.join(sorted(TAKEN))}).",
            param="name",
            code="invalid_name",
        )
    return name


def check_prefix(prefix: str) -> str:
    """The beginning of a version, in lower case. Raises ``InvalidRequestError``."""
    if not PREFIX.fullmatch(prefix.lower()):
        raise InvalidRequestError(
            f"{prefix[:80]!r} is no version; give at least {SHORTEST_PREFIX} digits of its SHA-256 in hexadecimal.",
            param="version",
            code="invalid_version",
        )
    return prefix.lower()


def dataset(datasets: Mapping[str, Dataset], name: str) -> Dataset:
    """The dataset of that name. Raises ``NotFoundError`` with the nearest name."""
    found = datasets.get(name)
    if found is None:
        raise NotFoundError(
            f"There is no dataset {name[:120]!r}.{nearest(name, datasets)} `finetune datasets` lists them.",
            param="name",
        )
    return found


def version(found: Dataset, prefix: str | None) -> DatasetVersion:
    """The newest version, or the one that begins with ``prefix``. Raises ``NotFoundError`` or ``InvalidRequestError``."""
    if prefix is None:
        return found.newest
    matching = [each for each in found.versions if each.version.startswith(prefix)]
    if not matching:
        newest_first = [each.version[:12] for each in reversed(found.versions)]
        listed = ", ".join(newest_first[:5]) + (", …" if len(newest_first) > 5 else "")
        raise NotFoundError(
            f"The dataset {found.name} has no version {prefix!r}; it has {listed}.", param="version"
        )
    if len(matching) > 1:
        raise InvalidRequestError(
            f"{prefix!r} begins {len(matching)} versions of the dataset {found.name}; give more digits.",
            param="version",
            code="ambiguous_version",
        )
    return matching[0]


def resolve(datasets: Mapping[str, Dataset], reference: Reference) -> DatasetVersion:
    """The version that a reference means. Raises ``NotFoundError`` or ``InvalidRequestError``."""
    return version(dataset(datasets, reference.name), reference.prefix)
