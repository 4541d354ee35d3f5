"""The losses against a lattice."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gosvae.errors import ShapeError
from gosvae.losses.pattern import fixed_pattern, repeated_pattern

ZEROS = torch.zeros(2, 3, 64, 128)


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lattice(stride: int) -> Tensor:
    wave = torch.cos(2 * math.pi * torch.arange(128) / stride)
    return (wave[:64, None] * wave).expand(2, 3, 64, 128)


@pytest.mark.parametrize("loss", [repeated_pattern, fixed_pattern])
def test_a_lattice_counts_whole_and_noise_not_at_all(loss: Callable[..., Tensor]) -> None:
    noise = torch.randn(ZEROS.shape, generator=generator())
    for signs in (None, generator(2)):
        assert float(loss(ZEROS, lattice(16) + 0.3, signs)) == pytest.approx(0.25, rel=1e-4)
        assert float(loss(ZEROS, lattice(4), signs)) == pytest.approx(0.25, rel=1e-4)
        assert float(loss(ZEROS, noise, signs)) == pytest.approx(0.0, abs=0.004)
        assert float(loss(ZEROS, noise + lattice(16), signs)) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("loss", [repeated_pattern, fixed_pattern])
def test_what_is_alike_in_a_whole_square_or_in_both_pictures_does_not_count(loss: Callable[..., Tensor]) -> None:
    assert float(loss(ZEROS, ZEROS + 0.3)) == pytest.approx(0.0, abs=1e-12)
    assert float(loss(lattice(16), lattice(16))) == 0.0


def test_a_lattice_that_turns_over_from_window_to_window_is_no_fixed_pattern_but_counts() -> None:
    turned = lattice(16).clone()
    turned[..., 64:] *= -1
    assert float(repeated_pattern(ZEROS, turned)) == pytest.approx(0.25, rel=1e-4)
    assert float(fixed_pattern(ZEROS, turned)) == pytest.approx(0.0, abs=1e-6)


def test_errors_without_a_lattice_are_not_pushed_down_on_average() -> None:
    noise = torch.randn(ZEROS.shape, generator=generator(), requires_grad=True)
    pushes = [torch.autograd.grad(repeated_pattern(ZEROS, noise, generator(seed)), noise)[0] for seed in range(40)]
    plain = torch.autograd.grad(noise.square().mean() / 16, noise)[0]
    down = (torch.stack(pushes).mean(dim=0) * noise.detach()).sum() / (plain * noise.detach()).sum()
    assert abs(float(down)) < 0.1


def test_pixels_beyond_the_last_window_are_left_out_and_small_pictures_refused() -> None:
    larger = torch.nn.functional.pad(lattice(16), (0, 40, 0, 7))
    torch.testing.assert_close(repeated_pattern(torch.zeros_like(larger), larger), repeated_pattern(ZEROS, lattice(16)))
    assert float(repeated_pattern(ZEROS[..., :40, :], lattice(16)[..., :40, :])) == pytest.approx(0.25, rel=1e-4)
    for loss in (repeated_pattern, fixed_pattern):
        with pytest.raises(ShapeError, match="at least 32 pixels a side"):
            loss(ZEROS[..., :31, :], ZEROS[..., :31, :])
