"""Rollouts as tensors: whole sequences for the student's forward pass, and what is known of each token to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor

from finetuned_opd.hidden_states import shared_length
from finetuned_opd.rollouts import Rollout

UNKNOWN = float("nan")


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward pass of the student. ``N`` tokens to learn from, of all rows one after the other.

    input_ids           [B, L] int64, padded at the right; answers that are learned beside completions are rows of their own
    shared              how many tokens all rows begin with, whose hidden states are not looked at
    positions           [N] int64: which of the B · (L - shared) hidden states predicts each token
    tokens              [N] int64
    sampler_log_probs   [N] float32: of the model that sampled them; NaN of what it did not sample
    teacher_log_probs   [N] float32
    teacher_hidden      [N, H] or none
    top_ids             [N, K] int64 or none
    top_log_probs       [N, K] float32 or none
    unanswered          [N] bool: tokens of rows without an answer of their own
    answer_positions    [M] int64: the hidden states that predict the tokens of answers, …
    answer_tokens       [M] int64: … and those tokens
    """

    input_ids: Tensor
    shared: int
    positions: Tensor
    tokens: Tensor
    sampler_log_probs: Tensor
    teacher_log_probs: Tensor
    teacher_hidden: Tensor | None
    top_ids: Tensor | None
    top_log_probs: Tensor | None
    unanswered: Tensor
    answer_positions: Tensor
    answer_tokens: Tensor
    rows: int
    window_tokens: int  # to learn from in the whole step, and …
    window_answer_tokens: int  # … those with a cross-entropy

    def __len__(self) -> int:
        return self.rows

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return type(self)(
            **{
                name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
                for name, value in found.items()
            }
        )


def batches_of(rollouts: Sequence[Rollout], count: int, *, with_answers: bool) -> list[Batch]:
    """``count`` batches of at least as many rollouts, rows of like length together so that little is padding.

    All of a step's rows are summed before the optimizer moves, so which of them share a pass makes no difference.
    ``with_answers`` adds the rows' own answers for a cross-entropy.
    """
    ordered = sorted(rollouts, key=lambda each: -(len(each.row.prompt) + each.tokens))
    edges = [number * len(ordered) // count for number in range(count + 1)]
    groups = [ordered[start:end] for start, end in pairwise(edges)]
    tokens = sum(each.tokens for each in rollouts)
    answers = sum(_cross_entropy_tokens(each) for each in rollouts) if with_answers else 0
    return [_batch(group, tokens, answers, with_answers=with_answers) for group in groups]


def _cross_entropy_tokens(rollout: Rollout) -> int:
    return rollout.tokens if rollout.answer is None else len(rollout.answer)


def _batch(rollouts: Sequence[Rollout], tokens: int, answers: int, *, with_answers: bool) -> Batch:
    sequences = [(each.row.prompt, each.row.completion[: each.tokens]) for each in rollouts]
    targets = list(sequences)
    if with_answers:
        beside = [(each.row.prompt, each.answer) for each in rollouts if each.answer is not None]
        # A row whose completion is its own answer learns that from the same pass.
        sequences += beside
    length = max(len(prompt) + len(completion) for prompt, completion in sequences) - 1
    input_ids = torch.zeros(len(sequences), length, dtype=torch.int64)
    for row, (prompt, completion) in enumerate(sequences):
        ids = torch.tensor((*prompt, *completion)[:-1])  # the last token predicts nothing that is learned
        input_ids[row, : len(ids)] = ids
    shared = shared_length(
        [(*prompt, *rest) for prompt, rest in sequences], [len(prompt) for prompt, _ in sequences]
    )
    width = length - shared
    positions, learned_tokens = _targets(targets, 0, width, shared)
    answer_positions, answer_tokens = _targets(sequences[len(targets) :], len(targets), width, shared)
    brought = torch.cat([torch.full((each.tokens,), each.sampled is None) for each in rollouts])
    if with_answers:  # off-policy completions are the rows' answers
        answer_positions = torch.cat([answer_positions, positions[brought]])
        answer_tokens = torch.cat([answer_tokens, learned_tokens[brought]])
    scores = [each.scores for each in rollouts]
    return Batch(
        input_ids=input_ids,
        shared=shared,
        positions=positions,
        tokens=learned_tokens,
        sampler_log_probs=torch.cat([_sampler_log_probs(each) for each in rollouts]),
        teacher_log_probs=torch.cat([each.log_probs for each in scores]),
        teacher_hidden=_joined([each.hidden for each in scores]),
        top_ids=_joined([each.top_ids for each in scores]),
        top_log_probs=_joined([each.top_log_probs for each in scores]),
        unanswered=torch.cat(
            [
                torch.full((each.tokens,), each.answer is None and each.sampled is not None)
                for each in rollouts
            ]
        ),
        answer_positions=answer_positions,
        answer_tokens=answer_tokens,
        rows=len(rollouts),
        window_tokens=tokens,
        window_answer_tokens=answers,
    )


def _targets(
    sequences: Sequence[tuple[Sequence[int], Sequence[int]]], first_row: int, width: int, shared: int
) -> tuple[Tensor, Tensor]:
    """Which hidden states predict the completions' tokens, and those tokens: [n] and [n]."""
    positions, tokens = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.int64)]
    for row, (prompt, completion) in enumerate(sequences, start=first_row):
        start = row * width + len(prompt) - 1 - shared
        positions.append(torch.arange(start, start + len(completion)))
        tokens.append(torch.tensor(completion, dtype=torch.int64))
    return torch.cat(positions), torch.cat(tokens)


def _sampler_log_probs(rollout: Rollout) -> Tensor:
    count = rollout.tokens
    if rollout.sampled is not None:
        return rollout.sampled.log_probs[:count].float()
    return torch.full((count,), UNKNOWN)


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    found = [part for part in parts if part is not None]
    return torch.cat(found) if found else None
