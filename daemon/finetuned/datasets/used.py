"""Which datasets and files a job's request uses: references among its parameters, resolved once and for all its attempts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetuned.datasets import file, references
from finetuned.datasets.references import Reference
from finetuned.domain.errors import InvalidRequestError, NotFoundError, Rejected
from finetuned.domain.files import NONE, Known, unreadable
from finetuned.domain.registers import Dataset, DatasetVersion

Json = Any


@dataclass(frozen=True, slots=True)
class _Found:
    name: str
    version: str
    path: str


class UsedDatasets:
    """Collects them. ``known`` are the datasets there are, ``pinned`` what an earlier job used that this one repeats.

    ``uploaded`` are the files there are. Files that stayed where they were are looked at: ``roots`` are those beneath
    which they may hold links.
    """

    def __init__(
        self,
        known: Mapping[str, Dataset],
        pinned: Mapping[str, Mapping[str, Json]],
        roots: tuple[Path, ...] = (),
        uploaded: Known = NONE,
    ) -> None:
        self._known = known
        self._roots = roots
        self._pinned = pinned
        self._uploaded = uploaded
        self.found: dict[str, dict[str, str]] = {}  #: name, version and path by parameter
        self.files: dict[str, Path] = {}  #: by reference, as it was written

    def take(self, params: Any, names: Iterable[str], *, key: str, where: str) -> None:
        """Resolve the references in the attributes ``names`` of ``params``.

        They are kept under their names after ``key``; a refusal names the parameter after ``where``. Blocks. Raises
        ``InvalidRequestError``, or ``Rejected`` if a file is not what was registered.
        """
        for name in names:
            value = getattr(params, name, None)
            if not isinstance(value, str):
                continue
            found = self._resolved(value, key=f"{key}{name}", where=f"{where}{name}")
            if found is not None:
                self.files[value] = Path(found.path)
                self.found[f"{key}{name}"] = {
                    "name": found.name,
                    "version": found.version,
                    "path": found.path,
                }

    def _resolved(self, value: str, *, key: str, where: str) -> _Found | None:
        """What the value refers to; ``None`` if it is no reference."""
        try:
            file_id = references.file_id(value)
            if file_id is not None:
                return self._file(file_id, key)
            reference = references.parse(value)
            version = None if reference is None else self._version(reference, key)
        except (InvalidRequestError, NotFoundError) as error:
            code = "dataset_not_found" if error.stable_code == NotFoundError.code else error.stable_code
            raise InvalidRequestError(f"{where}: {error.message}", param=where, code=code) from None
        if reference is None or version is None:
            return None
        if version.source != "upload":
            file.check(Path(version.path), version.bytes, self._roots, file.recorded(version))
        return _Found(reference.name, version.version, version.path)

    def _file(self, file_id: str, key: str) -> _Found:
        """A file whose content is there. What a job made has no hash yet: it is read through."""
        found = self._uploaded.find(file_id)
        path = Path(found.path)
        try:
            with file.opened(path, found.bytes, (path.parent,)) as content:
                version = found.sha256 or hashlib.file_digest(content, "sha256").hexdigest()
        except Rejected as error:
            raise unreadable(error) from None
        pinned = self._pinned.get(key)
        if pinned is not None and pinned["name"] == file_id and pinned["version"] != version:
            raise Rejected(
                "dataset_changed",
                f"The file {file_id} is not what the job was given; upload it again and submit a new job for it.",
            )
        return _Found(file_id, version, found.path)

    def _version(self, reference: Reference, key: str) -> DatasetVersion:
        pinned = self._pinned.get(key)
        if pinned is None or pinned["name"] != reference.name:
            return references.resolve(self._known, reference)
        try:
            # What the earlier job was given, whatever the name means by now.
            return references.resolve(self._known, Reference(reference.name, pinned["version"]))
        except NotFoundError:
            raise NotFoundError(
                f"The version {pinned['version'][:12]} of {reference.name} that the job used is gone; upload it again,"
                " or submit a new job for the present one."
            ) from None
