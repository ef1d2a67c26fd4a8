"""Which of a trainer's forms the rows of a dataset have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from finetuned_sdk import BadDatasetError, RowProblem
from finetuned_training import dataset
from finetuned_training.conversations import Row

PROBLEMS_KEPT = 100
REMEDY = "Correct these rows and submit the job again."

Form = TypeVar("Form", bound=str)


def detect(
    path: str, split: str, detect_one: Callable[[Row], Form | None], known: Mapping[Form, str]
) -> Form:
    """The form of the first readable row. Raises ``BadDatasetError`` if it looks like none of the ``known``.

    ``detect_one`` says it of a row, ``known`` describes each form for people.
    """
    problems = []
    for item in dataset.read_rows(path, split):
        if isinstance(item, RowProblem):
            problems.append(item)
            if len(problems) < PROBLEMS_KEPT:
                continue
            break
        form = detect_one(item.data)
        if form is not None:
            return form
        keys = ", ".join(f'"{key}"' for key in item.data) or "no keys"
        forms = "; ".join(f"{name} ({keys})" for name, keys in known.items())
        raise BadDatasetError(
            path,
            [item.problem(f"has {keys}")],
            remedy=f"Use one of these forms, or name it with dataset_format: {forms}.",
        )
    if problems:
        raise BadDatasetError(path, problems, remedy=REMEDY)
    raise BadDatasetError(path, [RowProblem(1, "there are no rows")], remedy="Add rows.")
