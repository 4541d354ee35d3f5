"""The losses against a lattice."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gosvae.errors import ShapeError
from gosvae.losses.pattern import fixed_pattern, repeated_pattern

ZEROS = torch.zeros(2, 3, 64, 128)


def lattice(stride: int) -> Tensor:
    wave = torch.cos(2 * math.pi * torch.arange(128) / stride)
    return (wave[:64, None] * wave).expand(2, 3, 64, 128)


def test_a_lattice_counts_whole_and_noise_a_sixteenth() -> None:
    assert float(repeated_pattern(ZEROS, lattice(16))) == pytest.approx(0.25, rel=1e-4)
    assert float(repeated_pattern(ZEROS, lattice(4))) == pytest.approx(0.25, rel=1e-4)
    noise = torch.randn(ZEROS.shape, generator=torch.Generator().manual_seed(1))
    assert float(repeated_pattern(ZEROS, noise)) == pytest.approx(1 / 16, rel=0.05)


def test_what_is_alike_in_a_whole_square_or_in_both_pictures_does_not_count() -> None:
    assert float(repeated_pattern(ZEROS, ZEROS + 0.3)) == pytest.approx(0.0, abs=1e-12)
    assert float(repeated_pattern(lattice(16), lattice(16))) == 0.0


def test_a_lattice_that_turns_over_from_window_to_window_still_counts() -> None:
    turned = lattice(16).clone()
    turned[..., 64:] *= -1
    assert float(repeated_pattern(ZEROS, turned)) == pytest.approx(0.25, rel=1e-4)


def test_pixels_beyond_the_last_window_are_left_out_and_small_pictures_refused() -> None:
    larger = torch.nn.functional.pad(lattice(16), (0, 40, 0, 7))
    torch.testing.assert_close(repeated_pattern(torch.zeros_like(larger), larger), repeated_pattern(ZEROS, lattice(16)))
    assert float(repeated_pattern(ZEROS[..., :40, :], lattice(16)[..., :40, :])) == pytest.approx(0.25, rel=1e-4)
    with pytest.raises(ShapeError, match="at least 32 pixels a side"):
        repeated_pattern(ZEROS[..., :31, :], ZEROS[..., :31, :])


def test_a_fixed_pattern_counts_whole_and_noise_by_the_number_of_squares() -> None:
    assert float(fixed_pattern(ZEROS, lattice(16) + 0.3)) == pytest.approx(0.25, rel=1e-4)
    noise = torch.randn(ZEROS.shape, generator=torch.Generator().manual_seed(1))
    assert float(fixed_pattern(ZEROS, noise)) == pytest.approx(1 / 64, rel=0.1)
    turned = lattice(16) * torch.tensor([1.0, -1.0])[:, None, None, None]
    assert float(fixed_pattern(ZEROS, turned)) == pytest.approx(0.0, abs=1e-12)
    assert float(fixed_pattern(lattice(16), lattice(16))) == 0.0
    with pytest.raises(ShapeError, match="at least 16 pixels a side"):
        fixed_pattern(ZEROS[..., :15, :], ZEROS[..., :15, :])
