"""Validation: every row is read, rendered and masked before the job may have a device. Needs no torch.

Bad rows end the job with their numbers. What can be trained on is audited: tokens, the share of them that is
masked, rows that are cut, rows that have no answer left.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from functools import partial

from finetuned_sdk import AuditReport, BadDatasetError, JobError, RowProblem, WorkerContext
from finetuned_sft import tokenization
from finetuned_sft.params import SFTParams
from finetuned_sft.tokenization import IGNORED, TokenizedRow
from finetuned_training import chat, checks, row_forms, supervised_rows, trained_data
from finetuned_training.supervised_rows import FormatName

MANY_CUT = 0.05  # share of rows; from here on the job gets advice
MANY_DUPLICATES = 0.1
PERCENTILES = (50, 90, 99, 100)


def validate(ctx: WorkerContext, params: SFTParams) -> None:
    """Read every row of the job's datasets. Raises ``BadDatasetError`` or ``JobError``, else reports an audit.

    Returns early, with nothing reported, when asked to stop.
    """
    checks.refuse_remote_code(ctx, params)
    ctx.phase("validating")
    tokenizer = chat.load_tokenizer(ctx.model_path("model"), params)
    seen = _audit_dataset(ctx, params, tokenizer, "dataset", params.dataset_split, None)
    if seen is not None and params.eval_dataset is not None:
        _audit_dataset(ctx, params, tokenizer, "eval_dataset", "test", seen)


def detect_format(path: str, split: str) -> FormatName:
    """The form of a dataset by its first readable row. Raises ``BadDatasetError`` if it looks like none."""
    return row_forms.detect(path, split, supervised_rows.detect, supervised_rows.KEYS)


@dataclass
class Tally:
    """What has been counted of a dataset."""

    max_length: int
    rows: int = 0
    tokens: int = 0
    learned: int = 0
    longest: int = 0
    truncated: int = 0
    unanswered: list[int] = field(default_factory=list)
    unanswered_total: int = 0
    seams_moved: int = 0
    untemplated: int = 0
    unstopped: int = 0
    duplicates: int = 0
    leaked: int = 0
    hashes: set[int] = field(default_factory=set)
    lengths: array[int] = field(default_factory=lambda: array("L"))

    def length_percentiles(self) -> dict[str, int]:
        """How many tokens rows have, before any cut: so many per cent of them have at most that many."""
        lengths = sorted(self.lengths)
        return {f"p{share}": lengths[math.ceil(share / 100 * len(lengths)) - 1] for share in PERCENTILES}

    def add(self, row: TokenizedRow, *, stops: frozenset[int], elsewhere: frozenset[int]) -> None:
        """Count one row; ``stops`` are the tokens that end an answer, ``elsewhere`` the training rows' hashes."""
        length = len(row.input_ids)
        labels = row.labels[: self.max_length]
        learned = sum(1 for label in labels if label != IGNORED)
        self.rows += 1
        self.lengths.append(length)
        self.tokens += len(labels)
        self.learned += learned
        self.longest = max(self.longest, length)
        self.truncated += length > self.max_length
        self.seams_moved += row.seam_moved
        self.untemplated += row.untemplated
        if not learned:
            self.unanswered_total += 1
            if len(self.unanswered) < row_forms.PROBLEMS_KEPT:
                self.unanswered.append(row.number)
        elif stops and length <= self.max_length:
            self.unstopped += not stops.intersection(label for label in labels[-3:] if label != IGNORED)
        key = hash(tuple(row.input_ids))
        self.duplicates += key in self.hashes
        self.leaked += key in elsewhere
        self.hashes.add(key)


def _audit_dataset(
    ctx: WorkerContext,
    params: SFTParams,
    tokenizer: chat.Tokenizer,
    param: str,
    split: str,
    training: frozenset[int] | None,
) -> frozenset[int] | None:
    """The hashes of the rows that ``param`` names, or ``None`` if the job was asked to stop meanwhile."""
    path = ctx.dataset_path(param)
    digest = trained_data.sha256(ctx, param, split)
    form = params.dataset_format or detect_format(path, split)
    rule = tokenization.loss_rule(params, form, tokenizer)
    tally, stops, elsewhere = Tally(params.max_length), chat.stop_tokens(tokenizer), training or frozenset()
    rows = tokenization.tokenized_rows(path, split, rule, tokenizer)
    if not row_forms.walk(ctx, rows, path, partial(tally.add, stops=stops, elsewhere=elsewhere)):
        return None
    if tally.unanswered_total == tally.rows:
        raise BadDatasetError(
            path,
            [RowProblem(number, "no token to learn from is left") for number in tally.unanswered],
            total=tally.unanswered_total,
            remedy=f"Raise max_length ({params.max_length}; the longest row has {tally.longest} tokens).",
        )
    if training is None and params.eval_split > 0 and math.ceil(tally.rows * params.eval_split) >= tally.rows:
        raise JobError(
            f"eval_split={params.eval_split} of {tally.rows} rows leaves none to train on; lower it or add rows.",
            code="bad_dataset",
        )
    warnings = _warnings(params, tally, tokenizer, held_out=training is not None)
    ctx.audit(
        AuditReport(
            dataset=getattr(params, param),
            format=form,
            rows=tally.rows,
            tokens=tally.tokens,
            masked_fraction=1 - tally.learned / tally.tokens,
            truncated_rows=tally.truncated,
            unanswered_rows=tally.unanswered_total,
            max_tokens=tally.longest,
            sha256=digest,
            warnings=tuple(warnings.values()),
            extra={
                "duplicate_rows": tally.duplicates,
                "unstopped_rows": tally.unstopped,
                "length_percentiles": tally.length_percentiles(),
            },
        )
    )
    for setting, message in warnings.items():
        ctx.advice(setting, message)
    return frozenset(tally.hashes)


def _warnings(
    params: SFTParams, tally: Tally, tokenizer: chat.Tokenizer, *, held_out: bool
) -> dict[str, str]:
    """What to look at before the training: the settings to change, each with the reason."""
    rows, found = tally.rows, {}
    if tally.unanswered_total:
        found["max_length"] = (
            f"{tally.unanswered_total} of {rows} rows have no answer left within max_length={params.max_length} "
            f"and are left out; the longest row has {tally.longest} tokens."
        )
    elif tally.truncated > MANY_CUT * rows:
        found["max_length"] = (
            f"{tally.truncated} of {rows} rows are cut at max_length={params.max_length}, so the model does not "
            f"see their ends; the longest row has {tally.longest} tokens."
        )
    templated = chat.chat_template(tokenizer) is not None
    if templated and tally.untemplated and params.apply_chat_template is None and params.adapter is None:
        found["apply_chat_template"] = (
            "Plain prompts and completions are trained without the model's chat template; set "
            "apply_chat_template=true (or write messages) if the model will be used as a chat, else false."
        )
    if tally.unstopped > rows / 2:
        found["chat_template"] = (
            f"{tally.unstopped} of {rows} rows do not end in a stop token that is learned, so the model may not "
            "learn to stop; correct the model's chat template."
        )
    if tally.leaked:
        found["eval_dataset"] = (
            f"{tally.leaked} of {rows} held-out rows are trained on as well, so eval_loss says less than it seems."
        )
    if tally.seams_moved:
        found["dataset"] = (
            f"In {tally.seams_moved} of {rows} rows the prompt's last tokens change when the answer follows, so "
            "the model is trained on other prompts than it will be asked; end prompts without a space, or use "
            "messages."
        )
    elif tally.duplicates > MANY_DUPLICATES * rows:
        found["dataset"] = f"{tally.duplicates} of {rows} rows are the same as an earlier one."
    step_rows = params.rows_a_step
    if rows < step_rows and not params.packing and not held_out:
        found["gradient_accumulation_steps"] = (
            f"There are {rows} rows, fewer than one optimizer step takes ({step_rows}); lower "
            "gradient_accumulation_steps or per_device_train_batch_size."
        )
    return found
