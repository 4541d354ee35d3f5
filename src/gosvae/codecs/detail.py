"""The detail layer: a picture at full, half, third or quarter size as one AV1 frame, and the search for a budget.

A slice of the layer is a whole picture. Its first byte holds the reduction less 1 (two bits) and the tools of the frame
(six bits), its second the quality at which the frame was coded; the frame follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from gosvae.codecs.av1 import MAX_TOOLS, QUALITIES, Av1Frame, decode_av1, encode_av1
from gosvae.errors import BitstreamError
from gosvae.tensors import ImageArray

REDUCTIONS = (1, 2, 3, 4)
"""Factors by which a coded picture may be smaller than the image, on each axis."""
_HEAD_BYTES = 2
_SLOPE = 0.055
"""Rise of the binary logarithm of the bytes with a step of quality, on average, for the first guesses of a search."""


@dataclass(frozen=True)
class Detail:
    """A decoded slice of the detail layer.

    Attributes:
        image_uint8_HW3: picture at full size.
        reduction: factor by which the coded picture is smaller; one of `REDUCTIONS`.
        quality: quality of the encoder, 1..100.
        payload_bytes: length of the slice.
    """

    image_uint8_HW3: ImageArray
    reduction: int
    quality: int
    payload_bytes: int


def encode_detail(image_uint8_HW3: ImageArray, reduction: int, quality: int, *, speed: int) -> bytes:
    """Return the slice of an image; the arguments `quality` and `speed` and the errors are those of `encode_av1`."""
    height, width = image_uint8_HW3.shape[:2]
    frame = encode_av1(_resized(image_uint8_HW3, *_reduced(height, width, reduction)), quality, speed=speed)
    return bytes([(reduction - 1) << 6 | frame.tools, quality]) + frame.data


def decode_detail(payload: bytes, height: int, width: int) -> Detail:
    """Return the picture of a slice, for an image of height x width pixels.

    Raises:
        BitstreamError: no encoder makes the slice.
    """
    if len(payload) <= _HEAD_BYTES or payload[1] not in QUALITIES:
        raise BitstreamError(f"damaged: {len(payload)} bytes are no slice of a detail layer")
    reduction, quality = (payload[0] >> 6) + 1, payload[1]
    frame = Av1Frame(payload[0] & MAX_TOOLS, payload[_HEAD_BYTES:])
    reduced = decode_av1(frame, *_reduced(height, width, reduction))
    return Detail(_resized(reduced, height, width), reduction, quality, len(payload))


class DetailSearch:
    """Search for slices of one image; what was coded once is kept.

    Args:
        image_uint8_HW3: the image.
        speed: speed of the encoder, 0..10.
    """

    def __init__(self, image_uint8_HW3: ImageArray, *, speed: int) -> None:
        self._image, self._speed = image_uint8_HW3, speed
        self._slices: dict[tuple[int, int], bytes] = {}

    def slice_of(self, reduction: int, quality: int) -> bytes:
        """Return the slice at a reduction and a quality."""
        key = reduction, quality
        if key not in self._slices:
            self._slices[key] = encode_detail(self._image, reduction, quality, speed=self._speed)
        return self._slices[key]

    def within(self, reduction: int, budget_bytes: int, *, tries: int) -> bytes | None:
        """Return the best slice that fits a budget, or None if none does.

        A guess from the bytes that are known so far comes first; the search ends when no better quality is left, or
        after so many tries once a slice fits.

        Args:
            reduction: one of `REDUCTIONS`.
            budget_bytes: largest length of the slice.
            tries: number of qualities that are tried.
        """
        fits, exceeds, best = QUALITIES.start - 1, QUALITIES.stop, None
        guess = self._guess(reduction, budget_bytes)
        tried = 0
        while exceeds - fits > 1 and (tried < tries or best is None):
            quality = min(max(guess(), fits + 1), exceeds - 1)
            payload = self.slice_of(reduction, quality)
            tried += 1
            if len(payload) <= budget_bytes:
                fits, best = quality, payload
            else:
                exceeds = quality
        return best

    def _guess(self, reduction: int, budget_bytes: int) -> Callable[[], int]:
        """Return a function that says which quality probably meets the budget, by what is known when it is called."""
        target = math.log2(max(budget_bytes, 1))

        def guess() -> int:
            known = {q: math.log2(len(data)) for (r, q), data in self._slices.items() if r == reduction}
            if not known:
                return round(50 + (target - self._expected(reduction)) / _SLOPE)
            nearest = min(known, key=lambda quality: abs(known[quality] - target))
            slope = _SLOPE
            if len(known) > 1:
                other = min((q for q in known if q != nearest), key=lambda quality: abs(quality - nearest))
                slope = max(_SLOPE / 3, (known[other] - known[nearest]) / (other - nearest))
            return math.floor(nearest + (target - known[nearest]) / slope)

        return guess

    def _expected(self, reduction: int) -> float:
        """Return the binary logarithm of the expected bytes at a quality of 50."""
        height, width = self._image.shape[:2]
        grey_HW = _resized(self._image, *_reduced(height, width, reduction))[..., 1].astype(np.float32)
        steps = [
            float(np.abs(np.diff(grey_HW, axis=axis)).mean()) if grey_HW.shape[axis] > 1 else 0.0 for axis in (0, 1)
        ]
        return math.log2(grey_HW.size) - 4.5 + 0.8 * math.log2(max(sum(steps), 0.1))


def _reduced(height: int, width: int, reduction: int) -> tuple[int, int]:
    """Return the size of the coded picture."""
    return -(-height // reduction), -(-width // reduction)


def _resized(image_uint8_HW3: ImageArray, height: int, width: int) -> ImageArray:
    """Return the picture at another size, resampled bicubically in integers."""
    if image_uint8_HW3.shape[:2] == (height, width):
        return np.ascontiguousarray(image_uint8_HW3)
    return np.asarray(Image.fromarray(image_uint8_HW3).resize((width, height), Image.Resampling.BICUBIC))
