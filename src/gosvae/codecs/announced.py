"""Size that a stream or a picture file announces, which is read before anything is decoded."""

from __future__ import annotations

import warnings
from io import BytesIO

from PIL import Image

from gosvae import bitstream
from gosvae.codecs.file_sizes import avif_pixels, jpegxl_pixels, webp_pixels
from gosvae.errors import BitstreamError, ImageError

DEFAULT_MAX_PIXELS = 2**26
"""Default of the greatest number of pixels that `gosvae.decompress` decodes, 8192x8192."""
_JPEG, _JXL = b"\xff\xd8\xff", b"\xff\x0a"
"""First bytes of a JPEG file and of a JPEG XL codestream."""
_SHRUNK = range(0x20, 0x50)
"""First bytes of files of shrunk pictures, see `gosvae.codecs.classical`: 16 times the factor and up to 15."""
_INTRA_HEAD_BYTES = 8
"""Length of the head of `gosvae.codecs.classical_intra`: height and width (2 bytes each), number of further bytes."""


def announced_pixels(data: bytes, *, files: bool = True) -> int:
    """Return the number of pixels that the header of a stream or of a file of a classical codec announces.

    It is 0 if the header cannot be read: the codec then refuses the bytes. For AVIF files, in which several sizes
    stand, it is the largest of them, and for shrunk pictures the size of the enlarged one. Without `files`, it is 0 for
    everything but streams, and no code of Pillow sees the bytes.
    """
    if data[:1] == bytes([bitstream.MAGIC]) or data.startswith(bitstream.MAGIC_1):
        try:
            header = bitstream.salvage(data).header
        except BitstreamError:
            return 0
        return header.height * header.width
    return _file_pixels(data) if files else 0


def _file_pixels(data: bytes) -> int:
    """Return the number of pixels that a file of a classical codec announces; 0 if it is of another format."""
    if data.startswith(_JXL):
        return jpegxl_pixels(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return webp_pixels(data)
    if data.startswith(_JPEG):
        return _opened_pixels(data, "JPEG")
    if data[4:8] == b"ftyp":
        try:
            return max(avif_pixels(data), _opened_pixels(data, "AVIF"))
        except ValueError:
            return 0
    if data[:1] and data[0] in _SHRUNK and (data.startswith(_JPEG, 1) or data[5:9] == b"ftyp"):
        return (data[0] // 16) ** 2 * _file_pixels(data[1:])
    if int.from_bytes(data[4:8], "big") == len(data) - _INTRA_HEAD_BYTES:
        return int.from_bytes(data[:2], "big") * int.from_bytes(data[2:4], "big")
    return 0


def _opened_pixels(data: bytes, file_format: str) -> int:
    """Return the number of pixels that Pillow finds in the header of a file; 0 if it cannot read it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(data), formats=[file_format])
        with image:
            return image.width * image.height
    except Exception:  # Pillow raises nearly any type on damaged bytes, such as RuntimeError for AVIF
        return 0


def check_pixels(data: bytes, max_pixels: int | None) -> None:
    """Raise `ImageError` if a stream or a picture file announces more than `max_pixels` pixels; None means no limit."""
    if max_pixels is not None:
        check_count(announced_pixels(data), max_pixels)


def check_count(pixels: int, max_pixels: int) -> None:
    """Raise `ImageError` if a number of announced pixels is larger than `max_pixels`."""
    if pixels > max_pixels:
        raise ImageError(
            f"a picture of {pixels} pixels, at most {max_pixels} are decoded: give a larger max_pixels if the bytes "
            "come from someone you trust",
            argument="max_pixels",
        )
