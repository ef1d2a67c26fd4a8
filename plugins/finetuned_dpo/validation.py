"""Validation: every pair is read, rendered and compared before the job may have a device. Needs no torch.

Bad rows end the job with their numbers. What can be trained on is audited: tokens, cut and undecided pairs, and whether
the preferred answers are simply the longer ones.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from finetuned_dpo import formats, tokenization
from finetuned_dpo.params import DPOParams, FormatName
from finetuned_dpo.prepared import differs
from finetuned_dpo.tokenization import TokenizedPair
from finetuned_sdk import AuditReport, BadDatasetError, JobError, RowProblem, WorkerContext
from finetuned_training import chat, checks, row_forms, trained_data
from finetuned_training.row_forms import PROBLEMS_KEPT

MANY_CUT = 0.05  # share of pairs; from here on the job gets advice
MANY_DUPLICATES = 0.1
MANY_ALIKE = 0.1  # share of pairs without a difference; from here on the rows are bad
NAMED = 20  # rows that the audit names
BIASED = 0.7  # share of pairs of which the longer answer is the preferred one, or the shorter
FEW = 20  # pairs say nothing about a bias


def validate(ctx: WorkerContext, params: DPOParams) -> None:
    """Read every pair of the job's datasets. Raises ``BadDatasetError`` or ``JobError``, else reports an audit.

    Returns early, with nothing reported, when asked to stop.
    """
    checks.refuse_remote_code(ctx, params)
    ctx.phase("validating")
    tokenizer = chat.load_tokenizer(ctx.model_path("model"), params)
    trained = _audit(ctx, params, tokenizer, "dataset", params.dataset_split, frozenset())
    if trained is not None and params.eval_dataset is not None:
        _audit(ctx, params, tokenizer, "eval_dataset", "test", trained.hashes)


def detect_format(path: str, split: str) -> FormatName:
    """The form of a dataset by its first readable row. Raises ``BadDatasetError`` if it looks like none."""
    return row_forms.detect(path, split, formats.detect, formats.KEYS)


NO_DIFFERENCE = "its two answers are the same, so there is nothing to prefer"


@dataclass
class Tally:
    """What has been counted of a dataset. Lengths are tokens."""

    max_length: int
    pairs: int = 0
    tokens: int = 0
    longest: int = 0
    truncated: int = 0
    alike: list[int] = field(default_factory=list)  # rows whose two answers are the same
    alike_total: int = 0
    undecided: list[int] = field(default_factory=list)  # rows of which the cut leaves nothing to prefer
    undecided_total: int = 0
    seams_moved: int = 0
    duplicates: int = 0
    leaked: int = 0
    chosen_tokens: int = 0
    rejected_tokens: int = 0
    chosen_longer: int = 0
    rejected_longer: int = 0
    hashes: set[int] = field(default_factory=set)
    lengths: array[int] = field(default_factory=lambda: array("L"))

    def add(self, pair: TokenizedPair, elsewhere: frozenset[int] | set[int]) -> None:
        """Count one pair; ``elsewhere`` are the hashes of the pairs that are trained on."""
        chosen, rejected = len(pair.chosen_ids), len(pair.rejected_ids)
        length = len(pair.prompt_ids) + max(chosen, rejected)
        cut = pair.cut(self.max_length)
        self.pairs += 1
        self.tokens += 2 * len(cut[0]) + len(cut[1]) + len(cut[2])
        self.longest = max(self.longest, length)
        self.truncated += length > self.max_length
        self.seams_moved += pair.seam_moved
        self.chosen_tokens += chosen
        self.rejected_tokens += rejected
        self.chosen_longer += chosen > rejected
        self.rejected_longer += rejected > chosen
        self.lengths.append(length)
        if pair.chosen_ids == pair.rejected_ids:
            self.alike_total += 1
            if len(self.alike) < PROBLEMS_KEPT:
                self.alike.append(pair.number)
        elif not differs(cut):
            self.undecided_total += 1
            if len(self.undecided) < PROBLEMS_KEPT:
                self.undecided.append(pair.number)
        key = hash((tuple(pair.prompt_ids), tuple(pair.chosen_ids), tuple(pair.rejected_ids)))
        self.duplicates += key in self.hashes
        self.leaked += key in elsewhere
        self.hashes.add(key)

    @property
    def longer_is_preferred(self) -> float:
        """Of pairs whose answers differ in length, the share of which the longer one is preferred."""
        unequal = self.chosen_longer + self.rejected_longer
        return self.chosen_longer / unequal if unequal else 0.5


def _audit(
    ctx: WorkerContext,
    params: DPOParams,
    tokenizer: chat.Tokenizer,
    param: str,
    split: str,
    trained: frozenset[int] | set[int],
) -> Tally | None:
    """What ``param`` names, counted and reported; ``None`` if the job was asked to stop meanwhile."""
    path = ctx.dataset_path(param)
    digest = trained_data.sha256(ctx, param, split)
    form = params.dataset_format or detect_format(path, split)
    pairs = tokenization.tokenized_pairs(path, split, form, tokenizer)
    tally = Tally(params.max_length)
    if not row_forms.walk(ctx, pairs, path, partial(tally.add, elsewhere=trained)):
        return None
    if tally.alike_total > MANY_ALIKE * tally.pairs:
        raise BadDatasetError(
            path,
            [RowProblem(number, NO_DIFFERENCE) for number in tally.alike],
            total=tally.alike_total,
            remedy=f"Correct or drop these rows; up to {MANY_ALIKE:.0%} of the pairs may be like that and are left out.",
        )
    if tally.alike_total + tally.undecided_total == tally.pairs:
        raise BadDatasetError(
            path,
            [RowProblem(number, "its answers are the same after the cut") for number in tally.undecided],
            total=tally.undecided_total,
            remedy=f"Raise max_length ({params.max_length}; the longest pair has {tally.longest} tokens).",
        )
    if param == "dataset" and params.eval_split > 0 and round(tally.pairs * (1 - params.eval_split)) < 1:
        raise JobError(
            f"eval_split={params.eval_split} of {tally.pairs} pairs leaves none to train on; lower it, or add rows.",
            code="bad_dataset",
        )
    warnings = _warnings(params, tally, held_out=param == "eval_dataset")
    ctx.audit(_report(ctx, param, form, digest, tally, warnings))
    for setting, message in warnings.items():
        ctx.advice(setting, message)
    return tally


def _report(
    ctx: WorkerContext,
    param: str,
    form: FormatName,
    digest: str | None,
    tally: Tally,
    warnings: dict[str, str],
) -> AuditReport:
    return AuditReport(
        dataset=ctx.dataset_path(param),
        format=form,
        rows=tally.pairs,
        tokens=tally.tokens,
        truncated_rows=tally.truncated,
        unanswered_rows=tally.alike_total + tally.undecided_total,
        max_tokens=tally.longest,
        sha256=digest,
        warnings=tuple(warnings.values()),
        extra={
            "param": param,
            "alike_rows": tally.alike_total,
            "alike_row_numbers": tally.alike[:NAMED],
            "duplicate_rows": tally.duplicates,
            "leaked_rows": tally.leaked,
            "mean_chosen_tokens": round(tally.chosen_tokens / tally.pairs, 1),
            "mean_rejected_tokens": round(tally.rejected_tokens / tally.pairs, 1),
            "longer_is_preferred": round(tally.longer_is_preferred, 3),
        },
    )


def _warnings(params: DPOParams, tally: Tally, *, held_out: bool) -> dict[str, str]:
    """What to look at before the training: the settings to change, each with the reason."""
    pairs, found = tally.pairs, {}
    if tally.undecided_total:
        found["max_length"] = (
            f"{tally.undecided_total} of {pairs} pairs have no difference left within max_length={params.max_length} "
            f"and are left out; the longest pair has {tally.longest} tokens."
        )
    elif tally.truncated > MANY_CUT * pairs:
        found["max_length"] = (
            f"{tally.truncated} of {pairs} pairs are cut at max_length={params.max_length}; the longest has "
            f"{tally.longest} tokens."
        )
    share = tally.longer_is_preferred
    if pairs >= FEW and not 1 - BIASED <= share <= BIASED:
        side, portion = ("longer", share) if share > 0.5 else ("shorter", 1 - share)
        found["loss_type"] = (
            f"In {portion:.0%} of the pairs the {side} answer is preferred (by mean {tally.chosen_tokens / pairs:.0f} "
            f"against {tally.rejected_tokens / pairs:.0f} tokens), so the model may learn to be {side}: balance the "
            "pairs, or use loss_type=sigmoid_norm or ld_alpha, which weigh length less."
        )
    if tally.leaked:
        found["eval_dataset"] = (
            f"{tally.leaked} of {pairs} held-out pairs are trained on as well, so the figures say less than they seem."
        )
    about_rows = list(_about_rows(tally))
    if about_rows:
        found["dataset"] = " ".join(about_rows)
    step_pairs = params.rows_a_step
    if pairs < step_pairs and not held_out:
        found["gradient_accumulation_steps"] = (
            f"There are {pairs} pairs, fewer than one optimizer step takes ({step_pairs}); lower "
            "gradient_accumulation_steps or per_device_train_batch_size."
        )
    return found


def _about_rows(tally: Tally) -> Iterator[str]:
    pairs = tally.pairs
    if tally.alike:
        rows = ", ".join(map(str, tally.alike[:NAMED])) + (", …" if tally.alike_total > NAMED else "")
        yield (
            f"{tally.alike_total} of {pairs} pairs have two answers that are the same and are left out (row {rows})."
        )
    if tally.seams_moved:
        yield (
            f"In {tally.seams_moved} of {pairs} pairs the prompt's last tokens change when an answer follows, so the "
            "model is trained on other prompts than it will be asked; end prompts without a space, or use messages."
        )
    if tally.duplicates > MANY_DUPLICATES * pairs:
        yield f"{tally.duplicates} of {pairs} pairs are the same as an earlier one."
