"""What rows begin with alike is computed once, and comes to the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from torch import Tensor

torch = pytest.importorskip("torch")

from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM  # noqa: E402

from finetuned_opd.hidden_states import last_hidden_states, shared_length  # noqa: E402

pytestmark = pytest.mark.torch
SHAPE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}


def rows() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    beginning = torch.randint(2, 40, (1, 9), generator=generator).expand(3, -1)
    return torch.cat([beginning, torch.randint(2, 40, (3, 6), generator=generator)], dim=1)


def test_states_and_gradients_are_those_of_whole_rows() -> None:
    torch.manual_seed(0)
    model, ids = LlamaForCausalLM(LlamaConfig(**SHAPE)), rows()
    weight = torch.randn(3, 6, 16)
    found = []
    for shared in (0, 9):
        model.zero_grad()
        states = last_hidden_states(model, ids, shared)[:, -6:]
        (states * weight).sum().backward()
        found.append(
            (
                states.detach(),
                {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None},
            )
        )
    torch.testing.assert_close(found[0][0], found[1][0])
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][name], msg=name)


def test_a_model_that_keeps_a_window_or_recomputes_is_given_whole_rows() -> None:
    torch.manual_seed(0)
    window = MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=4)).eval()
    torch.testing.assert_close(
        last_hidden_states(window, rows(), 9), last_hidden_states(window, rows())[:, 9:]
    )
    recomputing = LlamaForCausalLM(LlamaConfig(**SHAPE)).train()
    recomputing.activation_checkpointing_enable()
    assert last_hidden_states(recomputing, rows(), 9).shape == (3, 6, 16)


def test_the_last_token_of_a_prompt_is_not_shared() -> None:
    same = [2] * 12
    assert shared_length([same, same], [12, 12]) == 11
    assert shared_length([same, same], [12, 10]) == 9
    assert shared_length([same, [3, *same]], [12, 13]) == 0
    assert shared_length([same[:6], same[:6]], [6, 6]) == 0
    assert shared_length([same], [12]) == 0
