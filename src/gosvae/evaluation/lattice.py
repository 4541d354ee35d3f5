"""A pattern that repeats with the grid of a codec, found in the spectrum of its pictures.

A decoder that paints every latent position alike leaves a lattice: the same deviation at the same place of every square
of `stride` x `stride` pixels. In the spectrum of a picture it stands at the harmonics of 1 / stride, where a picture of
the world has no more energy than beside them.

Axis legend: H and W pixels, P rows and Q columns of harmonics.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gosvae.errors import ShapeError
from gosvae.tensors import ImageArray, check_image

LUMA_3 = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the grey picture whose spectrum is taken."""


def harmonic_energy(image_uint8_HW3: ImageArray, stride: int = 16) -> npt.NDArray[np.float64]:
    """Energy (P, Q) of the grey picture at the harmonics of 1 / stride in cycles per pixel, 0 at the constant.

    The picture is cut to whole squares of `stride` pixels and multiplied by a Hann window, so that its edges do not
    count. Harmonic (p, q) is at p / stride vertically and q / stride horizontally; of two that are mirror images of
    each other one is given.

    Raises:
        ShapeError: no uint8 RGB image, or one below two squares a side.
    """
    image = check_image(image_uint8_HW3)
    height, width = (side // stride * stride for side in image.shape[:2])
    if min(height, width) < 2 * stride:
        raise ShapeError(f"a lattice of {stride} pixels needs at least {2 * stride} pixels a side", image.shape)
    grey_HW = image[:height, :width] @ np.array(LUMA_3)
    window_HW = np.hanning(height + 1)[:-1, None] * np.hanning(width + 1)[None, :-1]
    mean = float((grey_HW * window_HW).sum() / window_HW.sum())
    spectrum = np.fft.rfft2((grey_HW - mean) * window_HW)
    energy_PQ: npt.NDArray[np.float64] = np.abs(spectrum[:: height // stride, :: width // stride]) ** 2
    energy_PQ[0, 0] = 0.0
    return energy_PQ


class LatticeMeter:
    """Energy at the grid's harmonics of reconstructions over that of their originals, over a set of images."""

    def __init__(self, stride: int = 16) -> None:
        self._stride = stride
        self._original, self._reconstruction = 0.0, 0.0

    def update(self, image_uint8_HW3: ImageArray, reconstruction_uint8_HW3: ImageArray) -> None:
        """Count an image and what a codec made of it.

        Raises:
            ShapeError: as `harmonic_energy`.
        """
        self._original += float(harmonic_energy(image_uint8_HW3, self._stride).sum())
        self._reconstruction += float(harmonic_energy(reconstruction_uint8_HW3, self._stride).sum())

    def value(self) -> float | None:
        """Sum over all reconstructions by the sum over all originals: 1 where no lattice is added; None without any."""
        return self._reconstruction / self._original if self._original > 0 else None
