"""Teachers in this process: a frozen model, and the student itself with its adapter switched off."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from finetuned_decoding import packed_linear
from finetuned_opd.chunked_loss import CHUNK, Head
from finetuned_opd.head import head_of
from finetuned_opd.hidden_states import last_hidden_states, shared_length
from finetuned_opd.scores import Row, Scores, Wanted
from finetuned_sdk import JobError
from finetuned_training.model_hash import hash_of

BATCH_TOKENS = 8192  # of one forward pass, padding included
FULL_TOKENS = 512  # from which on a pass uses the processor well, so that padding is worse than another pass
WASTE = 0.1  # of a pass that may be padding then


class LocalTeacher:
    """A model in evaluation mode that nobody trains, its linear layers packed. ``identity`` says what its scores depend on.

    ``head`` makes logits of its hidden states.
    """

    def __init__(self, model: Any, *, identity: str | None, batch_tokens: int = BATCH_TOKENS) -> None:
        self._model = model.eval().requires_grad_(False)
        self.head: Final = head_of(model).packing()
        packed_linear.freeze(model, but=model.get_output_embeddings())
        self._identity = identity
        self._batch_tokens = batch_tokens

    @property
    def identity(self) -> str | None:
        return self._identity

    def score(self, rows: Sequence[Row], wanted: Wanted) -> list[Scores]:
        return _score(self._model, self.head, rows, wanted, self._batch_tokens)


class SelfTeacher:
    """The student as it was before its adapter: a ``PeftModel`` that is trained beside. It takes no memory of its own."""

    def __init__(self, student: Any, *, identity: str | None, batch_tokens: int = BATCH_TOKENS) -> None:
        self._student = student
        self._identity = identity
        self._batch_tokens = batch_tokens

    @property
    def identity(self) -> str | None:
        return self._identity

    @property
    def head(self) -> Head:
        """What makes logits of the hidden states: the student's own, which the adapter leaves as it is."""
        return head_of(self._student)

    def score(self, rows: Sequence[Row], wanted: Wanted) -> list[Scores]:
        was_training = self._student.training
        self._student.eval()  # no dropout
        try:
            with self._student.disable_adapter():
                base = self._student.get_base_model()
                return _score(base, self.head, rows, wanted, self._batch_tokens)
        finally:
            self._student.train(was_training)


def load(
    path: str,
    *,
    gpu: bool,
    adapter: str | None = None,
    four_bit: bool = False,
    trust_remote_code: bool = False,
    advancing: Callable[[], None] = lambda: None,
) -> LocalTeacher:
    """The teacher of a directory or hub id: float32 on the CPU, bfloat16 on a GPU, its weights in 4 bits if asked.

    Raises ``JobError`` if it cannot be loaded. ``advancing`` is called while its files are read for their hash.
    """
    dtype = torch.bfloat16 if gpu and torch.cuda.is_bf16_supported() else torch.float32
    directories = [Path(each) for each in (path, adapter) if each is not None]
    identity = None
    if all(each.is_dir() for each in directories):
        made_from = (hash_of(directories, advancing=advancing), str(dtype), four_bit, gpu)
        identity = hashlib.sha256(repr(made_from).encode()).hexdigest()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype,
            quantization_config=_nf4(dtype) if four_bit else None,
            device_map={"": 0} if gpu else None,
            trust_remote_code=trust_remote_code,
        )
        if adapter is not None:
            model = _under(model, adapter, merged=not four_bit)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise JobError(
            f"The teacher {path} cannot be loaded: {reason}. Check that the directory is complete, or that this machine"
            " may reach the hub.",
            code="model_unloadable",
        ) from error
    return LocalTeacher(model, identity=identity)


def _nf4(dtype: torch.dtype) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _under(model: Any, adapter: str, *, merged: bool) -> Any:
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(model, adapter)
    return adapted.merge_and_unload() if merged else adapted.get_base_model()


def _score(model: Any, head: Head, rows: Sequence[Row], wanted: Wanted, batch_tokens: int) -> list[Scores]:
    # The last token of a completion predicts nothing that is scored.
    lengths = [len(row.prompt) + wanted.of(row) - 1 for row in rows]
    found: dict[int, Scores] = {}
    with torch.no_grad():
        for batch in batches(lengths, batch_tokens):
            hidden = _hidden(model, [rows[at] for at in batch], [lengths[at] for at in batch])
            for at, states in zip(batch, hidden, strict=True):
                found[at] = _of_states(states, head, rows[at], wanted)
    return [found[at] for at in range(len(rows))]


def batches(lengths: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Which rows are scored together: those of like length, at most ``limit`` tokens with their padding.

    A batch that keeps the processor busy takes no row that would make more than a little of it padding.
    """
    batch: list[int] = []
    real = 0
    for at in sorted(range(len(lengths)), key=lambda each: (lengths[each], each)):
        padded = (len(batch) + 1) * lengths[at]
        wasteful = real >= FULL_TOKENS and padded - real - lengths[at] > WASTE * padded
        if batch and (padded > limit or wasteful):
            yield batch
            batch, real = [], 0
        batch.append(at)
        real += lengths[at]
    if batch:
        yield batch


def _hidden(model: Any, rows: Sequence[Row], lengths: Sequence[int]) -> list[Tensor]:
    """The last hidden states of each row's positions that predict what is scored, [n, H] each.

    Padding comes after a row, and what comes after does not count in a causal model: no mask is needed. What all rows
    begin with is computed once.
    """
    tokens = [(*row.prompt, *row.completion)[:length] for row, length in zip(rows, lengths, strict=True)]
    ids = torch.zeros(len(rows), max(lengths), dtype=torch.long)
    for number, each in enumerate(tokens):
        ids[number, : len(each)] = torch.tensor(each)
    shared = shared_length(tokens, [len(row.prompt) for row in rows])
    states = last_hidden_states(model, ids.to(model.device), shared)
    return [
        states[number, len(row.prompt) - 1 - shared : length - shared]
        for number, (row, length) in enumerate(zip(rows, lengths, strict=True))
    ]


def _of_states(states: Tensor, head: Head, row: Row, wanted: Wanted) -> Scores:
    tokens = torch.tensor(row.completion[: wanted.of(row)], device=states.device)
    hidden = states.cpu().clone() if wanted.hidden else None  # not a view of the whole batch
    if not wanted.log_probs and not wanted.top_k:
        return Scores(torch.empty(0), hidden)
    parts = [
        _of_logits(head.logits(states[start : start + CHUNK]), tokens[start : start + CHUNK], wanted.top_k)
        for start in range(0, len(tokens), CHUNK)
    ]
    log_probs, top_ids, top_log_probs = (torch.cat(each).cpu() for each in zip(*parts, strict=True))
    if not wanted.top_k:
        return Scores(log_probs, hidden)
    return Scores(log_probs, hidden, top_ids, top_log_probs)


def _of_logits(logits: Tensor, tokens: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of [n, V]: the tokens' log-probabilities [n], and the likeliest tokens with theirs, [n, k] each."""
    total = torch.logsumexp(logits, dim=-1, keepdim=True)
    found = logits.gather(-1, tokens.unsqueeze(-1)) - total
    top = logits.topk(top_k, dim=-1)
    return found.squeeze(-1), top.indices, top.values - total
