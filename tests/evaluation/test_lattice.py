"""The lattice of a grid, found in spectra."""

from __future__ import annotations

import numpy as np
import pytest

from gosvae.errors import ShapeError
from gosvae.evaluation.lattice import LatticeMeter, harmonic_energy
from gosvae.tensors import ImageArray


def noise(height: int = 128, width: int = 192) -> ImageArray:
    return np.random.default_rng(3).integers(60, 196, (height, width, 3), dtype=np.uint8)


def with_lattice(image: ImageArray, amplitude: int, stride: int = 16) -> ImageArray:
    rows, columns = (np.arange(side)[:, None] for side in image.shape[:2])
    pattern_HW = amplitude * np.cos(2 * np.pi * (2 * rows + 3 * columns.T) / stride)
    return (image + pattern_HW[..., None]).round().clip(0, 255).astype(np.uint8)


def test_a_wave_stands_at_its_own_harmonic() -> None:
    flat = np.full((128, 192, 3), 128, np.uint8)
    energy_PQ = harmonic_energy(with_lattice(flat, 20))
    assert energy_PQ.shape == (16, 9)
    assert np.unravel_index(energy_PQ.argmax(), energy_PQ.shape) == (2, 3)
    # A Hann window leaves a quarter of the sum, and a real wave half of its amplitude: 20 / 2 * 128 * 192 / 4.
    assert energy_PQ[2, 3] == pytest.approx((20 / 2 * 128 * 192 / 4) ** 2, rel=0.05)
    assert harmonic_energy(flat).max() == pytest.approx(0.0, abs=1e-6)


def test_what_is_no_lattice_counts_nothing() -> None:
    image = noise()
    meter = LatticeMeter()
    assert meter.value() is None
    meter.update(image, image)
    assert meter.value() == pytest.approx(1.0)
    off_the_grid = LatticeMeter()
    off_the_grid.update(image, with_lattice(image, 10, stride=20))
    value = off_the_grid.value()
    assert value is not None
    assert value < 1.5


def test_a_lattice_is_seen_below_the_noise() -> None:
    image, meter = noise(), LatticeMeter()
    meter.update(image, with_lattice(image, 8))
    value = meter.value()
    assert value is not None
    assert value > 2


def test_pictures_of_any_size_are_cut_to_whole_squares() -> None:
    assert harmonic_energy(noise(45, 70)).shape == (16, 9)
    np.testing.assert_allclose(harmonic_energy(noise()[:45, :70]), harmonic_energy(noise()[:32, :64]))
    with pytest.raises(ShapeError, match="at least 32 pixels a side"):
        harmonic_energy(noise(31, 64))
