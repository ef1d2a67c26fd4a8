"""What is learned from in one step: completions of the window's prompts, sampled or brought along, and their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from finetuned_opd.sampling import Completion, Sampler
from finetuned_opd.scores import Row, Scores, Teacher, Wanted

_STEPS = 1 << 40  # a seed's streams: one a step, those of evaluations after them


@dataclass(frozen=True, slots=True)
class Rollout:
    """A row, what the teacher says of it, and how it came about.

    ``sampled`` is what the student sampled, ``None`` of a row that brought its completion along. ``answer`` is the
    row's own answer, if it has one that was not taken as the completion. The first ``tokens`` are learned from.
    """

    row: Row
    tokens: int
    scores: Scores
    sampled: Completion | None
    answer: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Draft:
    """A rollout that no teacher has seen."""

    row: Row
    sampled: Completion | None
    answer: tuple[int, ...] | None

    def scored(self, scores: Scores, tokens: int) -> Rollout:
        """The rollout, of which the first ``tokens`` were scored."""
        return Rollout(self.row, tokens, scores, self.sampled, self.answer)


def stream(seed: int, number: int, *, evaluates: bool = False) -> torch.Generator:
    """The random numbers of one step, or of one batch of an evaluation: the same whenever a run comes there."""
    generator = torch.Generator()
    # Neighbouring seeds give streams that are alike at first; a product of a large odd number does not.
    generator.manual_seed(((seed + evaluates * _STEPS + number) * 0x9E3779B97F4A7C15 + seed) % (1 << 63))
    return generator


def draft(
    questions: Sequence[Mapping[str, Any]],
    sampler: Sampler | None,
    generator: torch.Generator,
    *,
    share: float,
) -> list[Draft]:
    """Completions for the questions (``prompt_ids`` and perhaps ``answer_ids``), in their order.

    The student answers a ``share`` of them itself, and all that have no answer; the others bring theirs along, perhaps
    with ``sampler_log_probs`` of it. Raises ``ValueError`` for those if there
    is no sampler.
    """
    drawn = torch.rand(len(questions), generator=generator).tolist()
    own = [
        chance < share or not question["answer_ids"]
        for chance, question in zip(drawn, questions, strict=True)
    ]
    prompts = [question["prompt_ids"] for question, mine in zip(questions, own, strict=True) if mine]
    if prompts and sampler is None:
        raise ValueError("there is a prompt without an answer, and nobody to answer it")
    sampled = iter(sampler.sample(prompts, generator) if sampler is not None and prompts else ())
    drafts = []
    for question, mine in zip(questions, own, strict=True):
        prompt, answer = tuple(question["prompt_ids"]), tuple(question["answer_ids"] or ())
        if mine:
            completion = next(sampled)
            drafts.append(Draft(Row(prompt, completion.ids), completion, answer or None))
        else:
            drafts.append(Draft(Row(prompt, answer), _sampled_before(question, answer), None))
    return drafts


def _sampled_before(question: Mapping[str, Any], completion: tuple[int, ...]) -> Completion | None:
    """A completion that the student sampled before the job, if the row says how likely it found it."""
    log_probs = question.get("sampler_log_probs")
    return None if log_probs is None else Completion(completion, torch.tensor(log_probs), stopped=True)


def scored(drafts: Sequence[Draft], teacher: Teacher, wanted: Wanted) -> list[Rollout]:
    """The rollouts, in their order. Raises what the teacher raises."""
    scores = teacher.score([each.row for each in drafts], wanted)
    return [each.scored(found, wanted.of(each.row)) for each, found in zip(drafts, scores, strict=True)]
