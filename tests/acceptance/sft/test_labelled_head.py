"""The head is computed where there is something to learn, and gives what it gave."""

from __future__ import annotations

from typing import Any

import pytest
from tests.acceptance.sft.tiny import make_tokenizer
from tests.tiny_llama import tiny_llama

pytestmark = [pytest.mark.torch, pytest.mark.timeout(240)]

LABELS = [[-100, -100, -100, 7, 8, 9, -100, -100], [-100, 5, -100, -100, -100, 6, 7, 8]]


def scored(model: Any, labels: Any) -> tuple[list[int], Any, dict[str, Any]]:
    """How many positions each call of the head's function was given, what it gave, and the gradients."""
    import torch
    from trl.trainer import utils

    positions: list[int] = []
    plain = utils._ChunkedLogProbFunction

    class Counting:
        @staticmethod
        def apply(hidden: Any, *rest: Any) -> Any:
            positions.append(hidden.shape[0])
            return plain.apply(hidden, *rest)

    utils._ChunkedLogProbFunction = Counting
    try:
        ids = torch.arange(labels.numel()).reshape(labels.shape) % 50
        found = model(input_ids=ids, labels=labels, fused_lm_head=True)
    finally:
        utils._ChunkedLogProbFunction = plain
    model.zero_grad()
    found.loss.backward()
    return positions, found, {name: weight.grad.clone() for name, weight in model.named_parameters()}


def test_positions_without_a_label_are_left_out_and_nothing_else_changes() -> None:
    import torch
    from trl.trainer import utils

    from finetuned_training.labelled_head import labelled_only

    model = tiny_llama(make_tokenizer(), tie_word_embeddings=True)
    utils.add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1", "mean_logits"))
    labels = torch.tensor(LABELS)

    everywhere, before, gradients = scored(model, labels)
    with labelled_only():
        labelled, after, same = scored(model, labels)
    assert everywhere == [2 * 7]  # the first token of a row is nobody's successor
    assert labelled == [7]
    for name in ("loss", "log_probs", "entropy", "is_top1", "mean_logits"):
        mask = torch.ones(()) if name == "loss" else before.label_mask
        torch.testing.assert_close(getattr(after, name) * mask, getattr(before, name) * mask)
    assert gradients.keys() == same.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(same[name], gradient)

    assert scored(model, labels)[0] == everywhere  # what comes after is TRL's own


def test_a_batch_without_a_label_costs_nothing_and_teaches_nothing() -> None:
    import torch
    from trl.trainer import utils

    from finetuned_training.labelled_head import labelled_only

    model = tiny_llama(make_tokenizer())
    utils.add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    with labelled_only():
        positions, found, gradients = scored(model, torch.full((2, 8), -100))
    assert positions == [0]
    assert found.loss.item() == 0.0
    assert not any(gradient.any() for gradient in gradients.values())
