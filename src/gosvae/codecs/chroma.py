"""Pictures with stronger colours, for encoders that would code colours too coarsely for perception models.

An encoder of pictures for people spends few bits on colours, because eyes do not miss much. Perception models do. Where
the colours of a picture are g times as strong before the encoder, and weaker by as much behind the decoder, their error
is g times smaller. All arithmetic is in integers, so that every decoder shows the same picture.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gosvae.tensors import ImageArray

GAINS = (2, 3, 4)
"""Halves of the factor by which colours may be stronger: 1, 1.5 and 2."""
_MOST_LOSS = 2.0
"""Largest mean squared error by which stronger colours may leave the range of the samples, in grey levels."""
_WEIGHTS = np.array([77, 150, 29], np.int32)
"""Parts of 256 of red, green and blue in the brightness (BT.601)."""


def strengthened(image_uint8_HW3: ImageArray, gain: int) -> ImageArray:
    """Return a picture with colours `gain` / 2 times as strong, limited to 0..255; `gain` is one of `GAINS`."""
    if gain == GAINS[0]:
        return image_uint8_HW3
    values = image_uint8_HW3.astype(np.int32)
    return _limited((_brightness(values) * (2 - gain) + values * (256 * gain) + 256) // 512)


def weakened(image_uint8_HW3: ImageArray, gain: int) -> ImageArray:
    """Return a picture with colours 2 / `gain` times as strong: the inverse of `strengthened`."""
    if gain == GAINS[0]:
        return image_uint8_HW3
    values = image_uint8_HW3.astype(np.int32)
    return _limited((_brightness(values) * (gain - 2) + values * 512 + 128 * gain) // (256 * gain))


def greatest_gain(image_uint8_HW3: ImageArray) -> int:
    """Return the greatest gain that a picture bears: hardly any colour leaves the range of the samples."""
    values = image_uint8_HW3.astype(np.int32)
    for gain in (4, 3):
        back = weakened(strengthened(image_uint8_HW3, gain), gain)
        if float(np.square(values - back).mean()) <= _MOST_LOSS:
            return gain
    return 2


def _brightness(values_HW3: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Return 256 times the brightness (H, W, 1)."""
    brightness: npt.NDArray[np.int32] = (values_HW3 @ _WEIGHTS)[..., None]
    return brightness


def _limited(values: npt.NDArray[np.int32]) -> ImageArray:
    return values.clip(0, 255).astype(np.uint8)
