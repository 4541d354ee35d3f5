"""Size that a stream or a picture file announces, which is read before anything is decoded."""

from __future__ import annotations

import warnings
from io import BytesIO

from PIL import Image

from gosvae import bitstream
from gosvae.errors import BitstreamError, ImageError

DEFAULT_MAX_PIXELS = 2**26
"""Default of the greatest number of pixels that `gosvae.decompress` decodes, 8192x8192."""
_PICTURE_FORMATS = ("JPEG", "WEBP", "AVIF")
"""Formats of Pillow whose headers are read; no other code of Pillow sees the bytes."""


def announced_pixels(data: bytes) -> int:
    """Return the number of pixels that the header of a stream or a JPEG, WebP or AVIF file announces.

    It is 0 if the header cannot be read: the codec then refuses the bytes.
    """
    if data[:1] == bytes([bitstream.MAGIC]) or data.startswith(bitstream.MAGIC_1):
        try:
            header = bitstream.salvage(data).header
        except BitstreamError:
            return 0
        return header.height * header.width
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(data), formats=_PICTURE_FORMATS)
        with image:
            return image.width * image.height
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0


def check_pixels(data: bytes, max_pixels: int | None) -> None:
    """Raise `ImageError` if a stream or a picture file announces more than `max_pixels` pixels; None means no limit."""
    pixels = 0 if max_pixels is None else announced_pixels(data)
    if max_pixels is not None and pixels > max_pixels:
        raise ImageError(
            f"a picture of {pixels} pixels, at most {max_pixels} are decoded: give a larger max_pixels if the bytes "
            "come from someone you trust",
            argument="max_pixels",
        )
