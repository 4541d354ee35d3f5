"""JPEG and AVIF (also of the shrunk image), WebP and JPEG XL behind the codec contract, with strong settings.

The settings are the same for every image: no metadata, chroma 4:2:0 for JPEG, WebP and AVIF (JPEG XL has its own XYB),
and one thread, so that the bytes do not depend on the machine. These formats have no checksum: a truncated, foreign or
unreadable file is refused, but a flipped bit may give a wrong picture.
"""

from __future__ import annotations

import io
from abc import abstractmethod
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from gosvae.bitstream import as_bytes
from gosvae.codecs.base import RateControlledCodec
from gosvae.codecs.rate_search import bisect_setting, check_smallest
from gosvae.errors import BitstreamError, ConfigError, ImageError, unknown_name
from gosvae.extras import needs
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


_JPEG_BEGINS = b"\xff\xd8\xff"


def _pillow_encode(image_uint8_HW3: ImageArray, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_uint8_HW3).save(buffer, file_format, **options)
    return buffer.getvalue()


def _pillow_decode(data: bytes, file_format: str) -> ImageArray:
    with Image.open(io.BytesIO(data), formats=[file_format]) as image:
        return np.asarray(image.convert("RGB"))


def _smaller_jpeg(image_uint8_HW3: ImageArray, quality: int) -> bytes:
    # Baseline is up to 19 % smaller at low quality, progressive 3 % at 95 (256x512 pixels).
    files = (
        _pillow_encode(
            image_uint8_HW3, "JPEG", quality=quality, subsampling="4:2:0", optimize=True, progressive=progressive
        )
        for progressive in (False, True)
    )
    return min(files, key=len)


class Jpeg(ClassicalCodec):
    """JPEG of libjpeg-turbo with optimised Huffman tables; baseline or progressive, whichever file is smaller."""

    format_name, title = "jpeg", "JPEG"
    max_quality, default_quality, max_side = 95, 75, 65500

    def _encode(self, image_uint8_HW3: ImageArray, quality: int) -> bytes:
        return _smaller_jpeg(image_uint8_HW3, quality)

    def _decode(self, data: bytes) -> ImageArray:
        return _pillow_decode(data, "JPEG")

    def _begins_right(self, data: bytes) -> bool:
        return data.startswith(_JPEG_BEGINS)


def _shrunk(image_uint8_HW3: ImageArray, factor: int, kernel: Image.Resampling) -> tuple[ImageArray, int]:
    """The image at a fraction of its height and width, and the byte that tells its own size."""
    height, width = image_uint8_HW3.shape[:2]
    size_wh = (-(-width // factor), -(-height // factor))
    first = 16 * factor + 4 * (-height % factor) + -width % factor
    return np.asarray(Image.fromarray(image_uint8_HW3).resize(size_wh, kernel)), first


def _enlarged(shrunk_uint8_HW3: ImageArray, first: int, factor: int, kernel: Image.Resampling) -> ImageArray:
    """The inverse of `_shrunk`."""
    missing_height, missing_width = divmod(first % 16, 4)
    height, width = (
        shrunk_uint8_HW3.shape[0] * factor - missing_height,
        shrunk_uint8_HW3.shape[1] * factor - missing_width,
    )
    return np.asarray(Image.fromarray(shrunk_uint8_HW3).resize((width, height), kernel))


def _first_byte_is_right(data: bytes, factor: int) -> bool:
    return bool(data) and data[0] // 16 == factor and max(divmod(data[0] % 16, 4)) < factor


class _ShrunkJpeg(ClassicalCodec):
    """JPEG of the image at a fraction of its height and width, enlarged again at the receiver (Lanczos both times).

    The file is one byte and then a complete JPEG. If a side of the image has `a * factor - b` pixels (0 <= b < factor),
    the JPEG's side has a pixels, and the byte is `16 * factor + 4 * b` (for the height) ` + b` (for the width).
    """

    factor: int
    max_quality, default_quality, max_side = 95, 75, 65500

    def _encode(self, image_uint8_HW3: ImageArray, quality: int) -> bytes:
        shrunk, first = _shrunk(image_uint8_HW3, self.factor, Image.Resampling.LANCZOS)
        return bytes([first]) + _smaller_jpeg(shrunk, quality)

    def _decode(self, data: bytes) -> ImageArray:
        return _enlarged(_pillow_decode(data[1:], "JPEG"), data[0], self.factor, Image.Resampling.LANCZOS)

    def _begins_right(self, data: bytes) -> bool:
        return _first_byte_is_right(data, self.factor) and data.startswith(_JPEG_BEGINS, 1)

    def payload_bytes(self, data: bytes) -> int:
        """Return the number of bytes of the JPEG alone."""
        return len(data) - 1


class JpegHalf(_ShrunkJpeg):
    """JPEG at half the height and width."""

    format_name, title, factor = "jpeg-half", "JPEG at half size", 2


class JpegQuarter(_ShrunkJpeg):
    """JPEG at a quarter of the height and width."""

    format_name, title, factor = "jpeg-quarter", "JPEG at quarter size", 4


class WebP(ClassicalCodec):
    """Lossy WebP of libwebp with its slowest and best method."""

    format_name, title = "webp", "WebP"
    min_quality, default_quality, max_side = 0, 75, 16383

    def _encode(self, image_uint8_HW3: ImageArray, quality: int) -> bytes:
        return _pillow_encode(image_uint8_HW3, "WEBP", quality=quality, method=6)

    def _decode(self, data: bytes) -> ImageArray:
        return _pillow_decode(data, "WEBP")

    def _begins_right(self, data: bytes) -> bool:
        return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


class Avif(ClassicalCodec):
    """AVIF of libavif at speed 6 (0 is the slowest speed, 10 the fastest)."""

    format_name, title = "avif", "AVIF"
    default_quality, max_side = 60, 32768

    def _encode(self, image_uint8_HW3: ImageArray, quality: int) -> bytes:
        return _pillow_encode(image_uint8_HW3, "AVIF", quality=quality, speed=6, subsampling="4:2:0", max_threads=1)

    def _decode(self, data: bytes) -> ImageArray:
        return _pillow_decode(data, "AVIF")

    def _begins_right(self, data: bytes) -> bool:
        return data[4:12] == b"ftypavif"

    def payload_bytes(self, data: bytes) -> int:
        """The AV1 codestream alone: the contents of the box `mdat`, without the boxes around it.

        They take about 265 bytes, which is much where a file has 1,000.
        """
        start = 0
        while start + 8 <= len(data):
            length, kind = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
            if kind == b"mdat" and 8 <= length <= len(data) - start:
                return length - 8
            start += max(length, 8)
        return len(data)


class _ShrunkAvif(Avif):
    """AVIF of the image at a fraction of its height and width, enlarged again at the receiver (bicubic both times).

    The first byte is that of `_ShrunkJpeg`.
    """

    factor: int

    def _encode(self, image_uint8_HW3: ImageArray, quality: int) -> bytes:
        shrunk, first = _shrunk(image_uint8_HW3, self.factor, Image.Resampling.BICUBIC)
        return bytes([first]) + super()._encode(shrunk, quality)

    def _decode(self, data: bytes) -> ImageArray:
        return _enlarged(super()._decode(data[1:]), data[0], self.factor, Image.Resampling.BICUBIC)

    def _begins_right(self, data: bytes) -> bool:
        return _first_byte_is_right(data, self.factor) and super()._begins_right(data[1:])

    def payload_bytes(self, data: bytes) -> int:
        """The AV1 codestream alone."""
        return super().payload_bytes(data[1:])


class AvifHalf(_ShrunkAvif):
    """AVIF at half the height and width."""

    format_name, title, factor = "avif-half", "AVIF at half size", 2


class AvifThird(_ShrunkAvif):
    """AVIF at a third of the height and width."""

    format_name, title, factor = "avif-third", "AVIF at a third of the size", 3


def _imagecodecs() -> Any:
    with needs("jpegxl", "JPEG XL"):
        import imagecodecs
    return imagecodecs


class JpegXl(ClassicalCodec):
    """Lossy JPEG XL of libjxl (effort 7), a bare codestream; quality maps to distance as in libjxl's `cjxl`.

    The lowest quality is 5 (distance 19.7): from distance 20 on, libjxl halves the resolution, and its files are larger
    at the same PSNR on all of five CamVid images.

    Raises:
        MissingDependencyError: imagecodecs is not installed.
    """

    format_name, title = "jpegxl", "JPEG XL"
    min_quality, max_quality, default_quality, max_side = 5, 99, 75, 262144

    def __init__(self, quality: int | None = None) -> None:
        super().__init__(quality)
        _imagecodecs()  # refused here rather than at the first image

    def _encode(self, image_uint8_HW3: ImageArray, quality: int) -> bytes:
        # The two pieces of libjxl's JxlEncoderDistanceFromQuality.
        fine, coarse = 0.1 + (100 - quality) * 0.09, 53 / 3000 * quality**2 - 23 / 20 * quality + 25
        distance = fine if quality >= 30 else coarse
        return bytes(
            _imagecodecs().jpegxl_encode(image_uint8_HW3, distance=distance, effort=7, usecontainer=False, numthreads=1)
        )

    def _decode(self, data: bytes) -> ImageArray:
        image: ImageArray = _imagecodecs().jpegxl_decode(data, numthreads=1)
        return image

    def _begins_right(self, data: bytes) -> bool:
        return data.startswith(b"\xff\x0a")


CLASSICAL_CODECS: dict[str, type[ClassicalCodec]] = {
    codec.format_name: codec for codec in (Jpeg, JpegHalf, JpegQuarter, WebP, Avif, AvifHalf, AvifThird, JpegXl)
}
"""Classical codecs by name."""


def load_classical(name: str, quality: int | None = None) -> ClassicalCodec:
    """Return a classical codec by name, at a quality or its default.

    Raises:
        ConfigError: an unknown name, or a quality outside the codec's range.
    """
    if name not in CLASSICAL_CODECS:
        raise ConfigError(unknown_name("classical codec", name, CLASSICAL_CODECS))
    return CLASSICAL_CODECS[name](quality)
