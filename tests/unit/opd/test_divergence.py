"""Divergences of the student from the teacher: against their definitions, TRL and their known properties."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from torch import Tensor

torch = pytest.importorskip("torch")

from finetuned_opd import divergence, policy_gradient  # noqa: E402
from finetuned_opd.chunked_loss import Head, chunked_loss  # noqa: E402

pytestmark = pytest.mark.torch
BETAS = (0.0, 0.1, 0.5, 0.9, 1.0)


def log_probs(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(3 * torch.randn(*shape, generator=generator), dim=-1)


def test_the_kls_are_what_they_are_defined_as() -> None:
    student, teacher = log_probs(4, 11), log_probs(4, 11, seed=1)
    forward = (teacher.exp() * (teacher - student)).sum(-1)
    torch.testing.assert_close(divergence.forward_kl(student, teacher), forward)
    torch.testing.assert_close(divergence.reverse_kl(teacher, student), forward)


@pytest.mark.parametrize("beta", BETAS)
def test_a_student_that_is_its_teacher_is_at_no_distance_and_learns_nothing(beta: float) -> None:
    student = log_probs(4, 11).requires_grad_()
    distance = divergence.generalized_jsd(torch.log_softmax(student, -1), student.detach(), beta)
    torch.testing.assert_close(distance, torch.zeros(4), atol=1e-6, rtol=0)
    distance.sum().backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad, torch.zeros(4, 11), atol=1e-6, rtol=0)


@pytest.mark.parametrize("beta", BETAS)
def test_every_divergence_is_above_zero_for_others_and_the_mixtures_are_bounded(beta: float) -> None:
    distance = divergence.generalized_jsd(log_probs(50, 11), log_probs(50, 11, seed=1), beta)
    assert (distance > 0).all()
    if 0 < beta < 1:
        assert (distance <= -(beta * math.log(beta) + (1 - beta) * math.log1p(-beta)) + 1e-6).all()


@pytest.mark.parametrize("beta", [-0.1, 1.1])
def test_a_beta_that_mixes_nothing_is_refused(beta: float) -> None:
    with pytest.raises(ValueError, match="beta must be from 0"):
        divergence.generalized_jsd(log_probs(1, 3), log_probs(1, 3), beta)


def test_with_its_tail_a_part_of_the_vocabulary_is_a_distribution() -> None:
    most_likely = log_probs(5, 40).topk(7, dim=-1).values
    whole = divergence.with_tail(most_likely)
    torch.testing.assert_close(torch.logsumexp(whole, -1), torch.zeros(5), atol=1e-6, rtol=0)
    assert divergence.with_tail(torch.tensor([[0.0]])).isfinite().all()


def test_without_the_tail_the_student_gets_closer_by_leaving_the_teachers_tokens_and_with_it_farther() -> (
    None
):
    teacher = torch.log(torch.tensor([[0.6, 0.3, 0.05, 0.05]]))
    near, away = (
        torch.log(torch.tensor([[0.6, 0.3, 0.05, 0.05]])),
        torch.log(torch.tensor([[0.06, 0.03, 0.46, 0.45]])),
    )
    bare = [divergence.reverse_kl(each[:, :2], teacher[:, :2]).item() for each in (near, away)]
    assert bare[1] < bare[0]
    tailed = [
        divergence.reverse_kl(divergence.with_tail(each[:, :2]), divergence.with_tail(teacher[:, :2])).item()
        for each in (near, away)
    ]
    assert tailed[1] > tailed[0]


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_chunk_by_chunk_loss_and_gradients_are_those_of_trl(beta: float, chunk: int) -> None:
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    generator = torch.Generator().manual_seed(3)
    hidden, weight, bias, of_teacher, teacher_weight = (
        torch.randn(*shape, generator=generator) for shape in ((13, 8), (31, 8), (31,), (13, 12), (31, 12))
    )
    temperature = 1.7
    results = []
    for ours in (True, False):
        leaves = [each.clone().requires_grad_() for each in (hidden, weight, bias)]
        if ours:
            teacher = Head(teacher_weight)

            def loss(logits: Tensor, rows: slice, teacher: Head = teacher) -> Tensor:
                pair = (logits, teacher.logits(of_teacher[rows]))
                student, other = (torch.log_softmax(each / temperature, dim=-1) for each in pair)
                return divergence.generalized_jsd(student, other, beta).sum()

            total = chunked_loss(leaves[0], Head(leaves[1], leaves[2]), loss, chunk=chunk)
        else:
            each, _ = ChunkedDivergenceFunction.apply(
                *leaves, of_teacher, teacher_weight, None, beta, temperature
            )
            total = each.sum()
        (total / 13).backward()
        results.append((total.detach(), *(leaf.grad for leaf in leaves)))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_a_frozen_head_and_a_pass_without_gradients_are_served_too() -> None:
    hidden, weight = torch.randn(6, 4), torch.randn(9, 4)

    def loss(logits: Tensor, _rows: slice) -> Tensor:
        return logits.logsumexp(-1).sum()

    trained = hidden.clone().requires_grad_()
    total = chunked_loss(trained, Head(weight), loss, chunk=4)
    total.backward()
    whole = hidden.clone().requires_grad_()
    torch.logsumexp(whole @ weight.T, -1).sum().backward()
    torch.testing.assert_close(trained.grad, whole.grad)
    with torch.no_grad():
        torch.testing.assert_close(chunked_loss(hidden, Head(weight), loss), total.detach())


def test_scale_and_softcap_are_applied_as_models_that_have_them_do() -> None:
    head = Head(torch.eye(3), scale=0.5, softcap=30.0)
    hidden = torch.tensor([[2.0, -400.0, 0.0]])
    torch.testing.assert_close(head.logits(hidden), 30 * torch.tanh(hidden * 0.5 / 30))


def test_the_policy_gradient_is_that_of_the_reverse_kl() -> None:
    """Over all tokens, weighted as the sampler draws them: ∇ Σ_y μ(y)·loss(y) = ∇ KL(π_S ‖ π_T) where μ = π_S."""
    logits = torch.randn(6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    teacher = log_probs(6, seed=4)
    (wanted,) = torch.autograd.grad(divergence.reverse_kl(torch.log_softmax(logits, -1), teacher), logits)
    student = torch.log_softmax(logits, -1)
    sampler = student.detach()
    advantage = policy_gradient.advantages(teacher, sampler)
    expected = (sampler.exp() * policy_gradient.importance_weighted_loss(student, sampler, advantage)).sum()
    (found,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_a_sampler_that_is_not_the_student_is_corrected_for() -> None:
    logits = torch.randn(6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    teacher, sampler = log_probs(6, seed=4), log_probs(6, seed=5)
    student = torch.log_softmax(logits, -1)
    advantage = policy_gradient.advantages(teacher, sampler)
    drawn_by_sampler = (
        sampler.exp() * policy_gradient.importance_weighted_loss(student, sampler, advantage)
    ).sum()
    drawn_by_student = -(student.exp() * advantage).sum()
    torch.testing.assert_close(drawn_by_sampler, drawn_by_student)
    assert not advantage.requires_grad


def test_the_reverse_kl_of_logits_has_the_value_and_the_gradient_that_autograd_finds() -> None:
    logits = 3 * torch.randn(5, 13, generator=torch.Generator().manual_seed(0))
    teacher, weight = log_probs(5, 13, seed=1), torch.rand(5)
    ours, autograds = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    kl, student, entropy = divergence.reverse_kl_of_logits(ours, teacher)
    (kl * weight).sum().backward()
    expected = divergence.reverse_kl(torch.log_softmax(autograds, -1), teacher)
    (expected * weight).sum().backward()
    torch.testing.assert_close(kl, expected)
    torch.testing.assert_close(ours.grad, autograds.grad)
    torch.testing.assert_close(student, torch.log_softmax(logits, -1))
    torch.testing.assert_close(entropy, -(student.exp() * student).sum(-1))


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_the_estimators_gradients_are_those_of_the_divergences_that_they_stand_for(estimator: str) -> None:
    """In the mean over the student's samples: k2 has the gradient of the reverse KL, k3 that of the forward KL."""
    logits = torch.randn(6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    teacher = log_probs(6, seed=1)
    student = torch.log_softmax(logits, -1)
    mean = (student.exp().detach() * divergence.estimated(student, teacher, estimator)).sum()
    (found,) = torch.autograd.grad(mean, logits, retain_graph=True)
    whole = divergence.reverse_kl if estimator == "k2" else divergence.forward_kl
    (expected,) = torch.autograd.grad(whole(student, teacher), logits)
    torch.testing.assert_close(found, expected)


def test_k1_is_no_loss() -> None:
    with pytest.raises(ValueError, match="k1 cannot be a loss"):
        divergence.estimated(log_probs(3), log_probs(3), "k1")


@pytest.mark.parametrize("biased", [False, True])
def test_a_packed_head_projects_and_learns_as_the_plain_one_does(biased: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(13, 64, generator=generator), torch.randn(70, 64, generator=generator)
    bias = torch.randn(70, generator=generator) if biased else None

    def loss(logits: Tensor, _rows: slice) -> Tensor:
        return logits.logsumexp(-1).square().sum()

    found = []
    for packs in (False, True):
        leaves = [each.clone().requires_grad_() for each in (hidden, weight, bias) if each is not None]
        head = Head(leaves[1], leaves[2] if biased else None, scale=0.5, softcap=20.0)
        total = chunked_loss(leaves[0], head.packing() if packs else head, loss, chunk=5)
        total.backward()
        found.append((total.detach(), *(leaf.grad for leaf in leaves)))
    for plain, packed in zip(*found, strict=True):
        torch.testing.assert_close(plain, packed, rtol=1e-4, atol=1e-4)


def test_a_frozen_model_gives_what_it_gave_and_keeps_its_head() -> None:
    from finetuned_decoding import packed_linear

    torch.manual_seed(0)
    head = torch.nn.Linear(32, 50)
    model = torch.nn.Sequential(
        torch.nn.Linear(16, 32, bias=False), torch.nn.Sequential(torch.nn.GELU(), head)
    )
    x = torch.randn(2, 3, 16)
    with torch.no_grad():
        before = model(x)
        packed_linear.freeze(model, but=head)
        torch.testing.assert_close(model(x), before)
    assert model[1][1] is head
