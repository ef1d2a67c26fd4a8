"""Tokenized prompts as a ``datasets.Dataset`` that is mapped from a file, not held in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetuned_opd.params import OPDParams
from finetuned_opd.prompts import TokenizedQuestion
from finetuned_opd.scored_rows import ScoredRow
from finetuned_sdk import BadDatasetError, JobError, RowProblem
from finetuned_training import arrow_file, dataset

if TYPE_CHECKING:
    import datasets

Columns = tuple[list[int], list[int] | None]


def of_questions(
    rows: Iterable[TokenizedQuestion | RowProblem], file: Path, params: OPDParams, *, source: str
) -> datasets.Dataset:
    """Write the prompts that have room for an answer, and their answers cut to it, to an Arrow ``file`` and map it.

    Raises ``BadDatasetError`` at the first bad row, or if no row is left.
    """
    import pyarrow as pa

    ids = pa.list_(pa.int32())
    found = arrow_file.write(_with_room(rows, params, source), {"prompt_ids": ids, "answer_ids": ids}, file)
    return _or_refused(found, source, params)


def _or_refused(found: datasets.Dataset | None, source: str, params: OPDParams) -> datasets.Dataset:
    if found is None:
        raise BadDatasetError(
            source,
            [RowProblem(1, "no prompt leaves room for an answer")],
            remedy=f"Raise max_length ({params.max_length}), or lower max_completion_length.",
        )
    return found


def of_scored(rows: Iterable[ScoredRow], file: Path, params: OPDParams, *, source: str) -> datasets.Dataset:
    """Write rows that bring their teacher's scores to an Arrow ``file`` and map it; the scores stay where they are.

    Raises what :func:`finetuned_opd.scored_rows.read` does, and ``BadDatasetError`` if no row has room.
    """
    import pyarrow as pa

    ids = pa.list_(pa.int32())
    columns = {"prompt_ids": ids, "answer_ids": ids, "sampler_log_probs": pa.list_(pa.float32())}
    whole = (
        (each.row.prompt, each.row.completion, each.sampler_log_probs)
        for each in rows
        if fits(each.row.prompt, each.row.completion, params)
    )
    return _or_refused(arrow_file.write(whole, columns, file), source, params)


def scored_file(path: str, split: str) -> Path:
    """The one file that the scores are in. Raises ``JobError`` if there are several, or another kind of file."""
    found = dataset.files(path, split)
    if len(found) != 1 or found[0].suffix.lower() not in {".jsonl", ".ndjson"}:
        raise JobError(
            f"{path} is not one .jsonl file; put the scored rows into one.", code="dataset_unsupported"
        )
    return found[0]


def fits(prompt_ids: Sequence[int], answer_ids: Sequence[int] | None, params: OPDParams) -> bool:
    """Whether there is a prompt, with room behind it: for any answer, or where none is sampled for the one it has."""
    room = len(answer_ids or ()) if params.precomputed_scores else params.max_completion_length
    return 0 < len(prompt_ids) <= params.max_length - room


def answer_of(question: TokenizedQuestion, params: OPDParams) -> list[int] | None:
    """The row's answer, cut to what the student may answer unless it was scored as it is; ``None`` if it has none."""
    longest = None if params.precomputed_scores else params.new_tokens
    return question.answer_ids[:longest] if question.answer_ids else None


def _with_room(
    rows: Iterable[TokenizedQuestion | RowProblem], params: OPDParams, source: str
) -> Iterator[Columns]:
    for row in rows:
        if isinstance(row, RowProblem):
            raise BadDatasetError(source, [row], remedy="Correct the row and submit the job again.")
        answer = answer_of(row, params)
        if fits(row.prompt_ids, answer, params) and (answer or params.lmbda > 0):
            yield row.prompt_ids, answer
