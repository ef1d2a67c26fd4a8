"""The work of an ``sft-audit`` job: what a training would read, counted, and its first rows shown as tokens.

Rows are read, rendered, tokenized and masked by the code that trains. Needs no device and no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol

from finetuned_sdk import RowProblem, WorkerContext
from finetuned_sft import tokenization
from finetuned_sft.params import SFTAuditParams
from finetuned_sft.tokenization import IGNORED, TokenizedRow
from finetuned_sft.validation import detect_format, validate
from finetuned_training import checks, trained_data
from finetuned_training.chat import Tokenizer, load_tokenizer

FILE = "preview.json"
MOST_TOKENS = 4096  # of a row that are shown
LONGEST_CHARACTER = 8  # tokens; after so many bytes that make no character they are shown as they are


class Decoder(Protocol):
    """The part of a tokenizer that turns ids back into text."""

    def decode(self, token_ids: list[int], **kwargs: Any) -> str: ...


def run(ctx: WorkerContext, params: SFTAuditParams) -> None:
    """Publish ``preview.json``, then audit the whole. Raises ``BadDatasetError`` or ``JobError`` as a training would.

    The preview comes first: rows that are refused can then be looked at.
    """
    checks.refuse_remote_code(ctx, params)
    ctx.phase("previewing")
    tokenizer = load_tokenizer(ctx.model_path("model"), params)
    path = ctx.artifact_dir / FILE
    document = preview(ctx, params, tokenizer)
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    ctx.artifact(path, kind="dataset_preview")
    validate(ctx, params)
    ctx.result(preview=FILE, preview_rows=len(document["rows"]))


def preview(ctx: WorkerContext, params: SFTAuditParams, tokenizer: Tokenizer) -> dict[str, Any]:
    """The first rows as tokens: ``{"id", "text", "trained"}`` each, or the problem of a row that has one."""
    path, split = ctx.dataset_path("dataset"), params.dataset_split
    form = params.dataset_format or detect_format(path, split)
    rule = tokenization.loss_rule(params, form, tokenizer)
    rows = tokenization.tokenized_rows(path, split, rule, tokenizer)
    return {
        "dataset": params.dataset,
        "sha256": trained_data.sha256(ctx, "dataset", split),
        "model": params.model,
        "format": form,
        "max_length": params.max_length,
        "rows": [_shown(row, params.max_length, tokenizer) for row in islice(rows, params.preview_rows)],
    }


def _shown(row: TokenizedRow | RowProblem, max_length: int, tokenizer: Any) -> dict[str, Any]:
    if isinstance(row, RowProblem):
        return {"row": row.row, "problem": row.reason}
    length = len(row.input_ids)
    kept = min(length, max_length)
    shown = min(kept, MOST_TOKENS)
    ids, labels = row.input_ids[:shown], row.labels[:shown]
    return {
        "row": row.number,
        "length": length,
        "cut": length - kept,  # tokens beyond max_length, which the training does not see
        "trained": sum(label != IGNORED for label in row.labels[:kept]),
        "hidden": kept - shown,  # trained on, and too many to show
        "tokens": [
            {"id": token, "text": text, "trained": label != IGNORED}
            for token, label, text in zip(ids, labels, texts(ids, tokenizer), strict=True)
        ],
    }


def texts(ids: list[int], tokenizer: Decoder) -> Iterator[str]:
    """The text that each token adds. Of a character that several tokens make, the last one has all."""
    begin, read = 0, 0  # the context that the next text is told apart from: ids[begin:read]
    for end in range(1, len(ids) + 1):
        before, now = _decode(ids[begin:read], tokenizer), _decode(ids[begin:end], tokenizer)
        if now.endswith("\ufffd") and end - read < LONGEST_CHARACTER and end < len(ids):
            yield ""
            continue
        yield now[len(before) :]
        begin, read = read, end


def _decode(ids: list[int], tokenizer: Decoder) -> str:
    if not ids:
        return ""
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
