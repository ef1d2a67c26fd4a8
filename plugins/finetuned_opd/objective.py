"""What the student loses at each token, by the chunk, and what is measured of it on the way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from finetuned_opd import divergence, policy_gradient
from finetuned_opd.batch import Batch
from finetuned_opd.chunked_loss import Head
from finetuned_opd.params import OPDParams
from finetuned_opd.scores import Wanted

COMPARED = 16  # tokens of each model whose overlap is measured
EVERY = 8  # positions of which one is looked at for that: finding the likeliest of a vocabulary takes time


class Measures:
    """Means over tokens, added up by chunks: sums and counts by name, on the CPU once they are read."""

    def __init__(self) -> None:
        self._sums: dict[str, list[Tensor]] = defaultdict(list)
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, name: str, values: Tensor) -> None:
        """The values of some tokens."""
        self._sums[name].append(values.detach().sum())
        self._counts[name] += values.numel()

    def totals(self) -> dict[str, tuple[float, int]]:
        """The sum and the count of each; waits for the device."""
        return {
            name: (float(torch.stack(sums).sum()), self._counts[name]) for name, sums in self._sums.items()
        }


@dataclass(frozen=True, slots=True)
class Objective:
    """The loss of a job: which divergence, of which tokens, and how much of a cross-entropy beside it."""

    kind: str  # divergence or policy_gradient
    beta: float
    compares: int | None  # of the teacher's likeliest tokens; none: the whole vocabulary
    tail: bool
    estimator: str | None
    temperature: float
    weight: float  # of the divergence; the rest is the cross-entropy's

    @classmethod
    def of(cls, params: OPDParams) -> Objective:
        """What the parameters ask for."""
        return cls(
            kind=params.objective,
            beta=params.beta,
            compares=params.compared_tokens,
            tail=params.tail,
            estimator=params.estimator,
            temperature=params.temperature,
            weight=params.kl_weight,
        )

    def wanted(self, tokens: int | None, *, hidden: bool) -> Wanted:
        """What to ask a teacher for; ``hidden`` if it can give hidden states."""
        if self.token_alone:
            return Wanted(top_k=1 if self.weight < 1 else 0, tokens=tokens)
        if hidden:
            return Wanted(hidden=True, log_probs=False, tokens=tokens)
        return Wanted(top_k=self.compares or 1, tokens=tokens)

    @property
    def is_plain(self) -> bool:
        """Whether it is the reverse KL over the whole vocabulary at temperature 1."""
        return not self.token_alone and self.compares is None and self.beta == 1 and self.temperature == 1

    @property
    def token_alone(self) -> bool:
        """Whether no more is asked of the teacher than the log-probability of each token."""
        return self.kind == "policy_gradient" or self.estimator is not None


class TokenLoss:
    """The loss of the tokens of one batch, given the student's logits at some of their positions.

    Called by :func:`finetuned_opd.chunked_loss.chunked_loss`. ``teacher`` is its head if its hidden states were scored.
    """

    def __init__(
        self, objective: Objective, batch: Batch, teacher: Head | None, measures: Measures | None
    ) -> None:
        self._objective = objective
        self._batch = batch
        self._teacher = teacher
        self._measures = measures

    def __call__(self, logits: Tensor, rows: slice) -> Tensor:
        """Their share of the step's loss: [n, V] -> one number."""
        objective, batch = self._objective, self._batch
        teacher = self._teacher_log_probs(rows, logits.shape[-1])
        if objective.is_plain and teacher is not None:
            lost, student, entropy = divergence.reverse_kl_of_logits(logits, teacher)
        else:
            student = torch.log_softmax(logits, dim=-1)
            lost, entropy = self._lost(logits, student, teacher, rows), None
        share = objective.weight / batch.window_tokens * lost.sum()
        if objective.weight < 1 and bool(batch.unanswered[rows].any()):
            likeliest = self._likeliest(teacher, rows)[batch.unanswered[rows]]
            missed = functional.cross_entropy(logits[batch.unanswered[rows]], likeliest, reduction="sum")
            share = share + (1 - objective.weight) / batch.window_answer_tokens * missed
        if self._measures is not None:
            with torch.no_grad():
                self._measure(student.detach(), teacher, lost.detach(), entropy, rows)
        return share

    def _teacher_log_probs(self, rows: slice, size: int) -> Tensor | None:
        """Over the whole vocabulary, at temperature 1; ``None`` if the teacher said less.

        Of more logits than the student's ``size`` those are taken that it has: the others are padding. It may have fewer.
        """
        hidden = self._batch.teacher_hidden
        if hidden is None or self._teacher is None:
            return None
        with torch.no_grad():
            return torch.log_softmax(self._teacher.logits(hidden[rows]), dim=-1)[:, :size]

    def _lost(self, logits: Tensor, student: Tensor, teacher: Tensor | None, rows: slice) -> Tensor:
        """What is lost at each position: [n]."""
        objective = self._objective
        if objective.token_alone:
            return self._lost_by_token(self._of_token(student, rows), rows)
        if teacher is None or objective.compares is not None:
            ids, log_probs = self._top(teacher, rows)
            of_top = student.gather(-1, ids)
            if objective.tail:
                of_top, log_probs = divergence.with_tail(of_top), divergence.with_tail(log_probs)
            return divergence.generalized_jsd(of_top, log_probs, objective.beta)
        if objective.temperature != 1:
            student = torch.log_softmax(logits / objective.temperature, dim=-1)
            teacher = torch.log_softmax(teacher / objective.temperature, dim=-1)
        return divergence.generalized_jsd(student, teacher, objective.beta)

    def _of_token(self, log_probs: Tensor, rows: slice) -> Tensor:
        """The log-probabilities of the tokens themselves: [n]."""
        return log_probs.gather(-1, self._batch.tokens[rows, None]).squeeze(-1)

    def _lost_by_token(self, of_token: Tensor, rows: slice) -> Tensor:
        batch = self._batch
        teacher, sampler = batch.teacher_log_probs[rows], batch.sampler_log_probs[rows]
        if self._objective.kind == "policy_gradient":
            advantage = policy_gradient.advantages(teacher, sampler)
            return policy_gradient.importance_weighted_loss(of_token, sampler, advantage)
        return divergence.estimated(of_token, teacher, self._objective.estimator or "k3")

    def _top(self, teacher: Tensor | None, rows: slice) -> tuple[Tensor, Tensor]:
        """The teacher's likeliest tokens and their log-probabilities: [n, K] and [n, K]."""
        batch = self._batch
        if batch.top_ids is not None and batch.top_log_probs is not None:
            return batch.top_ids[rows], batch.top_log_probs[rows]
        assert teacher is not None
        assert self._objective.compares is not None
        log_probs, ids = teacher.topk(self._objective.compares, dim=-1)
        return ids, log_probs

    def _likeliest(self, teacher: Tensor | None, rows: slice) -> Tensor:
        """The teacher's likeliest token at each position: [n]."""
        if teacher is not None:
            return teacher.argmax(-1)
        assert self._batch.top_ids is not None
        return self._batch.top_ids[rows, 0]

    def _measure(
        self, student: Tensor, teacher: Tensor | None, lost: Tensor, entropy: Tensor | None, rows: slice
    ) -> None:
        assert self._measures is not None
        batch, of_token = self._batch, self._of_token(student, rows)
        self._measures.add("entropy", -(student.exp() * student).sum(-1) if entropy is None else entropy)
        for name, values in self._figures(student, teacher, of_token, lost, rows):
            self._measures.add(name, values)
        sampled = ~torch.isnan(batch.sampler_log_probs[rows])
        if bool(sampled.any()):
            gap = (of_token - batch.sampler_log_probs[rows])[sampled].abs()
            self._measures.add("sampler_gap", gap)

    def _figures(
        self, student: Tensor, teacher: Tensor | None, of_token: Tensor, lost: Tensor, rows: slice
    ) -> Iterator[tuple[str, Tensor]]:
        """Name and values of what is measured at each position, or at some of them."""
        batch, objective = self._batch, self._objective
        if objective.token_alone:
            yield "kl_reverse_k1", of_token - batch.teacher_log_probs[rows]
        if teacher is None and batch.top_ids is None:
            return
        agrees = student.argmax(-1) == self._likeliest(teacher, rows)
        yield "token_agreement", agrees.float()
        if teacher is None:
            assert batch.top_log_probs is not None
            assert batch.top_ids is not None
            of_top = student.gather(-1, batch.top_ids[rows])
            if not objective.token_alone:
                tails = divergence.with_tail(of_top), divergence.with_tail(batch.top_log_probs[rows])
                yield "kl_reverse_top_k", divergence.reverse_kl(*tails)
            return
        student = student[:, : teacher.shape[-1]]
        yield "kl_reverse", lost if objective.is_plain else divergence.reverse_kl(student, teacher)
        some = slice(None, None, EVERY)
        compared = min(COMPARED, student.shape[-1])
        mine, theirs = student[some].topk(compared).indices, teacher[some].topk(compared).indices
        yield "top_overlap", (mine[:, :, None] == theirs[:, None, :]).any(-1).float()
        yield "teacher_mass", teacher[some].gather(-1, mine).exp().sum(-1)


def answer_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """The cross-entropy on answers, summed: [m, V] and [m] -> one number."""
    return functional.cross_entropy(logits, tokens, reduction="sum")
