"""Divergences at their limits: impossible classes, huge logits, equal inputs, gradients that stay finite."""

from __future__ import annotations

import math

import pytest
import torch

from gosvae.errors import ConfigError, ShapeError
from gosvae.losses import imitation_loss, jensen_shannon, kullback_leibler, mean_squared_error

KINDS = ("jsd", "kld", "ce")


def logits(*rows: list[float]) -> torch.Tensor:
    """One image of one row, a pixel for each list of class logits."""
    return torch.tensor(rows).t().reshape(1, len(rows[0]), 1, len(rows)).contiguous()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("big", [1e4, math.inf])
def test_impossible_classes_give_finite_values_and_gradients(kind: str, big: float) -> None:
    original = logits([0.0, -big, -big], [0.0, -big, 1.0], [-big, 0.0, 0.0])
    for given in (logits([-big, 0.0, -big], [0.0, -big, 1.0], [0.0, 0.0, 0.0]), original.clone()):
        given.requires_grad_()
        loss = imitation_loss(kind, original, given)
        loss.backward()
        assert loss.isfinite()
        assert given.grad.isfinite().all()


def test_disjoint_distributions_are_ln_2_apart() -> None:
    loss = jensen_shannon(logits([1e4, -1e4]), logits([-1e4, 1e4]))
    assert loss.item() == pytest.approx(math.log(2.0), abs=1e-5)


def test_kullback_leibler_pushes_a_class_that_is_wrongly_impossible() -> None:
    given = logits([0.0, -math.inf]).requires_grad_()
    kullback_leibler(logits([0.0, 0.0]), given).backward()
    torch.testing.assert_close(given.grad.flatten(), torch.tensor([0.5, -0.5]))


@pytest.mark.parametrize("kind", ["jsd", "kld"])
def test_equal_logits_cost_nothing_and_pull_nowhere(kind: str) -> None:
    original = torch.randn(2, 11, 5, 7, generator=torch.Generator().manual_seed(0)) * 4
    given = (original + 3.0).requires_grad_()  # the same distribution
    loss = imitation_loss(kind, original, given)
    loss.backward()
    assert abs(loss.item()) < 1e-6
    assert given.grad.abs().max() < 1e-7


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_descent_arrives_at_the_original(kind: str) -> None:
    generator = torch.Generator().manual_seed(1)
    original = torch.randn(1, 5, 4, 4, generator=generator) * 3
    given = torch.randn(1, 5, 4, 4, generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([given], lr=0.1)
    start = imitation_loss(kind, original, given).item()
    for _ in range(80):
        optimizer.zero_grad()
        loss = imitation_loss(kind, original, given)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05 * start
    assert torch.equal(given.argmax(1), original.argmax(1))


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_logits_are_computed_in_float32(kind: str) -> None:
    generator = torch.Generator().manual_seed(2)
    original, given = torch.randn(2, 2, 6, 3, 3, generator=generator).bfloat16()
    given.requires_grad_()
    loss = imitation_loss(kind, original, given)
    loss.backward()
    assert loss.dtype == torch.float32
    assert given.grad.dtype == torch.bfloat16
    torch.testing.assert_close(loss, imitation_loss(kind, original.float(), given.detach().float()))


@pytest.mark.parametrize("kind", KINDS)
def test_the_original_is_a_fixed_target_and_inputs_stay_as_they_are(kind: str) -> None:
    original = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(3)).requires_grad_()
    given = (original.detach() * 0.5).requires_grad_()
    before = original.detach().clone(), given.detach().clone()
    imitation_loss(kind, original, given).backward()
    assert original.grad is None
    assert torch.equal(original, before[0])
    assert torch.equal(given, before[1])


def test_wrong_use_is_told() -> None:
    with pytest.raises(ShapeError):
        jensen_shannon(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 3))
    with pytest.raises(ShapeError):
        jensen_shannon(torch.zeros(3, 2, 2), torch.zeros(3, 2, 2))
    with pytest.raises(ShapeError):
        mean_squared_error(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 4, 2))
    with pytest.raises(ConfigError, match=r"unknown imitation loss 'jds'; did you mean 'jsd'\?"):
        imitation_loss("jds", torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2))
