"""Classical image codecs behind the codec contract, with strong settings; JPEG and AVIF also of the shrunk image.

The settings are the same for every image: no metadata, chroma 4:2:0 (JPEG XL has its own XYB), and one thread, so that
the bytes do not depend on the machine. These formats have no checksum: a truncated, foreign or unreadable file is
refused, but a flipped bit may give a wrong picture.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from gosvae.codecs.classical_base import ClassicalCodec
from gosvae.codecs.classical_intra import HevcIntra, VvcIntra
from gosvae.codecs.file_sizes import avif_pixels
from gosvae.errors import ConfigError, unknown_name
from gosvae.extras import needs
from gosvae.tensors import ImageArray

_JPEG_BEGINS = b"\xff\xd8\xff"
_JPEG_SCAN = b"\xff\xda"
_MOST_SCANS = 100
"""Largest number of scans of a JPEG file; a scan of a few bytes takes as long as all pixels do. Encoders write 10."""


def _pillow_encode(image_uint8_HW3: ImageArray, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_uint8_HW3).save(buffer, file_format, **options)
    return buffer.getvalue()


def _pillow_decode(data: bytes, file_format: str) -> ImageArray:
    with Image.open(io.BytesIO(data), formats=[file_format]) as image:
        return np.asarray(image.convert("RGB"))


def _jpeg_decode(data: bytes) -> ImageArray:
    scans = data.count(_JPEG_SCAN)
    if scans > _MOST_SCANS:
        raise ValueError(f"{scans} scans, at most {_MOST_SCANS} are decoded")
    return _pillow_decode(data, "JPEG")


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
        return _jpeg_decode(data)

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
        return _enlarged(_jpeg_decode(data[1:]), data[0], self.factor, Image.Resampling.LANCZOS)

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

    def codestream_bytes(self, data: bytes) -> int:
        """Return the number of bytes of the VP8 codestream: the contents of the first chunk, which is the only one."""
        return min(int.from_bytes(data[16:20], "little"), len(data))


class Avif(ClassicalCodec):
    """AVIF of libavif at speed 6 (0 is the slowest speed, 10 the fastest)."""

    format_name, title = "avif", "AVIF"
    default_quality, max_side = 60, 32768
    speed: int = 6
    tune: str | None = None
    """Measure that libaom is tuned for; None takes the default of libavif."""

    def _encode(self, image_uint8_HW3: ImageArray, quality: int) -> bytes:
        tune = {} if self.tune is None else {"advanced": {"tune": self.tune}}
        return _pillow_encode(
            image_uint8_HW3, "AVIF", quality=quality, speed=self.speed, subsampling="4:2:0", max_threads=1, **tune
        )

    def _decode(self, data: bytes) -> ImageArray:
        avif_pixels(data)  # refuses files whose coded pictures cannot be found, so that they were not counted before
        return _pillow_decode(data, "AVIF")

    def _begins_right(self, data: bytes) -> bool:
        return data[4:12] == b"ftypavif"

    def payload_bytes(self, data: bytes) -> int:
        """Return the number of bytes of the AV1 codestream alone: the contents of the box `mdat`.

        The boxes around it take about 265 bytes, which is much where a file has 1,000.
        """
        start = 0
        while start + 8 <= len(data):
            length, kind = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
            if kind == b"mdat" and 8 <= length <= len(data) - start:
                return length - 8
            start += max(length, 8)
        return len(data)

    def codestream_bytes(self, data: bytes) -> int:
        """Return the number of bytes of the AV1 codestream, as `payload_bytes`."""
        return self.payload_bytes(data)


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
        """Return the number of bytes of the AV1 codestream alone."""
        return super().payload_bytes(data[1:])

    def codestream_bytes(self, data: bytes) -> int:
        """Return the number of bytes of the AV1 codestream, and one for the byte before the file."""
        return 1 + self.payload_bytes(data)


class AvifHalf(_ShrunkAvif):
    """AVIF at half the height and width."""

    format_name, title, factor = "avif-half", "AVIF at half size", 2


class AvifThird(_ShrunkAvif):
    """AVIF at a third of the height and width."""

    format_name, title, factor = "avif-third", "AVIF at a third of the size", 3


class AvifSlow(Avif):
    """AVIF of libavif at speed 1, tuned for SSIM: more PSNR at the same bytes than `Avif`, in ten times the time.

    Its smallest file takes less than half of the bytes: libavif from version 1.4 on tunes for pictures that people look
    at, which keeps the quantizers of its lowest quality fine.
    """

    format_name, title, speed, tune = "avif-slow", "slow AVIF", 1, "ssim"
    min_quality = 0


class AvifHalfSlow(AvifHalf):
    """AVIF at half the height and width, at speed 1 and tuned for SSIM."""

    format_name, title, speed, tune = "avif-half-slow", "slow AVIF at half size", 1, "ssim"
    min_quality = 0


class AvifThirdSlow(AvifThird):
    """AVIF at a third of the height and width, at speed 1 and tuned for SSIM."""

    format_name, title, speed, tune = "avif-third-slow", "slow AVIF at a third of the size", 1, "ssim"
    min_quality = 0


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
    codec.format_name: codec
    for codec in (
        *(Jpeg, JpegHalf, JpegQuarter, WebP),
        *(Avif, AvifHalf, AvifThird, AvifSlow, AvifHalfSlow, AvifThirdSlow),
        *(JpegXl, HevcIntra, VvcIntra),
    )
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
