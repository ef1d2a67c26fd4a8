"""What the demo's job shows: figures before and after, and answers before and after. Pure but for reading."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetuned.wire import Job

Json = Any

EVALUATION = "validation"
SAMPLES_KIND = "validation_samples"

AIM = "exact_match"  # the metric that must rise

#: What is said of a metric.
METRICS = {
    "exact_match": "orders that are right in every field",
    "field_accuracy": "fields that are right",
    "valid_json": "answers that are valid JSON",
}


@dataclass(frozen=True, slots=True)
class Change:
    """A figure before the first step and after the last; shares from 0 to 1."""

    what: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One held-out row and the model's answers to it."""

    prompt: str
    expected: str
    before: str
    after: str


def changes(job: Job) -> list[Change]:
    """The figures of the first and of the last validation; empty unless there are two."""
    found = [each["metrics"] for each in job["evaluations"] if each["name"] == EVALUATION]
    if len(found) < 2:
        return []
    first, last = found[0], found[-1]
    return [
        Change(text, first[name], last[name])
        for name, text in METRICS.items()
        if name in first and name in last
    ]


def lesson(found: Sequence[Change]) -> str | None:
    """Why these figures do not show that the model learned; ``None`` if they do."""
    aim = next((each for each in found if each.what == METRICS[AIM]), None)
    if aim is None:
        return "The job recorded no figures before and after its training: what it learned is not known."
    if aim.after <= aim.before:
        return (
            f"The model did not get better: {aim.before:.0%} of the {aim.what} before, {aim.after:.0%} after."
        )
    return None


def samples(job: Job, *, count: int) -> list[Sample]:
    """Rows whose answer became right, of unlike questions; else the first rows."""
    files = [Path(each["path"]) for each in job["artifacts"] if each["kind"] == SAMPLES_KIND]
    if len(files) < 2:
        return []
    pairs = list(zip(_read(files[0]), _read(files[-1]), strict=False))
    learned = [pair for pair in pairs if pair[1]["right"] and not pair[0]["right"]]
    return [
        Sample(before["prompt"], before["expected"], before["answer"], after["answer"])
        for before, after in spread(learned or pairs, count)
    ]


def spread(items: Sequence[Json], count: int) -> list[Json]:
    """``count`` of the items, evenly over all of them."""
    if len(items) <= count:
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]


def _read(path: Path) -> list[dict[str, Json]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
