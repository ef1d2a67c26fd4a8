"""Training on rows that bring their teacher's scores: nothing is sampled, and what is learned is what the rows say."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.opd.conftest import MakeParams, Run, write
from tests.acceptance.opd.test_training import checkpoint_at, reported

from finetuned_opd.scored_rows import ScoredRow, line
from finetuned_opd.scores import Row

pytestmark = [
    pytest.mark.torch,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

TOP_K = 8
BATCH = 4
Score = Callable[[Row], ScoredRow]


def load(path: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def log_probs(model: Any, row: Row) -> Any:
    """Of all tokens at each position of the completion: [n, V]."""
    import torch

    with torch.no_grad():
        logits = model(torch.tensor([[*row.prompt, *row.completion]])).logits[0]
    return torch.log_softmax(logits[len(row.prompt) - 1 : -1].float(), dim=-1)


def rows() -> list[Row]:
    """Completions of many lengths, one longer than a student could be asked for."""
    import random

    draw = random.Random(3)
    return [
        Row(
            tuple(draw.randrange(3, 300) for _ in range(3 + number)),
            tuple(draw.randrange(3, 300) for _ in range(2 + 3 * number)),
        )
        for number in range(BATCH * 2)
    ]


def scored(model: Any, teacher: Any, row: Row) -> ScoredRow:
    """The row with what both models say of it; the student as the one that has sampled it."""
    import torch

    ids = torch.tensor(row.completion).unsqueeze(-1)
    theirs = log_probs(teacher, row)
    top = theirs.topk(TOP_K, dim=-1)
    return ScoredRow(
        row,
        tuple(theirs.gather(-1, ids).squeeze(-1).tolist()),
        sampler_log_probs=tuple(log_probs(model, row).gather(-1, ids).squeeze(-1).tolist()),
        top_ids=tuple(map(tuple, top.indices.tolist())),
        top_log_probs=tuple(map(tuple, top.values.tolist())),
    )


@pytest.fixture
def file(tiny_model: str, tiny_teacher: str, tmp_path: Path) -> str:
    """The rows' file."""
    student, teacher = load(tiny_model), load(tiny_teacher)
    path = tmp_path / "scored.jsonl"
    path.write_text("".join(line(scored(student, teacher, row)) for row in rows()), encoding="utf-8")
    return str(path)


def settings(file: str, **changes: Any) -> dict[str, Any]:
    whole = {"max_steps": 1, "per_device_train_batch_size": BATCH, "gradient_accumulation_steps": 2}
    return {"dataset": file, "precomputed_scores": True, "method": "full", **whole, **changes}


def test_the_policy_gradient_learns_the_rows_own_tokens(
    run: Run, make_params: MakeParams, file: str, tiny_model: str, tiny_teacher: str
) -> None:
    ctx = run(make_params(**settings(file, objective="policy_gradient", max_steps=2)))
    first, second = reported(ctx, "loss", "kl_reverse_k1", "sampler_gap", "num_tokens").values()
    tokens = sum(len(row.completion) for row in rows())
    assert first["num_tokens"] == tokens
    student, teacher = load(tiny_model), load(tiny_teacher)
    by_hand = 0.0
    for row in rows():
        one = scored(student, teacher, row)
        assert one.sampler_log_probs is not None
        by_hand += sum(own - theirs for own, theirs in zip(one.sampler_log_probs, one.log_probs, strict=True))
    # At its first step the student is the sampler: every ratio is 1, and the loss the mean of -A_t.
    assert first["loss"] == pytest.approx(by_hand / tokens, abs=1e-4)
    assert first["kl_reverse_k1"] == pytest.approx(by_hand / tokens, abs=1e-4)
    assert first["sampler_gap"] == pytest.approx(0, abs=1e-4)
    assert second["sampler_gap"] > 1e-3


def test_the_likeliest_tokens_are_compared_at_the_rows_own_tokens(
    run: Run, make_params: MakeParams, file: str, tiny_model: str, tiny_teacher: str
) -> None:
    ctx = run(make_params(**settings(file, top_k=TOP_K)))
    (told,) = reported(ctx, "loss", "kl_reverse_top_k", "token_agreement", "num_tokens").values()
    student, teacher = load(tiny_model), load(tiny_teacher)
    lost, agreed = [], []
    for row in rows():
        mine, theirs = log_probs(student, row), log_probs(teacher, row)
        for own, other in zip(mine, theirs, strict=True):
            top = other.topk(TOP_K)
            p, q = own[top.indices].exp().tolist(), top.values.exp().tolist()
            p.append(1 - sum(p))
            q.append(1 - sum(q))
            lost.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
            agreed.append(float(own.argmax() == other.argmax()))
    assert told["num_tokens"] == len(lost)
    assert told["loss"] == pytest.approx(sum(lost) / len(lost), abs=1e-4)
    assert told["kl_reverse_top_k"] == pytest.approx(sum(lost) / len(lost), abs=1e-4)
    assert told["token_agreement"] == pytest.approx(sum(agreed) / len(agreed))


@pytest.mark.parametrize(
    "changes", [{"objective": "policy_gradient"}, {"estimator": "k2"}, {"top_k": 4}], ids=str
)
def test_a_run_over_scored_rows_goes_on_as_if_it_never_stopped(
    run: Run, make_params: MakeParams, file: str, changes: dict[str, Any]
) -> None:
    params = make_params(
        **settings(
            file, max_steps=4, gradient_accumulation_steps=1, save_steps=2, save_total_limit=9, **changes
        )
    )
    whole = run(params)
    resumed = run(params, resume_from=checkpoint_at(whole, 2), attempt=2)
    assert reported(resumed) == {step: told for step, told in reported(whole).items() if step > 2}


def test_a_student_comes_nearer_to_the_scores(run: Run, make_params: MakeParams, file: str) -> None:
    ctx = run(make_params(**settings(file, top_k=TOP_K, max_steps=20, learning_rate=2e-2)))
    losses = [told["loss"] for told in reported(ctx).values()]
    assert losses[-1] < 0.7 * losses[0]


def test_with_a_cross_entropy_the_teachers_likeliest_token_is_learned_of_what_the_student_sampled(
    run: Run, make_params: MakeParams, file: str, tiny_model: str, tiny_teacher: str
) -> None:
    import torch

    ctx = run(make_params(**settings(file, objective="policy_gradient", kl_weight=0.25)))
    (told,) = reported(ctx, "loss", "kl_reverse_k1").values()
    student, teacher = load(tiny_model), load(tiny_teacher)
    missed = torch.cat(
        [
            -log_probs(student, row).gather(-1, log_probs(teacher, row).argmax(-1, keepdim=True)).squeeze(-1)
            for row in rows()
        ]
    )
    expected = 0.25 * told["kl_reverse_k1"] + 0.75 * float(missed.mean())
    assert told["loss"] == pytest.approx(expected, abs=1e-4)


def test_scores_that_were_changed_after_the_check_end_the_job(
    run: Run, make_params: MakeParams, tmp_path: Path
) -> None:
    from finetuned_sdk import JobError

    file = write(
        tmp_path / "wrong.jsonl", [{"prompt_ids": [3], "completion_ids": [4], "teacher_log_probs": [1.0]}]
    )
    with pytest.raises(JobError, match="is no log-probability") as caught:
        run(make_params(**settings(file, top_k=TOP_K)))
    assert caught.value.code == "bad_dataset"
