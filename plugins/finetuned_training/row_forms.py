"""Which of a trainer's forms the rows of a dataset have, and a walk through all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from finetuned_sdk import BadDatasetError, RowProblem, WorkerContext
from finetuned_training import conversations, dataset

PROBLEMS_KEPT = 100
REMEDY = "Correct these rows and submit the job again."

Form = TypeVar("Form", bound=str)
Row = TypeVar("Row")


def detect(
    path: str, split: str, detect_one: Callable[[conversations.Row], Form | None], known: Mapping[Form, str]
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


def walk(ctx: WorkerContext, rows: Iterable[Row | RowProblem], path: str, add: Callable[[Row], None]) -> bool:
    """Hand each row to ``add``; whether it came to the end: ``False`` if the job was asked to stop meanwhile.

    Raises ``BadDatasetError`` that names the rows with a problem, once all were read, or if there is none.
    """
    problems, total, empty = list[RowProblem](), 0, True
    for item in rows:
        if ctx.stop_requested is not None:
            return False
        ctx.advancing()
        if not isinstance(item, RowProblem):
            add(item)
            empty = False
            continue
        total += 1
        if len(problems) < PROBLEMS_KEPT:
            problems.append(item)
    if problems:
        raise BadDatasetError(path, problems, total=total, remedy=REMEDY)
    if empty:
        raise BadDatasetError(path, [RowProblem(1, "there are no rows")], remedy="Add rows.")
    return True
