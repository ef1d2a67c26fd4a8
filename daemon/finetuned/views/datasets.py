"""How datasets look to the outside. Pure."""

from __future__ import annotations

from finetuned import wire
from finetuned.datasets.preview import Preview
from finetuned.datasets.references import SCHEME
from finetuned.domain.registers import Dataset, DatasetVersion
from finetuned.views import time


def dataset(each: Dataset) -> wire.Dataset:
    """A dataset with its versions, the newest first."""
    newest = each.newest
    return {
        "id": each.name,
        "object": "dataset",
        "reference": f"{SCHEME}{each.name}",
        "version": newest.version,
        "bytes": newest.bytes,
        "format": newest.format,
        "rows": newest.rows,
        "created_at": time(newest.created_at),
        "versions": [version(one) for one in reversed(each.versions)],
    }


def version(each: DatasetVersion) -> wire.DatasetVersion:
    """One content of a dataset."""
    return {
        "version": each.version,
        "path": each.path,
        "bytes": each.bytes,
        "format": each.format,
        "source": each.source,
        "rows": each.rows,
        "created_at": time(each.created_at),
        "created_by": each.created_by,
    }


def preview(name: str, of: DatasetVersion, page: Preview) -> wire.DatasetPreview:
    """A page of a version's rows."""
    return {
        "object": "dataset.preview",
        "id": name,
        "version": of.version,
        "format": of.format,
        "data": [
            {"row": row.number, "value": row.value, "cut": row.cut, "problem": row.problem}
            for row in page.rows
        ],
        "has_more": page.after is not None,
        "next_after": page.after,
    }


def audits(versions: list[DatasetVersion]) -> list[wire.DatasetAudit]:
    """What jobs found in these versions, the newest first."""
    found = [(audit, each.version) for each in versions for audit in each.audits]
    return [
        {
            "object": "dataset.audit",
            "job": audit["job"],
            "version": of,
            "created_at": time(audit["at"]),
            "report": audit["report"],
        }
        for audit, of in sorted(found, key=lambda each: each[0]["at"], reverse=True)
    ]
