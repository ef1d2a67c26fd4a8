"""What jobs read, leave and are made from, as tables: datasets, templates, checkpoints, artifacts, lineage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.table import Table
from rich.text import Text

from finetuned.cli import units
from finetuned.cli.tables import table
from finetuned.cli.timeline import figures
from finetuned.wire import (
    Artifact,
    ArtifactFile,
    CheckedCheckpoint,
    Dataset,
    DatasetAudit,
    DatasetVersion,
    Lineage,
    LineageModel,
    Template,
)

SHORT_VERSION = 12  # digits


def checkpoints(listed: Iterable[CheckedCheckpoint]) -> Table:
    """Checkpoints, oldest first, and how good their files are."""
    shown = table("STEP", "ID", "SIZE", "SAVED", "STATE", "FIGURES", right=("STEP", "SIZE"))
    for each in listed:
        shown.add_row(
            str(each["step"]),
            each["id"],
            units.size(each["bytes"]),
            units.local(each["created_at"]),
            _validity(each),
            Text(figures(each["metrics"])),
        )
    return shown


def _validity(checkpoint: CheckedCheckpoint) -> Text:
    if checkpoint["problem"] is not None:
        return Text(f"damaged: {checkpoint['problem']}", style="red")
    next_one = ", goes on here" if checkpoint["resumes"] else ""
    return Text(f"{checkpoint['validity']}{next_one}", style="green" if next_one else "")


def artifacts(listed: Iterable[Artifact]) -> Table:
    """Artifacts in the order of their publication."""
    shown = table("NAME", "KIND", "ATTEMPT", "SIZE", "PUBLISHED", "PATH", right=("SIZE",))
    for each in listed:
        shown.add_row(
            each["name"],
            each["kind"],
            str(each["attempt"]),
            units.size(each["bytes"]),
            units.local(each["created_at"]),
            each["path"],
        )
    return shown


def files(listed: Iterable[ArtifactFile]) -> Table:
    """The files of an artifact."""
    shown = table("PATH", "SIZE", "CRC-32", right=("SIZE",))
    for each in listed:
        shown.add_row(each["path"], units.size(each["bytes"]), f"{each['crc32']:08x}")
    return shown


def datasets(listed: Iterable[Dataset]) -> Table:
    """Datasets by name, with their newest versions."""
    shown = table(
        "NAME", "VERSION", "FORMAT", "ROWS", "SIZE", "VERSIONS", "CREATED", right=("ROWS", "SIZE", "VERSIONS")
    )
    for each in listed:
        shown.add_row(
            each["id"],
            each["version"][:SHORT_VERSION],
            each["format"],
            units.NOTHING if each["rows"] is None else str(each["rows"]),
            units.size(each["bytes"]),
            str(len(each["versions"])),
            units.local(each["created_at"]),
        )
    return shown


def versions(listed: Iterable[DatasetVersion]) -> Table:
    """The versions of a dataset, newest first."""
    shown = table(
        "VERSION", "FORMAT", "ROWS", "SIZE", "FROM", "CREATED", "BY", "PATH", right=("ROWS", "SIZE")
    )
    for each in listed:
        shown.add_row(
            each["version"][:SHORT_VERSION],
            each["format"],
            units.NOTHING if each["rows"] is None else str(each["rows"]),
            units.size(each["bytes"]),
            each["source"],
            units.local(each["created_at"]),
            each["created_by"],
            each["path"],
        )
    return shown


def audits(listed: Iterable[DatasetAudit]) -> Table:
    """What jobs found in a dataset, newest first."""
    shown = table("JOB", "VERSION", "WHEN", "ROWS", "CUT", "WARNINGS", right=("ROWS", "CUT"))
    for each in listed:
        report = each["report"]
        shown.add_row(
            each["job"],
            each["version"][:SHORT_VERSION],
            units.local(each["created_at"]),
            str(report.get("rows", units.NOTHING)),
            str(report.get("truncated_rows", units.NOTHING)),
            Text("; ".join(map(str, report.get("warnings") or ()))),
        )
    return shown


def templates(listed: Iterable[Template]) -> Table:
    """Templates by name."""
    shown = table("NAME", "VERSION", "KIND", "DESCRIPTION", "SAVED", "BY")
    for each in listed:
        shown.add_row(
            each["name"],
            str(each["version"]),
            str(each["request"].get("kind") or units.NOTHING),
            Text(each["description"] or ""),
            units.local(each["saved_at"]),
            each["saved_by"],
        )
    return shown


def lineage(found: Lineage) -> Iterator[Text]:
    """A model's ancestors, the farthest first, then itself, then what was made from it: each step a level deeper."""
    chain = [*reversed(found["bases"]), found["model"]]
    for depth, model in enumerate(chain):
        yield from _model(model, depth, own=model is found["model"])
    for derived in found["derived"]:
        by = f", by {derived['job']}" if derived["job"] else ""
        yield Text(f"{'  ' * len(chain)}└ {derived['name']} ({derived['kind']}{by})", style="dim")


def _model(model: LineageModel, depth: int, *, own: bool) -> Iterator[Text]:
    branch = "" if depth == 0 else "  " * (depth - 1) + "└ "
    kind = model["kind"] or ("not registered" if not model["registered"] else "")
    line = (
        Text(branch).append(model["name"], "bold" if own else "").append(f" ({kind})" if kind else "", "dim")
    )
    yield line
    job = model["job"]
    if job is None:
        return
    indent = "  " * depth + "  "
    state = f", {job['state']}" if job["state"] else ", deleted since"
    yield Text(f"{indent}by {job['id']} ({job['kind'] or 'of unknown kind'}{state})")
    for dataset in job["datasets"]:
        version = f"@{dataset['version'][:SHORT_VERSION]}" if dataset["version"] else ""
        yield Text(f"{indent}on {dataset['name']}{version}")
