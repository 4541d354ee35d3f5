"""Base of the classical image codecs: an integer quality, a search for budgets, and clear errors for bad files."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from PIL import UnidentifiedImageError

from gosvae.bitstream import as_bytes
from gosvae.codecs.base import RateControlledCodec
from gosvae.codecs.rate_search import bisect_setting, check_smallest
from gosvae.errors import BitstreamError, ConfigError, ImageError
from gosvae.tensors import ImageArray, check_image


class ClassicalCodec(RateControlledCodec):
    """Use this when you need a rival to compare with, or a codec without a model.

    Compared with trained codecs, classical codecs keep every scene, and take more bytes at low rates for the same task
    quality. AVIF is the best of them there. Their rate is an integer quality; a higher one is better and takes more
    bytes.

    Args:
        quality: between `min_quality` and `max_quality`; None takes `default_quality`.

    Raises:
        ConfigError: a quality outside this range.
    """

    format_name: str
    """Key of the format in `CLASSICAL_CODECS`."""
    title: str
    """Name of the format in messages."""
    min_quality: int = 1
    max_quality: int = 100
    default_quality: int
    max_side: int
    """Largest height or width of the format or its decoder, in pixels."""

    def __init__(self, quality: int | None = None) -> None:
        self.quality = self.default_quality if quality is None else quality
        if not self.min_quality <= self.quality <= self.max_quality:
            known = f"{self.min_quality}..{self.max_quality}"
            raise ConfigError(f"{self.title} quality {self.quality}: expected a whole number in {known}")

    @abstractmethod
    def _encode(self, image_uint8_HW3: ImageArray, quality: int) -> bytes:
        """Return the file of a checked image at a quality."""

    @abstractmethod
    def _decode(self, data: bytes) -> ImageArray:
        """Return the image of a file that begins as the format does; any exception means a bad file."""

    @abstractmethod
    def _begins_right(self, data: bytes) -> bool:
        """Return whether the first bytes are those of the format."""

    @property
    def name(self) -> str:
        """Name of the format in lower case, as in `CLASSICAL_CODECS`."""
        return self.format_name

    def compress(self, image_uint8_HW3: ImageArray) -> bytes:
        """Return the complete file at `self.quality`.

        Raises:
            ShapeError: the array is not a uint8 RGB image.
            ImageError: the format does not hold an image of this size.
        """
        return self._encode(self._checked(image_uint8_HW3), self.quality)

    def compress_to_budget(self, image_uint8_HW3: ImageArray, budget_bytes: int) -> bytes:
        """Return the file of the best quality that takes at most `budget_bytes`, found by bisection.

        On three CamVid images at 256x512 the size grew with every step of quality for JPEG, WebP and AVIF; JPEG XL
        shrank, by at most 0.3 %, at 3 of 282 steps. There bisection may miss the very highest quality that fits; the
        file always meets the budget.

        Raises:
            RateError: even the lowest quality takes more; the message says how much.
            ShapeError, ImageError: see `compress`.
        """
        image = self._checked(image_uint8_HW3)
        best = check_smallest(self.title, image.shape, self._encode(image, self.min_quality), budget_bytes)
        return bisect_setting(
            lambda quality: self._encode(image, quality), budget_bytes,
            fits=self.min_quality, exceeds=self.max_quality + 1, stream=best,
        )[1]  # fmt: skip

    def compress_smallest(self, image_uint8_HW3: ImageArray) -> bytes:
        """Return the file at the lowest quality; errors as in `compress`."""
        return self._encode(self._checked(image_uint8_HW3), self.min_quality)

    def decompress(self, data: bytes) -> ImageArray:
        """Return the image, uint8 (H, W, 3).

        Raises:
            BitstreamError: empty, truncated, unreadable, or another format (found by its first bytes).
        """
        data = as_bytes(data)
        if not self._begins_right(data):
            what = f"it begins with {data[:8].hex(' ')}" if data else "it is empty"
            raise BitstreamError(f"not a {self.title} file: {what}")
        try:
            return check_image(self._decode(data))
        except Exception as error:  # decoders raise nearly any type on damaged bytes
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            if isinstance(error, UnidentifiedImageError):
                reason = "its header cannot be read"  # Pillow names a buffer in memory
            raise BitstreamError(f"{self.title} file of {len(data)} bytes is truncated or damaged: {reason}") from error

    def _checked(self, image_uint8_HW3: ImageArray) -> ImageArray:
        image = check_image(image_uint8_HW3)
        height, width = image.shape[:2]
        if max(height, width) > self.max_side:
            raise ImageError(
                f"{self.title} holds at most {self.max_side} pixels a side, got {height}x{width}: shrink it"
            )
        return np.ascontiguousarray(image)
