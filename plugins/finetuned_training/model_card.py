"""README.md of the result: what it is, what it came from, and how it was trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes", "tokenizers")


class Method(NamedTuple):
    """How a model was trained: in words, and as a tag."""

    words: str
    tag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where a model comes from. ``dataset_sha256`` is ``None`` for hub datasets."""

    job_id: str
    base_model: str
    adapter: str | None
    method: str
    dataset: str
    dataset_sha256: str | None
    dataset_rows: int
    params: Mapping[str, Any]
    libraries: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """The lineage as JSON-ready data."""
        return {name: getattr(self, name) for name in self.__slots__} | {
            "params": dict(self.params),
            "libraries": dict(self.libraries),
        }


def installed_libraries() -> dict[str, str]:
    """The versions of the libraries that take part in a training."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def render(name: str, kind: str, how: Method, lineage: Lineage, figures: Mapping[str, float | None]) -> str:
    """The card, with the metadata header that the hub and peft read. ``kind``: adapter, full or merged."""
    header = [f"base_model: {json.dumps(lineage.base_model)}", f"tags: [finetuned, {how.tag}, trl]"]
    if kind == "adapter":
        header.append("library_name: peft")
    else:
        header.append("library_name: transformers")
    result = "\n".join(f"| {key} | {value:.6g} |" for key, value in figures.items() if value is not None)
    libraries = "\n".join(f"| {key} | {value} |" for key, value in lineage.libraries.items())
    origin = f"{lineage.base_model}" + (
        f", going on from the adapter {lineage.adapter}" if lineage.adapter else ""
    )
    params = json.dumps(dict(lineage.params), indent=2, sort_keys=True)
    return f"""---
{chr(10).join(header)}
---

# {name}

Trained by {how.words} ({lineage.method}) of {origin}.

| lineage | |
| --- | --- |
| job | {lineage.job_id} |
| base model | {lineage.base_model} |
| earlier adapter | {lineage.adapter or "none"} |
| dataset | {lineage.dataset} |
| dataset SHA-256 | {lineage.dataset_sha256 or "not known (hub dataset)"} |
| training rows | {lineage.dataset_rows} |

| figure | value |
| --- | --- |
{result}

## Parameters

```json
{params}
```

| library | version |
| --- | --- |
{libraries}
"""
