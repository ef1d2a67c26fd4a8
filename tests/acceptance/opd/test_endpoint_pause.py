"""A teacher's server that goes away or says what is no score: the job pauses with the reason, and loses nothing by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.opd.conftest import MakeParams, row, write
from tests.acceptance.opd.test_teachers import answers
from tests.acceptance.opd.test_training import assert_equal_weights, checkpoint_at, reported
from tests.scoring_server import ScoringServer, Trouble, edited, status

from finetuned_opd.params import OPDParams
from finetuned_sdk import PauseError
from finetuned_sdk.testing import RecordingContext

pytestmark = [
    pytest.mark.torch,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

BATCH = 4
PROBES = 1  # of the vocabulary, before the first step


def no_number(answer: Any) -> None:
    """Put NaN where a log-probability was."""
    scores = answer["choices"][0]["prompt_logprobs"][-1]
    scores[next(iter(scores))]["logprob"] = float("nan")


# One that asks for more patience than the job has is given up at once, so no clock decides.
AWAY = status(503, Retry_After="1000000")
WRONG = edited(no_number)


class Failing:
    """A server that has the teacher, and answers so many requests before it has its troubles."""

    def __init__(self, teacher: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float32).eval()
        self._answer = answers(model)
        self._left: int | None = None
        self._trouble: Trouble = AWAY
        self.server = ScoringServer(self.answer)

    def answer(self, body: Any) -> Any:
        said = self._answer(body)
        if self._left is not None:
            self._left -= 1
            if self._left == 0:  # all that came before have been answered: the next ones are the next step's
                self.server.troubles.extend([self._trouble] * BATCH)
        return said

    def fail_after(self, requests: int, trouble: Trouble) -> None:
        """Have troubles once so many more requests were answered."""
        self._left, self._trouble = requests, trouble

    def mend(self) -> None:
        """Have no more troubles."""
        self._left = None
        self.server.troubles.clear()


@pytest.fixture
def failing(tiny_teacher: str) -> Iterator[Failing]:
    found = Failing(tiny_teacher)
    with found.server:
        yield found


@pytest.fixture
def params(make_params: MakeParams, failing: Failing, tmp_path: Path) -> Any:
    """A run over 16 prompts: four steps an epoch. Dropout draws from the random numbers that a resume has to restore."""
    prompts = write(tmp_path / "few.jsonl", map(row, range(16)))

    def make(**changes: Any) -> OPDParams:
        given = {
            "teacher_endpoint": failing.server.url,
            "dataset": prompts,
            "per_device_train_batch_size": BATCH,
            "max_steps": 6,
            "save_steps": 99,
            "save_total_limit": 9,
            "lora_dropout": 0.2,
        }
        return make_params(**given | changes)

    return make


def paused(make_context: Any, params: OPDParams) -> tuple[RecordingContext, PauseError]:
    """The attempt that could not go on, and why."""
    from finetuned_opd.trainer import train

    ctx: RecordingContext = make_context(params)
    with pytest.raises(PauseError) as caught:
        train(ctx, params)
    return ctx, caught.value


def saved(ctx: RecordingContext) -> list[int]:
    return [fact["step"] for fact in ctx.of_type("checkpoint")]


@pytest.mark.parametrize(
    ("step", "trouble", "changes", "reason"),
    [
        (2, AWAY, {}, "cannot be asked .status 503"),
        (2, WRONG, {}, "gave the log-probability nan"),
        (2, AWAY, {"save_steps": 2}, "cannot be asked"),
        (4, AWAY, {}, "cannot be asked"),
        (2, AWAY, {"logging_steps": 3}, "cannot be asked"),
    ],
    ids=["away", "no number", "at a checkpoint", "at an epoch's end", "between logs"],
)
def test_a_teacher_that_fails_pauses_the_job_at_the_step_that_was_done_and_nothing_is_lost(
    run: Any,
    make_context: Any,
    params: Any,
    failing: Failing,
    step: int,
    trouble: Trouble,
    changes: dict[str, Any],
    reason: str,
) -> None:
    given = params(**changes)
    whole = run(given)
    failing.fail_after(PROBES + step * BATCH, trouble)
    first, error = paused(make_context, given)
    assert saved(first) == [step]
    assert error.code == ("teacher_bad_scores" if trouble is WRONG else "teacher_unavailable")
    assert "finetune resume" in error.message
    with pytest.raises(PauseError, match=reason):
        raise error

    failing.mend()
    second = run(given, resume_from=checkpoint_at(first, step), attempt=2)
    assert reported(second) == {at: told for at, told in reported(whole).items() if at > step}
    assert_equal_weights(whole, second)
    assert second.results["train_loss"] == whole.results["train_loss"]


def test_a_teacher_that_is_not_there_from_the_start_pauses_the_job_before_its_first_step(
    make_context: Any, params: Any, failing: Failing
) -> None:
    failing.server.troubles.append(AWAY)
    ctx, error = paused(make_context, params())
    assert (saved(ctx), error.code) == ([], "teacher_unavailable")


@pytest.mark.parametrize("steps", [6, 4], ids=["in the midst", "at the end"])
def test_an_evaluation_that_the_teacher_cut_short_is_made_when_the_job_goes_on(
    run: Any, make_context: Any, params: Any, failing: Failing, steps: int
) -> None:
    given = params(eval_split=0.25, eval_steps=2, max_steps=steps, load_best_model_at_end=True, save_steps=2)
    whole = run(given)
    held_out = 4
    failing.fail_after(PROBES + 2 * held_out + 4 * BATCH, AWAY)  # in the evaluation after step 4
    first, _ = paused(make_context, given)
    assert saved(first) == [2, 4]
    assert [fact["step"] for fact in first.of_type("evaluation")] == [0, 2]

    failing.mend()
    second = run(given, resume_from=checkpoint_at(first, 4), attempt=2)
    figures = ("eval_loss", "eval_kl_reverse_top_k", "eval_token_agreement", "eval_entropy")

    def evaluated(ctx: RecordingContext) -> dict[int, dict[str, float]]:
        return {
            fact["step"]: {name: fact["metrics"][name] for name in figures}
            for fact in ctx.of_type("evaluation")
        }

    assert evaluated(first) | evaluated(second) == evaluated(whole)
    assert min(evaluated(second)) == 4
    assert_equal_weights(whole, second)
    same = ("best_step", "eval_loss", "train_loss", "eval_kl_reverse_top_k_after")
    assert {name: second.results[name] for name in same} == {name: whole.results[name] for name in same}
