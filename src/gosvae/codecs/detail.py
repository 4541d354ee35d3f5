"""The detail layer: a picture at full, half, third or quarter size as one AV1 frame, and the search for a budget.

A slice of the layer is a whole picture, or the difference to the picture of the slice before it. Its first byte holds
the reduction less 1 (two bits) and the tools of the frame (six bits), its second the quality at which the frame was
coded. If the quality is 128 too large, a byte with the form of the slice follows. The rest is the frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from gosvae.codecs.av1 import MAX_TOOLS, QUALITIES, Av1Frame, Tuning, decode_av1, encode_av1
from gosvae.codecs.chroma import GAINS, greatest_gain, strengthened, weakened
from gosvae.codecs.slices import MOST_DETAIL_SLICES
from gosvae.errors import BitstreamError
from gosvae.tensors import ImageArray

REDUCTIONS = (1, 2, 3, 4)
"""Factors by which a coded picture may be smaller than the image, on each axis."""
_HEAD_BYTES = 2
_WITH_FORM = 128
"""Added to the quality in the head of a slice whose form is not the default."""
_FULL_CHROMA, _DIFFERENCE, _GAIN_SHIFT = 1, 2, 2
"""Bits of the form, and place of its other bits: the gain of the colours less 2."""
_MIDDLE = 128
"""Value of a sample of a difference that changes nothing."""
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


def encode_detail(
    image_uint8_HW3: ImageArray,
    reduction: int,
    quality: int,
    *,
    speed: int,
    tuning: Tuning = "faithful",
    before_uint8_HW3: ImageArray | None = None,
) -> bytes:
    """Return the slice of an image.

    Args:
        image_uint8_HW3: the image.
        reduction: one of `REDUCTIONS`.
        quality, speed, tuning: see `encode_av1`.
        before_uint8_HW3: picture of the slice before, for a slice with the difference; None for a whole picture.

    Raises:
        ImageError: see `encode_av1`.
    """
    height, width = _reduced(image_uint8_HW3.shape[0], image_uint8_HW3.shape[1], reduction)
    coded = image_uint8_HW3
    if before_uint8_HW3 is not None:
        coded = (coded.astype(np.int16) - before_uint8_HW3 + _MIDDLE).clip(0, 255).astype(np.uint8)
    coded = _resized(coded, height, width)
    gain = greatest_gain(coded) if tuning == "machine" else GAINS[0]
    frame = encode_av1(strengthened(coded, gain), quality, speed=speed, tuning=tuning)
    # AV1 allows for zeros behind the data of a tile.
    data = frame.data.ljust(_least_bytes(height, width), b"\0")
    form = _FULL_CHROMA * frame.full_chroma | _DIFFERENCE * (before_uint8_HW3 is not None) | gain - 2 << _GAIN_SHIFT
    head = bytes([(reduction - 1) << 6 | frame.tools, quality | (_WITH_FORM if form else 0), *([form] if form else [])])
    return head + data


def decode_detail(payload: bytes, height: int, width: int, before_uint8_HW3: ImageArray | None = None) -> Detail:
    """Return the picture of a slice, for an image of height x width pixels.

    Args:
        payload: the slice.
        height, width: size of the image.
        before_uint8_HW3: picture of the slice before, which a difference needs (`is_difference`).

    Raises:
        BitstreamError: no encoder makes the slice, or it is a difference and there is no picture before.
    """
    quality, form = quality_of(payload), _form_of(payload)
    gain = (form >> _GAIN_SHIFT) + GAINS[0]
    if len(payload) <= _HEAD_BYTES or quality not in QUALITIES or gain not in GAINS:
        raise BitstreamError(f"damaged: {len(payload)} bytes are no slice of a detail layer")
    reduction = (payload[0] >> 6) + 1
    data = payload[_HEAD_BYTES + (form > 0) :]
    frame = Av1Frame(payload[0] & MAX_TOOLS, data, full_chroma=bool(form & _FULL_CHROMA))
    size_hw = _reduced(height, width, reduction)
    if len(frame.data) < _least_bytes(*size_hw):
        raise BitstreamError(f"damaged: {len(payload)} bytes are no picture of {size_hw[0]}x{size_hw[1]} pixels")
    picture = _resized(weakened(decode_av1(frame, *size_hw), gain), height, width)
    if form & _DIFFERENCE:
        if before_uint8_HW3 is None:
            raise BitstreamError("damaged: the picture that a difference belongs to is missing")
        picture = (picture.astype(np.int16) - _MIDDLE + before_uint8_HW3).clip(0, 255).astype(np.uint8)
    return Detail(picture, reduction, quality, len(payload))


def is_difference(payload: bytes) -> bool:
    """Return whether a slice holds the difference to the picture of the slice before it."""
    return bool(_form_of(payload) & _DIFFERENCE)


def last_chain(slices: Sequence[bytes | None]) -> list[bytes]:
    """Return the slices that the last picture needs which can be shown, in order; none if no picture can be shown.

    Args:
        slices: slices of the detail layer; None for one that is damaged or missing.

    Raises:
        BitstreamError: a picture needs more slices than an encoder makes.
    """
    for end in range(len(slices), 0, -1):
        chain: list[bytes] = []
        for payload in reversed(slices[:end]):
            if payload is None:
                break
            chain.insert(0, payload)
            if len(chain) > MOST_DETAIL_SLICES:
                raise BitstreamError(f"damaged: a picture of more than {MOST_DETAIL_SLICES} slices")
            if not is_difference(payload):
                return chain
    return []


def _form_of(payload: bytes) -> int:
    """Return the form of a slice; one without a form has 0, and a slice of 0 where a form should be is refused."""
    if len(payload) <= _HEAD_BYTES or payload[1] < _WITH_FORM:
        return 0
    return payload[2] or _WITH_FORM


def quality_of(payload: bytes) -> int:
    """Return the quality at which a slice was coded, 1..100 in an intact slice; 0 if there is none."""
    return payload[1] % _WITH_FORM if len(payload) > 1 else 0


class DetailSearch:
    """Search for slices of one image; what was coded once is kept.

    Args:
        image_uint8_HW3: the image.
        speed, tuning: see `encode_av1`.
        before_uint8_HW3: picture of the slice before, for slices with the difference; see `encode_detail`.
    """

    def __init__(
        self,
        image_uint8_HW3: ImageArray,
        *,
        speed: int,
        tuning: Tuning = "faithful",
        before_uint8_HW3: ImageArray | None = None,
    ) -> None:
        self._image, self._speed = image_uint8_HW3, speed
        self._tuning, self._before = tuning, before_uint8_HW3
        self._slices: dict[tuple[int, int], bytes] = {}

    def slice_of(self, reduction: int, quality: int) -> bytes:
        """Return the slice at a reduction and a quality."""
        key = reduction, quality
        if key not in self._slices:
            self._slices[key] = self._coded(reduction, quality, self._speed)
        return self._slices[key]

    def _coded(self, reduction: int, quality: int, speed: int) -> bytes:
        tuning, before = self._tuning, self._before
        return encode_detail(self._image, reduction, quality, speed=speed, tuning=tuning, before_uint8_HW3=before)

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
            known = {quality: math.log2(len(self._coded(reduction, quality, _QUICK)))}
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
