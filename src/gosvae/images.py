"""Conversion between image files and uint8 RGB arrays. A file that cannot be read is refused with a one-line message.

Axis legend: H and W pixels, 3 RGB channels.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from gosvae.errors import ImageError
from gosvae.files import write_atomically
from gosvae.tensors import ImageArray, check_image

MAX_PIXELS = 64_000_000
"""Largest number of pixels of an image that is read, which keeps the memory for reading it below 2 GB."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".ppm"})
"""File name endings (lower case) that count as images in a folder."""

_WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".avif": ("AVIF", {"quality": 95}),
    ".bmp": ("BMP", {}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".png": ("PNG", {}),
    ".ppm": ("PPM", {}),
    ".tif": ("TIFF", {"compression": "tiff_lzw"}),
    ".tiff": ("TIFF", {"compression": "tiff_lzw"}),
    ".webp": ("WEBP", {"lossless": True}),
}


def read_image(source: str | Path | BinaryIO) -> ImageArray:
    """Read an image file or a binary stream (from its beginning) as RGB, uint8 (H, W, 3).

    Grey, palette, 1-bit and CMYK images become RGB, 16-bit values are scaled to 8 bits, transparent pixels are laid
    over white (as browsers and printers show them), and the EXIF orientation is applied. Only the first frame of an
    animation is read.

    Raises:
        ImageError: the file is missing, empty, damaged, not an image, of a depth that has no 8-bit meaning (32-bit
            integers, floating point), or has more than `MAX_PIXELS` pixels.
    """
    if not isinstance(source, str | Path):
        return _read_stream(source, "the image stream")
    path = Path(source)
    if path.is_dir():
        raise ImageError(f"{path} is a folder, expected one image file: give a file inside it")
    try:
        with path.open("rb") as stream:
            return _read_stream(stream, str(path))
    except OSError as error:
        raise ImageError(f"cannot open {path}: {error.strerror or error}; check the path and its permissions") from None


def _read_stream(stream: BinaryIO, label: str) -> ImageArray:
    """Return the image in a stream; error messages name it `label`."""
    if not stream.seekable():
        stream = BytesIO(stream.read())
    stream.seek(0)
    if not stream.read(1):
        raise ImageError(f"{label} is empty (0 bytes): copy or download the image again")
    try:
        with warnings.catch_warnings():
            # Pillow warns of too many pixels, which is an error below, and of damaged metadata beside intact pixels.
            warnings.simplefilter("ignore")
            with Image.open(stream) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ImageError(_too_large(label, f"{image.width}x{image.height} pixels"))
                image.load()
                rgb = _to_rgb(image, label)
    except Image.DecompressionBombError:
        raise ImageError(_too_large(label, "too many pixels")) from None
    except UnidentifiedImageError:
        raise ImageError(f"{label} is not an image that can be read: convert it to PNG or JPEG") from None
    except ImageError:
        raise
    except Exception as error:  # Pillow's plugins raise nearly any type on damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ImageError(f"{label} is damaged or incomplete ({reason}): copy or convert it again") from None
    pixels: ImageArray = np.array(rgb, dtype=np.uint8)
    return check_image(pixels)


def _too_large(label: str, found: str) -> str:
    return f"{label} has {found}, the limit is {MAX_PIXELS:,} pixels: scale it down or cut it into tiles first"


def _to_rgb(image: Image.Image, label: str) -> Image.Image:
    """Return an image of any mode of Pillow as upright 8-bit RGB."""
    with suppress(Exception):  # damaged EXIF data: the pixels are intact
        image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ImageError(f"{label} holds floating-point values, expected 8 or 16 bits: convert it first")
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int32)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(f"{label} holds 32-bit or negative values, expected 8 or 16 bits: convert it first")
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 65535 / 255 = 257, rounded
    elif image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    return image.convert("RGB")


def write_image(path: str | Path, image_uint8_HW3: ImageArray) -> None:
    """Write an RGB image, uint8 (H, W, 3), in the format of the file's suffix; a failure leaves an old file intact.

    PNG, BMP, PPM, TIFF and WebP keep every pixel; JPEG and AVIF are written at quality 95.

    Raises:
        ImageError: the suffix is unknown, or the format cannot hold an image of this size.
        WriteError: the disk is full or the folder cannot be written.
        ShapeError: the array is not a uint8 RGB image.
    """
    path = Path(path)
    image = Image.fromarray(np.ascontiguousarray(check_image(image_uint8_HW3)))
    if path.suffix.lower() not in _WRITERS:
        known = ", ".join(sorted(_WRITERS))
        raise ImageError(f"cannot write {path}: unknown suffix {path.suffix!r}, use one of {known}")
    image_format, options = _WRITERS[path.suffix.lower()]
    stream = BytesIO()
    try:
        image.save(stream, format=image_format, **options)
    except (OSError, ValueError) as error:
        size = f"{image.width}x{image.height}"
        raise ImageError(f"{image_format} cannot hold an image of {size} pixels ({error}): use PNG") from None
    write_atomically(path, stream.getvalue())
