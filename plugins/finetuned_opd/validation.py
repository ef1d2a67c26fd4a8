"""Validation: every prompt is read and rendered, and the teacher's vocabulary compared, before the job may have a device.

Needs no torch. Bad rows end the job with their numbers; what can be trained on is audited.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from finetuned_opd import prepared, prompts, scored_rows, vocabulary
from finetuned_opd.params import OPDParams
from finetuned_opd.prepared import answer_of, fits
from finetuned_opd.prompts import FormatName, TokenizedQuestion
from finetuned_sdk import AuditReport, BadDatasetError, JobError, RowProblem, WorkerContext
from finetuned_training import chat, checks, row_forms, trained_data
from finetuned_training.row_forms import PROBLEMS_KEPT, REMEDY

MANY_LEFT_OUT = 0.05  # share of prompts; from here on the job gets advice
MANY_DUPLICATES = 0.1


def validate(ctx: WorkerContext, params: OPDParams) -> None:
    """Read every row of the job's datasets. Raises ``BadDatasetError`` or ``JobError``, else reports an audit.

    Returns early, with nothing reported, when asked to stop.
    """
    checks.refuse_remote_code(ctx, params)
    ctx.phase("validating")
    if params.teacher is not None:
        names = (ctx.model_path(name) for name in ("model", "teacher"))
        vocabulary.require_same(*map(vocabulary.read, map(Path, names)), full=params.compares_all)
    tokenizer = chat.load_tokenizer(ctx.model_path("model"), params)
    trained = _audit(ctx, params, tokenizer, "dataset", params.dataset_split, frozenset())
    if trained is not None and params.eval_dataset is not None:
        _audit(ctx, params, tokenizer, "eval_dataset", "test", trained.hashes)


def detect_format(path: str, split: str) -> FormatName:
    """The form of a dataset by its first readable row. Raises ``BadDatasetError`` if it looks like none."""
    return row_forms.detect(path, split, prompts.detect, prompts.KEYS)


@dataclass
class Tally:
    """What has been counted of a dataset. Lengths are tokens."""

    params: OPDParams
    rows: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    longest: int = 0
    without_room: list[int] = field(default_factory=list)  # rows whose prompts leave none for an answer
    without_room_total: int = 0
    unanswered: list[int] = field(default_factory=list)
    unanswered_total: int = 0
    cut: int = 0
    duplicates: int = 0
    leaked: int = 0
    hashes: set[int] = field(default_factory=set)

    def add(self, row: TokenizedQuestion, elsewhere: frozenset[int] | set[int]) -> None:
        """Count one row; ``elsewhere`` are the hashes of the prompts that are trained on."""
        answer = answer_of(row, self.params)
        self.rows += 1
        self.prompt_tokens += len(row.prompt_ids)
        self.answer_tokens += len(answer or ())
        self.longest = max(self.longest, len(row.prompt_ids))
        self.cut += len(row.answer_ids or ()) > len(answer or ())
        if not fits(row.prompt_ids, answer, self.params):
            self.without_room_total += 1
            if len(self.without_room) < PROBLEMS_KEPT:
                self.without_room.append(row.number)
        if not answer:
            self.unanswered_total += 1
            if len(self.unanswered) < PROBLEMS_KEPT:
                self.unanswered.append(row.number)
        key = hash(tuple(row.prompt_ids))
        self.duplicates += key in self.hashes
        self.leaked += key in elsewhere
        self.hashes.add(key)


def _audit(
    ctx: WorkerContext,
    params: OPDParams,
    tokenizer: chat.Tokenizer,
    param: str,
    split: str,
    trained: frozenset[int] | set[int],
) -> Tally | None:
    """What ``param`` names, counted and reported; ``None`` if the job was asked to stop meanwhile."""
    path = ctx.dataset_path(param)
    digest = trained_data.sha256(ctx, param, split)
    form: FormatName = (
        "scored" if params.precomputed_scores else params.dataset_format or detect_format(path, split)
    )
    rows: Iterable[TokenizedQuestion | RowProblem]
    if params.precomputed_scores:
        rows = _scored(ctx, params, path, split)
    else:
        as_chat = prompts.renders_strings(params.apply_chat_template, form, tokenizer, params.model)
        rows = prompts.tokenized_questions(path, split, form, tokenizer, as_chat=as_chat)
    tally = Tally(params)
    if not row_forms.walk(ctx, rows, path, partial(tally.add, elsewhere=trained)):
        return None
    _require_usable(tally, path, params, split_off=param == "dataset")
    warnings = _warnings(params, tally, held_out=param == "eval_dataset")
    ctx.audit(
        AuditReport(
            dataset=getattr(params, param),
            format=form,
            rows=tally.rows,
            tokens=tally.prompt_tokens + tally.answer_tokens,
            masked_fraction=tally.prompt_tokens / (tally.prompt_tokens + tally.answer_tokens),
            truncated_rows=tally.cut,
            unanswered_rows=tally.without_room_total,
            max_tokens=tally.longest,
            sha256=digest,
            warnings=tuple(warnings.values()),
            extra={
                "param": param,
                "rows_with_answer": tally.rows - tally.unanswered_total,
                "duplicate_rows": tally.duplicates,
                "leaked_rows": tally.leaked,
                "mean_prompt_tokens": round(tally.prompt_tokens / tally.rows, 1),
            },
        )
    )
    for setting, message in warnings.items():
        ctx.advice(setting, message)
    return tally


def _scored(ctx: WorkerContext, params: OPDParams, path: str, split: str) -> Iterator[TokenizedQuestion]:
    """Rows that bring their teacher's scores; :func:`finetuned_opd.scored_rows.read` names what is wrong with them."""
    student = vocabulary.read(Path(ctx.model_path("model")))
    file = str(prepared.scored_file(path, split))
    found = scored_rows.read(file, split, vocab_size=student.size)
    for number, scored in enumerate(found, start=1):
        _require_scores(scored, params, number, file)
        yield TokenizedQuestion(number, list(scored.row.prompt), list(scored.row.completion))


def _require_scores(scored: scored_rows.ScoredRow, params: OPDParams, number: int, path: str) -> None:
    """Raise ``BadDatasetError`` if the row lacks scores that the loss needs."""
    lacks = remedy = None
    if params.samples_token_alone and scored.sampler_log_probs is None:
        lacks = "it has no sampler_log_probs, which the policy gradient and k2 and k3 need"
        remedy = "Write down what the sampler gave each token, or compare the teacher's likeliest tokens."
    elif params.samples_token_alone and params.kl_weight < 1 and not scored.top_k:
        lacks = (
            "it has no teacher_top_ids, and with kl_weight below 1 the teacher's likeliest token is learned"
        )
        remedy = "Score the rows again with them, or drop kl_weight."
    elif scored.top_k < (params.compared_tokens or 0):
        lacks = f"it has {scored.top_k} teacher_top_ids a token, and {params.compared_tokens} are compared (top_k)"
        remedy = f"Set top_k={scored.top_k}, or score" if scored.top_k else "Score"
        remedy += " the rows again with more."
    if lacks is not None:
        raise BadDatasetError(path, [RowProblem(number, lacks)], remedy=remedy or REMEDY)


def _require_usable(tally: Tally, path: str, params: OPDParams, *, split_off: bool) -> None:
    room = params.max_length - params.max_completion_length
    if tally.without_room_total == tally.rows and params.precomputed_scores:
        raise BadDatasetError(
            path,
            [RowProblem(number, "it is longer than max_length") for number in tally.without_room],
            total=tally.without_room_total,
            remedy=f"Raise max_length ({params.max_length}).",
        )
    if tally.without_room_total == tally.rows:
        raise BadDatasetError(
            path,
            [RowProblem(number, "its prompt leaves no room for an answer") for number in tally.without_room],
            total=tally.without_room_total,
            remedy=f"Raise max_length ({params.max_length}) or lower max_completion_length "
            f"({params.max_completion_length}): prompts may have {room} tokens, the longest has {tally.longest}.",
        )
    if params.lmbda == 0 and tally.unanswered_total == tally.rows:
        raise BadDatasetError(
            path,
            [RowProblem(number, "it has no answer") for number in tally.unanswered],
            total=tally.unanswered_total,
            remedy="With lmbda=0 the student answers nothing itself: add answers, or raise lmbda.",
        )
    kept = tally.rows - tally.without_room_total
    if split_off and params.eval_split > 0 and round(kept * (1 - params.eval_split)) < 1:
        raise JobError(
            f"eval_split={params.eval_split} of {kept} prompts leaves none to train on; lower it, or add rows.",
            code="bad_dataset",
        )


def _warnings(params: OPDParams, tally: Tally, *, held_out: bool) -> dict[str, str]:
    """What to look at before the training: the settings to change, each with the reason."""
    rows, found = tally.rows, {}
    if tally.without_room_total and params.precomputed_scores:
        found["max_length"] = (
            f"{tally.without_room_total} of {rows} rows are longer than max_length={params.max_length} and are left out."
        )
    elif tally.without_room_total > MANY_LEFT_OUT * rows:
        found["max_length"] = (
            f"{tally.without_room_total} of {rows} prompts leave no room for {params.max_completion_length} tokens "
            f"within max_length={params.max_length} and are left out; the longest has {tally.longest} tokens."
        )
    if tally.unanswered_total and not held_out and params.lmbda < 1:
        what = "left out" if params.lmbda == 0 else "answered by the student"
        found["lmbda"] = f"{tally.unanswered_total} of {rows} rows have no answer, and are {what}."
    if tally.leaked:
        found["eval_dataset"] = (
            f"{tally.leaked} of {rows} held-out prompts are trained on as well, so the figures say less than they seem."
        )
    if tally.duplicates > MANY_DUPLICATES * rows:
        found["dataset"] = f"{tally.duplicates} of {rows} prompts are the same as an earlier one."
    step_rows = params.rows_a_step
    if rows < step_rows and not held_out:
        found["gradient_accumulation_steps"] = (
            f"There are {rows} prompts, fewer than one optimizer step takes ({step_rows}); lower "
            "gradient_accumulation_steps or per_device_train_batch_size."
        )
    return found
