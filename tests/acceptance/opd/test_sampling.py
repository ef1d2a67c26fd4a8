"""A saved student answers chat prompts, before and after its weights were trained, as its own generation does."""

from __future__ import annotations

from typing import Any

import pytest
from tests.acceptance.sft.tiny import exchange

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


def chat_prompts(tokenizer: Any) -> list[list[int]]:
    """Of several lengths, beginning alike, as those of a system prompt do."""
    extra = ("", "please", "please, please and please")
    return [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": f"{exchange(number)[0]} {extra[number % 3]}"}],
            add_generation_prompt=True,
            return_dict=False,
        )
        for number in range(8)
    ]


def generated(
    model: Any, tokenizer: Any, prompts: list[list[int]], stop_ids: list[int]
) -> list[tuple[int, ...]]:
    """The likeliest answers by ``generate``, each up to its stop token."""
    batch = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
    model.eval()
    out = model.generate(
        **batch,
        do_sample=False,
        max_new_tokens=24,
        eos_token_id=stop_ids,
        pad_token_id=tokenizer.pad_token_id,
    )
    answers = []
    for row in out[:, batch["input_ids"].shape[1] :].tolist():
        ends = [at + 1 for at, token in enumerate(row) if token in stop_ids]
        answers.append(tuple(row[: min(ends, default=len(row))]))
    return answers


def train(model: Any, prompts: list[list[int]]) -> None:
    """One update of all that is trained, in place."""
    import torch

    model.train()
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=0.05)
    ids = torch.tensor([prompts[0]])
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_student_in_training_answers_as_its_own_generation_does(tiny_model: str, method: str) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from finetuned_opd.sampling import Sampler, Sampling

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    if method == "lora":
        torch.manual_seed(0)  # of an adapter that is drawn at random
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.1))
    prompts = chat_prompts(tokenizer)
    stop_ids = [tokenizer.eos_token_id, generated(model, tokenizer, prompts, [tokenizer.eos_token_id])[0][3]]
    asked: dict[str, Any] = {"max_new_tokens": 24, "stop_ids": frozenset(stop_ids)}
    greedy, drawn = Sampler(model, Sampling(**asked, temperature=0.0)), Sampler(model, Sampling(**asked))
    generator = torch.Generator().manual_seed(0)

    seen = []
    for _ in range(3):
        answers = greedy.sample(prompts, generator)
        assert [each.ids for each in answers] == generated(model, tokenizer, prompts, stop_ids)
        for prompt, completion in zip(prompts, drawn.sample(prompts, generator), strict=True):
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt, *completion.ids]])).logits[0, len(prompt) - 1 : -1]
            expected = logits.log_softmax(-1).gather(1, torch.tensor(completion.ids)[:, None])[:, 0]
            torch.testing.assert_close(completion.log_probs, expected, atol=1e-4, rtol=0)
        seen.append(float(answers[0].log_probs[0]))
        train(model, prompts)
    assert len(set(seen)) == 3  # it was another model each time
