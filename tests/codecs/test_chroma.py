"""Stronger colours: they come back, grey stays grey, and strong colours are not made stronger."""

from __future__ import annotations

import numpy as np
import pytest

from gosvae.codecs.chroma import GAINS, greatest_gain, strengthened, weakened
from gosvae.seeding import numpy_generator
from tiny import streets


@pytest.mark.parametrize("gain", GAINS)
def test_colours_come_back(gain: int) -> None:
    generator = numpy_generator(3)
    image = (100 + generator.integers(40, size=(20, 30, 3))).astype(np.uint8)
    strong = strengthened(image, gain)
    spread, strong_spread = (np.ptp(each.astype(int), axis=2).mean() for each in (image, strong))
    assert strong_spread == pytest.approx(gain / 2 * spread, rel=0.02)
    assert np.abs(weakened(strong, gain).astype(int) - image).max() <= 1


@pytest.mark.parametrize("gain", GAINS)
def test_grey_stays_grey(gain: int) -> None:
    grey = np.arange(256, dtype=np.uint8)[:, None, None].repeat(3, axis=2)
    np.testing.assert_array_equal(strengthened(grey, gain), grey)
    np.testing.assert_array_equal(weakened(grey, gain), grey)


def test_the_inverse_is_that_of_the_documentation() -> None:
    image = numpy_generator(4).integers(256, size=(50, 3)).astype(np.uint8)
    for gain in GAINS[1:]:
        for (red, green, blue), seen in zip(image.tolist(), weakened(image[None], gain)[0].tolist(), strict=True):
            brightness = 77 * red + 150 * green + 29 * blue
            sums = [(brightness * (gain - 2) + 512 * v + 128 * gain) // (256 * gain) for v in (red, green, blue)]
            assert seen == [min(255, max(0, v)) for v in sums]


def test_strong_colours_are_not_made_stronger() -> None:
    red = np.full((8, 8, 3), (230, 20, 20), np.uint8)
    assert greatest_gain(red) == 2
    assert greatest_gain(np.full((8, 8, 3), (120, 110, 100), np.uint8)) == 4
    assert greatest_gain(streets()[0].image_uint8_HW3) in GAINS
