"""Conversion between image files and uint8 RGB arrays. A file that cannot be read is refused with a one-line message.

Axis legend: H and W pixels, 3 RGB channels.
"""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from gosvae.errors import ImageError, ShapeError
from gosvae.files import write_atomically
from gosvae.tensors import ImageArray, check_image

MAX_PIXELS = 64_000_000
"""Largest number of pixels of an image that is read, which keeps the memory for reading it below 2 GB."""

READ_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats of Pillow that are read, whatever a file's name ends in. Pillow knows many more, some through programs."""

_WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".avif": ("AVIF", {"quality": 95}),
    ".bmp": ("BMP", {}),
    ".jfif": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpe": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".png": ("PNG", {}),
    ".pnm": ("PPM", {}),
    ".ppm": ("PPM", {}),
    ".tif": ("TIFF", {"compression": "tiff_lzw"}),
    ".tiff": ("TIFF", {"compression": "tiff_lzw"}),
    ".webp": ("WEBP", {"lossless": True}),
}


AnyImage = str | Path | BinaryIO | Image.Image | Tensor
"""An image in another form than an array, see `as_image`."""


def read_image(source: str | Path | BinaryIO) -> ImageArray:
    """Read an image file or a binary stream (from its beginning) as RGB, uint8 (H, W, 3).

    The formats are AVIF, BMP, GIF, JPEG, PNG, PPM, TIFF and WebP; the contents decide, and not the name of the file.
    Grey, palette, 1-bit and CMYK images become RGB, values of 12 and 16 bits are scaled to 8 bits, transparent pixels
    are laid over white (as browsers and printers show them), and the EXIF orientation is applied. Only the first frame
    of an animation is read. Text and colour profiles are not used: a PNG is read even if they are damaged.

    Raises:
        ImageError: the file is missing, empty, damaged, not an image, of a kind that has no 8-bit meaning (negative or
            32-bit integers, floating point, CIE L*a*b*), or has more than `MAX_PIXELS` pixels.
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


def as_image(image: ImageArray | AnyImage) -> ImageArray:
    """Return an image in any common form as RGB, uint8 (H, W, 3).

    Args:
        image: an array, which is returned as it is; the path of a file or a binary stream, see `read_image`; an image
            of Pillow, which becomes RGB as in `read_image`; or a uint8 tensor of PyTorch, (3, H, W) or (H, W, 3).

    Raises:
        ImageError: the file cannot be read, the image is of a kind that has no 8-bit meaning, or the argument has
            none of these forms.
        ShapeError: the array or tensor has another layout.
    """
    if isinstance(image, np.ndarray):
        return check_image(image)
    if isinstance(image, Image.Image):
        return _of_pillow(image)
    if isinstance(image, Tensor):
        return _of_tensor(image)
    if isinstance(image, str | Path) or hasattr(image, "read"):
        return read_image(image)
    raise ImageError(
        f"expected an image, got {type(image).__name__}: give a uint8 array (H, W, 3), a path, an image of Pillow, or "
        "a uint8 tensor (3, H, W)"
    )


def _of_pillow(image: Image.Image) -> ImageArray:
    try:
        rawmode = image.tile[0].args if isinstance(image, ImageFile.ImageFile) and image.tile else None
        stream = getattr(image, "fp", None)
        image.load()
        rgb = _to_rgb(image, _transparent_pixels(image, rawmode, stream), "the image")
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"the image cannot be loaded ({error}): open it again") from None
    return check_image(np.array(rgb, dtype=np.uint8))


def _of_tensor(image: Tensor) -> ImageArray:
    if image.ndim == 4 and len(image) == 1:
        image = image[0]
    if image.dtype != torch.uint8 or image.ndim != 3 or 3 not in (image.shape[0], image.shape[2]):
        advice = "gosvae.tensor_to_image converts floats in [0, 1]"
        raise ShapeError(f"expected a uint8 tensor (3, H, W), not {image.dtype} ({advice})", got=image.shape)
    if image.shape[0] == 3:
        image = image.permute(1, 2, 0)
    return check_image(image.detach().cpu().contiguous().numpy())


class _UnreadableError(ImageError):
    """A file that Pillow refuses. A PNG may be readable without its metadata."""


def _read_stream(stream: BinaryIO, label: str) -> ImageArray:
    """Return the image in a stream; error messages name it `label`."""
    if not stream.seekable():
        stream = BytesIO(stream.read())
    stream.seek(0)
    if not stream.read(1):
        raise ImageError(f"{label} is empty (0 bytes): copy or download the image again")
    stream.seek(0)
    try:
        return _decode(stream, label)
    except _UnreadableError:
        without_metadata = pixels_of_png(stream)
        if without_metadata is None:
            raise
        return _decode(without_metadata, label)


def _decode(stream: BinaryIO, label: str) -> ImageArray:
    """Decode a stream that Pillow can take as it stands."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of too many pixels, which is an error below, and of damaged metadata beside intact pixels.
            warnings.simplefilter("ignore")
            with Image.open(stream, formats=READ_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ImageError(_too_large(label, f"{image.width}x{image.height} pixels"))
                rawmode = image.tile[0].args if image.tile else None
                image.load()
                rgb = _to_rgb(image, _transparent_pixels(image, rawmode, stream), label)
    except Image.DecompressionBombError:
        raise ImageError(_too_large(label, "too many pixels")) from None
    except UnidentifiedImageError:
        known = ", ".join(READ_FORMATS)
        raise _UnreadableError(f"{label} is not an image that can be read ({known}): convert it to PNG") from None
    except ImageError:
        raise
    except Exception as error:  # Pillow's plugins raise nearly any type on damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _UnreadableError(f"{label} is damaged or incomplete ({reason}): copy or convert it again") from None
    pixels: ImageArray = np.array(rgb, dtype=np.uint8)
    return check_image(pixels)


def _too_large(label: str, found: str) -> str:
    return f"{label} has {found}, the limit is {MAX_PIXELS:,} pixels: scale it down or cut it into tiles first"


_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # tags of TIFF
_PNG_BEGINS = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNK = struct.Struct(">I4s")
GREY_STEPS: dict[Any, int] = {"L;2": 85, "L;4": 17}
"""Factor by which Pillow scales the values of a grey PNG of 2 or 4 bits, by its raw mode."""


def pixels_of_png(stream: BinaryIO) -> BytesIO | None:
    """Return a PNG without the chunks that do not concern its pixels; None for another format.

    Pillow refuses a file whose text or colour profile is long or damaged. Transparency and an intact orientation stay.
    """
    stream.seek(0)
    if stream.read(len(_PNG_BEGINS)) != _PNG_BEGINS:
        return None
    kept = BytesIO()
    kept.write(_PNG_BEGINS)
    while len(head := stream.read(_PNG_CHUNK.size)) == _PNG_CHUNK.size:
        n_bytes, kind = _PNG_CHUNK.unpack(head)
        is_metadata = bool(kind[0] & 0x20) and kind != b"tRNS"  # a lower-case letter: ancillary
        if is_metadata and kind != b"eXIf":
            stream.seek(n_bytes + 4, os.SEEK_CUR)
            continue
        body = stream.read(n_bytes + 4)
        if kind != b"eXIf" or zlib.crc32(kind + body[:-4]) == int.from_bytes(body[-4:], "big"):
            kept.write(head + body)
    return kept


def _transparent_pixels(image: Image.Image, rawmode: Any, stream: BinaryIO | None) -> npt.NDArray[np.bool_] | None:
    """Return which pixels (H, W) of a loaded PNG have its transparent colour; None where it has none.

    Pillow scales values of 2 and 4 bits and keeps the upper byte of those of 16, but not the transparent colour.
    """
    colour = image.info.get("transparency")
    if not isinstance(image, PngImageFile) or image.mode not in ("1", "L", "I;16", "RGB") or colour is None:
        return None
    values: npt.NDArray[Any] = np.asarray(image)
    if image.mode != "RGB":
        values, colour = values[..., None], [colour * GREY_STEPS.get(rawmode, 1)]
    elif rawmode == "RGB;16B" and stream is not None:
        stream.seek(0)
        with Image.open(stream, formats=READ_FORMATS) as again:
            # Read as if the lower byte of each value were the upper one.
            again.tile = [tile._replace(args="RGB;16L") for tile in again.tile]
            values = values * np.uint16(256) + np.asarray(again)
    is_transparent: npt.NDArray[np.bool_] = np.equal(values, colour).all(axis=-1)
    return is_transparent


def _to_rgb(image: Image.Image, transparent_HW: npt.NDArray[np.bool_] | None, label: str) -> Image.Image:
    """Upright 8-bit RGB from any mode of Pillow, with transparent pixels over white."""
    if image.mode == "F":
        raise ImageError(f"{label} holds floating-point values, expected 8 or 16 bits: convert it first")
    if image.mode == "LAB":
        raise ImageError(f"{label} holds CIE L*a*b* colours, expected grey, RGB or CMYK: convert it first")
    if image.mode == "I" or image.mode.startswith("I;16"):
        rgb = Image.fromarray(_grey_of_16_bits(image, label)).convert("RGB")
    elif transparent_HW is None and image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        rgb = opaque.convert("RGB")
    else:
        rgb = image.convert("RGB")
    if transparent_HW is not None:
        rgb.paste("white", mask=Image.fromarray(transparent_HW))
    with suppress(Exception):  # damaged EXIF data: the pixels are still good
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
        rgb = rgb if turn is None else rgb.transpose(turn)
    return rgb


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The step that turns an image upright, by its EXIF orientation."""


def _grey_of_16_bits(image: Image.Image, label: str) -> npt.NDArray[np.uint8]:
    """Return values of 9 to 16 bits, scaled to the nearest of 256 levels; 0 is black."""
    values = np.asarray(image).astype(np.int32)
    largest, white_is_zero = 65535, False
    if isinstance(image, TiffImageFile):
        if image.mode == "I":
            raise ImageError(f"{label} holds 32-bit or negative values, expected 8 or 16 bits: convert it first")
        largest = 2 ** image.tag_v2.get(_BITS_PER_SAMPLE, (16,))[0] - 1
        white_is_zero = image.tag_v2.get(_PHOTOMETRIC) == 0
    if values.min() < 0 or values.max() > largest:
        raise ImageError(f"{label} holds values outside 0 to {largest}, expected 8 or 16 bits: convert it first")
    grey: npt.NDArray[np.uint8] = ((255 * values + largest // 2) // largest).astype(np.uint8)
    return 255 - grey if white_is_zero else grey


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
