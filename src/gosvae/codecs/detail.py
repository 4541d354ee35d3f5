"""The detail layer: a picture at full, half, third or quarter size as one AV1 frame, and the search for a budget.

A slice of the layer is a whole picture. Its first byte holds the reduction less 1 (two bits) and the tools of the frame
(six bits), its second the quality at which the frame was coded; the frame follows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from gosvae.codecs.av1 import MAX_TOOLS, QUALITIES, Av1Frame, decode_av1, encode_av1
from gosvae.errors import BitstreamError
from gosvae.tensors import ImageArray

REDUCTIONS = (1, 2, 3, 4)
"""Factors by which a coded picture may be smaller than the image, on each axis."""
_HEAD_BYTES = 2
_FREE_PIXELS, _PIXELS_PER_BYTE = 2**21, 2**16
"""Number of pixels of a coded picture of any length, and of further pixels for each byte of the frame."""
_SLOPE, _USUAL_BPP = 0.06, 0.55
"""Rise of the binary logarithm of the bytes with the quality, and bits per pixel at quality 50, for first guesses."""
_QUICK = 9
"""Speed of the encoder from which a frame takes so little time that it is tried without a look before."""
_ENOUGH = 0.85
"""Least share of a budget with which a search may end early."""


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
    height, width = _reduced(image_uint8_HW3.shape[0], image_uint8_HW3.shape[1], reduction)
    frame = encode_av1(_resized(image_uint8_HW3, height, width), quality, speed=speed)
    # AV1 allows for zeros behind the data of a tile.
    data = frame.data.ljust(_least_bytes(height, width), b"\0")
    return bytes([(reduction - 1) << 6 | frame.tools, quality]) + data


def decode_detail(payload: bytes, height: int, width: int) -> Detail:
    """Return the picture of a slice, for an image of height x width pixels.

    Raises:
        BitstreamError: no encoder makes the slice.
    """
    if len(payload) <= _HEAD_BYTES or payload[1] not in QUALITIES:
        raise BitstreamError(f"damaged: {len(payload)} bytes are no slice of a detail layer")
    reduction, quality = (payload[0] >> 6) + 1, payload[1]
    frame, size_hw = Av1Frame(payload[0] & MAX_TOOLS, payload[_HEAD_BYTES:]), _reduced(height, width, reduction)
    if len(frame.data) < _least_bytes(*size_hw):
        raise BitstreamError(f"damaged: {len(payload)} bytes are no picture of {size_hw[0]}x{size_hw[1]} pixels")
    reduced = decode_av1(frame, *size_hw)
    return Detail(_resized(reduced, height, width), reduction, quality, len(payload))


def quality_of(payload: bytes) -> int:
    """Return the quality at which a slice was coded, 1..100."""
    return payload[1]


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

        A guess from the bytes that are known so far comes first. The search ends when no better quality is left, or
        after so many tries once a slice fills most of the budget.

        Args:
            reduction: one of `REDUCTIONS`.
            budget_bytes: largest length of the slice.
            tries: number of qualities that are tried.
        """
        fits, exceeds, best = QUALITIES.start - 1, QUALITIES.stop, b""
        target = math.log2(max(budget_bytes, 1))
        tried = 0
        while exceeds - fits > 1 and (tried < tries or len(best) < _ENOUGH * budget_bytes):
            quality = min(max(math.floor(self._guess(reduction, target)), fits + 1), exceeds - 1)
            payload = self.slice_of(reduction, quality)
            tried += 1
            if len(payload) <= budget_bytes:
                fits, best = quality, payload
            else:
                exceeds = quality
        return best or None

    def _guess(self, reduction: int, target: float) -> float:
        """Return the quality at which a slice probably has 2**target bytes, by what is known so far."""
        known = {q: math.log2(len(data)) for (r, q), data in self._slices.items() if r == reduction}
        if not known:
            pixels = math.prod(_reduced(self._image.shape[0], self._image.shape[1], reduction))
            first = 50 + (target - math.log2(pixels * _USUAL_BPP / 8)) / _SLOPE
            if self._speed >= _QUICK:
                return first
            quality = min(max(round(first), QUALITIES.start), QUALITIES.stop - 1)
            known = {quality: math.log2(len(encode_detail(self._image, reduction, quality, speed=_QUICK)))}
        nearest = min(known, key=lambda quality: abs(known[quality] - target))
        slope = _SLOPE
        if len(known) > 1:
            other = min((q for q in known if q != nearest), key=lambda quality: abs(quality - nearest))
            slope = max(_SLOPE / 3, (known[other] - known[nearest]) / (other - nearest))
        return nearest + (target - known[nearest]) / slope


def structure(image_uint8_HW3: ImageArray, picture_uint8_HW3: ImageArray) -> float:
    """Return how much of the structure of an image a picture keeps, up to 1.

    It is the structural similarity of Wang et al. 2004 of green, over blocks of 8x8 pixels that do not overlap.
    """
    sides = [min(8, side) for side in image_uint8_HW3.shape[:2]]
    rows, columns = (length // side for length, side in zip(image_uint8_HW3.shape[:2], sides, strict=True))

    def blocks(image: ImageArray) -> npt.NDArray[np.float32]:
        cut_HW = image[: rows * sides[0], : columns * sides[1], 1].astype(np.float32)
        return cut_HW.reshape(rows, sides[0], columns, sides[1])

    x, y = blocks(image_uint8_HW3), blocks(picture_uint8_HW3)
    mean_x, mean_y = x.mean(axis=(1, 3)), y.mean(axis=(1, 3))
    variances = x.var(axis=(1, 3)) + y.var(axis=(1, 3))
    covariance = (x * y).mean(axis=(1, 3)) - mean_x * mean_y
    c_1, c_2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    means = (2 * mean_x * mean_y + c_1) / (mean_x**2 + mean_y**2 + c_1)
    return float((means * (2 * covariance + c_2) / (variances + c_2)).mean())


def _least_bytes(height: int, width: int) -> int:
    """Return the least length of a frame of this size, so that a few bytes reserve little memory."""
    return -(-max(0, height * width - _FREE_PIXELS) // _PIXELS_PER_BYTE)


def _reduced(height: int, width: int, reduction: int) -> tuple[int, int]:
    """Return the size of the coded picture."""
    return -(-height // reduction), -(-width // reduction)


def _resized(image_uint8_HW3: ImageArray, height: int, width: int) -> ImageArray:
    """Return the picture at another size, resampled bicubically in integers."""
    if image_uint8_HW3.shape[:2] == (height, width):
        return np.ascontiguousarray(image_uint8_HW3)
    return np.asarray(Image.fromarray(image_uint8_HW3).resize((width, height), Image.Resampling.BICUBIC))
