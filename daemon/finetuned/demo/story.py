"""What the demo's jobs show: figures before and after, and answers before and after. Pure but for reading."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetuned.wire import Job

Json = Any

EVALUATION = "validation"  # of answers that the model writes
HELD_OUT = "eval"  # of the loss and what comes with it
UNKNOWN = "The job recorded no figures before and after its training: what it learned is not known."
SAMPLES_KIND = "validation_samples"

AIM = "exact_match"  # the metric that must rise

#: What is said of a metric.
METRICS = {
    "exact_match": "orders that are right in every field",
    "field_accuracy": "fields that are right",
    "valid_json": "answers that are valid JSON",
}


#: What is said of a figure of held-out pairs, and whether it is a share.
PAIR_FIGURES = {
    "eval_rewards/accuracies": ("pairs whose right answer gained on the wrong one", True),
    "eval_rewards/margins": ("reward margin (beta x nats)", False),
    "eval_logps/accuracies": ("pairs whose right answer is the likelier one", True),
}
#: what is said of a distance from the teacher on held-out prompts; the first has to fall
TEACHER_FIGURES = {
    "eval_kl_reverse": "distance from the teacher (reverse KL, nats a token)",
    "eval_token_agreement": "tokens that both find the likeliest",
}
CHANCE = 0.5  # of a pair's right answer gaining on the wrong one in a training that teaches nothing


@dataclass(frozen=True, slots=True)
class Change:
    """A figure before the first step and after the last; a share from 0 to 1 unless it is said not to be one.

    It is better when it is higher, or, of what ``falls``, lower.
    """

    what: str
    before: float
    after: float
    is_share: bool = True
    falls: bool = False

    @property
    def is_better(self) -> bool:
        """Whether it went where it should."""
        return self.after < self.before if self.falls else self.after > self.before


@dataclass(frozen=True, slots=True)
class Sample:
    """One held-out row and the model's answers to it."""

    prompt: str
    expected: str
    before: str
    after: str


def of_validations(job: Job) -> list[Change]:
    """The figures of the first and of the last validation; empty unless there are two."""
    first, last = _ends(job, EVALUATION)
    return [
        Change(text, first[name], last[name])
        for name, text in METRICS.items()
        if name in first and name in last
    ]


def of_held_out_pairs(job: Job) -> list[Change]:
    """The figures of held-out pairs before the first step and after the last; empty unless there are both."""
    first, last = _ends(job, HELD_OUT)
    return [
        Change(text, first[name], last[name], is_share)
        for name, (text, is_share) in PAIR_FIGURES.items()
        if name in first and name in last
    ]


def of_the_teacher(job: Job) -> list[Change]:
    """How far the student was from its teacher before the first step and after the last; empty unless there are both."""
    first, last = _ends(job, HELD_OUT)
    return [
        Change(
            text,
            first[name],
            last[name],
            is_share=not name.startswith("eval_kl"),
            falls=name.startswith("eval_kl"),
        )
        for name, text in TEACHER_FIGURES.items()
        if name in first and name in last
    ]


def lesson_of_the_teacher(found: Sequence[Change]) -> str | None:
    """Why these figures do not show that the student came nearer to its teacher; ``None`` if they do."""
    if len(found) < len(TEACHER_FIGURES):
        return UNKNOWN
    worse = next((each for each in found if not each.is_better), None)
    if worse is None:
        return None
    return f"The student came no nearer to its teacher: {worse.what} went from {worse.before:.2f} to {worse.after:.2f}."


def _ends(job: Job, evaluation: str) -> tuple[dict[str, float], dict[str, float]]:
    """The metrics of the first and of the last evaluation of that name; nothing unless there are two."""
    found = [each["metrics"] for each in job["evaluations"] if each["name"] == evaluation]
    return (found[0], found[-1]) if len(found) > 1 else ({}, {})


def lesson_of_held_out_pairs(found: Sequence[Change]) -> str | None:
    """Why these figures do not show that the model learned to prefer; ``None`` if they do."""
    accuracy, margin = (
        next((each for each in found if each.what == PAIR_FIGURES[name][0]), None)
        for name in ("eval_rewards/accuracies", "eval_rewards/margins")
    )
    if accuracy is None or margin is None:
        return UNKNOWN
    if accuracy.after <= CHANCE or margin.after <= margin.before:
        return (
            f"The model did not learn to prefer: {accuracy.after:.0%} of the {accuracy.what}, and the margin went from "
            f"{margin.before:.2f} to {margin.after:.2f}."
        )
    return None


def lesson_of_validations(found: Sequence[Change]) -> str | None:
    """Why these figures do not show that the model learned; ``None`` if they do."""
    aim = next((each for each in found if each.what == METRICS[AIM]), None)
    if aim is None:
        return UNKNOWN
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
