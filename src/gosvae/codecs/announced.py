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

_JXL = b"\xff\x0a"
"""First bytes of a JPEG XL codestream."""
_JXL_RATIOS = ((0, 1), (1, 1), (6, 5), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
"""Ratios of width to height by their numbers."""


def announced_pixels(data: bytes, *, files: bool = True) -> int:
    """Return the number of pixels that the header of a stream or a JPEG, WebP, AVIF or JPEG XL file announces.

    It is 0 if the header cannot be read: the codec then refuses the bytes. Without `files`, that holds for everything
    but streams, and no code of Pillow sees the bytes.
    """
    if data[:1] == bytes([bitstream.MAGIC]) or data.startswith(bitstream.MAGIC_1):
        try:
            header = bitstream.salvage(data).header
        except BitstreamError:
            return 0
        return header.height * header.width
    if not files:
        return 0
    if data.startswith(_JXL):
        return _jpegxl_pixels(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(data), formats=_PICTURE_FORMATS)
        with image:
            return image.width * image.height
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0


def _jpegxl_pixels(data: bytes) -> int:
    """Return the number of pixels of a bare JPEG XL codestream (ISO/IEC 18181-1, SizeHeader); 0 if it is too short."""
    bits, position = int.from_bytes(data[len(_JXL) : 16], "little"), 0

    def take(count: int) -> int:
        nonlocal position
        position += count
        return bits >> (position - count) & ((1 << count) - 1)

    small = take(1)

    def side() -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    height = side()
    ratio = take(3)
    width = side() if ratio == 0 else height * _JXL_RATIOS[ratio][0] // _JXL_RATIOS[ratio][1]
    return height * width if position <= 8 * (len(data) - len(_JXL)) else 0


def check_pixels(data: bytes, max_pixels: int | None) -> None:
    """Raise `ImageError` if a stream or a picture file announces more than `max_pixels` pixels; None means no limit."""
    pixels = 0 if max_pixels is None else announced_pixels(data)
    if max_pixels is not None and pixels > max_pixels:
        raise ImageError(
            f"a picture of {pixels} pixels, at most {max_pixels} are decoded: give a larger max_pixels if the bytes "
            "come from someone you trust",
            argument="max_pixels",
        )
