"""Which datasets a job's request uses: references among its parameters, resolved once and for all its attempts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from finetuned.datasets import file, references
from finetuned.datasets.references import Reference
from finetuned.domain.errors import InvalidRequestError, NotFoundError
from finetuned.domain.registers import Dataset, DatasetVersion

Json = Any


class UsedDatasets:
    """Collects them. ``known`` are the datasets there are, ``pinned`` what an earlier job used that this one repeats.

    Files that stayed where they were are looked at: ``roots`` are those beneath which they may hold links.
    """

    def __init__(
        self,
        known: Mapping[str, Dataset],
        pinned: Mapping[str, Mapping[str, Json]],
        roots: tuple[Path, ...] = (),
    ) -> None:
        self._known = known
        self._roots = roots
        self._pinned = pinned
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
            try:
                reference = references.parse(value)
                version = None if reference is None else self._version(reference, f"{key}{name}")
            except (InvalidRequestError, NotFoundError) as error:
                code = "dataset_not_found" if isinstance(error, NotFoundError) else error.stable_code
                raise InvalidRequestError(
                    f"{where}{name}: {error.message}", param=f"{where}{name}", code=code
                ) from None
            if reference is not None and version is not None:
                if version.source != "upload":
                    file.check(Path(version.path), version.bytes, self._roots, file.recorded(version))
                self.files[value] = Path(version.path)
                self.found[f"{key}{name}"] = {
                    "name": reference.name,
                    "version": version.version,
                    "path": version.path,
                }

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
