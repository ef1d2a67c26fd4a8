"""The demo's trainings: what each is told, what of it is shown, and what it must have learned."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from finetuned.demo import preferences, story
from finetuned.demo.story import Change
from finetuned.wire import Job

Json = Any

DATA: Final = Path(__file__).parent / "data"
MODEL_NAME: Final = "smollm2"

#: the demo's jobs so far, by kind
Earlier = Mapping[str, Job]


@dataclass(frozen=True, slots=True)
class Stage:
    """A training. ``lesson`` says why its figures do not show that it learned; ``None`` if they do."""

    kind: str
    name: str
    heading: str
    parameters: Callable[[Earlier], dict[str, Json]]
    changes: Callable[[Job], list[Change]]
    lesson: Callable[[Sequence[Change]], str | None]
    note: str


def of_supervised(_earlier: Earlier) -> dict[str, Json]:
    """The model on the right answers; asked about held-out orders before and after."""
    recipe = _recipe()
    heldout = {"dataset": str(DATA / "orders-heldout.jsonl"), **recipe["validation"]}
    return {
        "model": MODEL_NAME,
        "dataset": str(DATA / "orders-train.jsonl"),
        **recipe["sft"],
        "callbacks": [{"name": "validation", "params": heldout}],
    }


def of_preferences(earlier: Earlier) -> dict[str, Json]:
    """From the adapter that the supervised training made: right answers over wrong ones."""
    return {
        "model": MODEL_NAME,
        "adapter": _made(earlier["sft"]),
        "dataset": str(preferences.file("train")),
        "eval_dataset": str(preferences.file("heldout")),
        **_recipe()["dpo"],
    }


def of_teacher(earlier: Earlier) -> dict[str, Json]:
    """A new adapter taught by the one that the supervised training made, on the orders without their answers."""
    return {
        "model": MODEL_NAME,
        "teacher": MODEL_NAME,
        "teacher_adapter": _made(earlier["sft"]),
        "dataset": str(DATA / "orders-train.jsonl"),
        "eval_dataset": str(DATA / "orders-heldout.jsonl"),
        **_recipe()["opd"],
    }


SUPERVISED: Final = Stage(
    kind="sft",
    name="bakery orders",
    heading="Training it on bakery orders, and asking it about held-out orders before and after",
    parameters=of_supervised,
    changes=story.of_validations,
    lesson=story.lesson_of_validations,
    note="These orders were looked at while the training rows were written: a development set.",
)
PREFERENCES: Final = Stage(
    kind="dpo",
    name="bakery preferences",
    heading="Going on from what came of that: right answers over wrong ones, by preference",
    parameters=of_preferences,
    changes=story.of_held_out_pairs,
    lesson=story.lesson_of_held_out_pairs,
    note="Before the first step the model is the one that it is compared with: rewards are 0 but for rounding.",
)

DISTILLATION: Final = Stage(
    kind="opd",
    name="bakery distillation",
    heading="Teaching the untrained model by the trained one: it answers itself, every token is judged, no right answer is shown",
    parameters=of_teacher,
    changes=story.of_the_teacher,
    lesson=story.lesson_of_the_teacher,
    note="Both figures are of what the student itself answers to held-out orders.",
)

#: what `finetune demo` does, and what `finetune demo --all` does; a further stage goes at the end of ALL
FIRST: Final = (SUPERVISED,)
ALL: Final = (SUPERVISED, PREFERENCES, DISTILLATION)


def _recipe() -> dict[str, dict[str, Json]]:
    recipe: dict[str, dict[str, Json]] = json.loads((DATA / "recipe.json").read_text(encoding="utf-8"))
    return recipe


def _made(job: Job) -> str:
    """The name of the model that a job registered."""
    return str((job["result"] or {})["model"])
