"""Intra pictures of video formats: HEVC by x265 through PyAV, VVC by VVenC through the command `ffmpeg`.

A file is 8 bytes and then the elementary stream of one picture. The bytes, big-endian: height and width of the image
(2 each), length of the stream (4). Sides are padded to what the encoders take.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from abc import abstractmethod

import numpy as np

from gosvae.codecs.classical_base import ClassicalCodec
from gosvae.codecs.pyav import Format, PictureDecoder, PictureEncoder, pyav
from gosvae.errors import BitstreamError, MissingDependencyError
from gosvae.tensors import ImageArray

_HEAD = struct.Struct(">HHI")
_SMALLEST_SIDE = 64
_X265 = Format(
    "HEVC",
    "libx265",
    "hevc",
    "x265-params",
    {"preset": "veryslow"},
    {"keyint": "1", "pools": "none", "frame-threads": "1", "info": "0", "log-level": "none"},
)


class _IntraPicture(ClassicalCodec):
    """One picture of a video format; a quality is the largest quantization parameter minus that of the picture."""

    min_quality: int = 0
    max_side = 16384

    def _encode(self, image_uint8_HW3: ImageArray, quality: int) -> bytes:
        height, width = image_uint8_HW3.shape[:2]
        rows, columns = _coded_side(height), _coded_side(width)
        padded = np.pad(image_uint8_HW3, ((0, rows - height), (0, columns - width), (0, 0)), mode="edge")
        stream = self._encode_padded(padded, self.max_quality - quality)
        return _HEAD.pack(height, width, len(stream)) + stream

    def _decode(self, data: bytes) -> ImageArray:
        height, width, _ = _HEAD.unpack_from(data)
        image = self._decode_padded(data[_HEAD.size :], (_coded_side(height), _coded_side(width)))
        return np.ascontiguousarray(image[:height, :width])

    def _begins_right(self, data: bytes) -> bool:
        if len(data) < _HEAD.size:
            return False
        height, width, length = _HEAD.unpack_from(data)
        return bool(min(height, width) > 0 and length == len(data) - _HEAD.size)

    @abstractmethod
    def _encode_padded(self, image_uint8_HW3: ImageArray, parameter: int) -> bytes:
        """Return the elementary stream of a picture whose sides fit, at a quantization parameter."""

    @abstractmethod
    def _decode_padded(self, stream: bytes, size_hw: tuple[int, int]) -> ImageArray:
        """Return the picture of an elementary stream, which has the given height and width."""

    def codestream_bytes(self, data: bytes) -> int:
        """Return the number of bytes of the elementary stream."""
        return len(data) - _HEAD.size


class HevcIntra(_IntraPicture):
    """HEVC intra picture of x265 (preset veryslow); quality 51 is the best.

    Raises:
        MissingDependencyError: PyAV is not installed.
    """

    format_name, title = "hevc", "HEVC"
    max_quality, default_quality = 51, 21

    def __init__(self, quality: int | None = None) -> None:
        super().__init__(quality)
        pyav()  # refused here rather than at the first image

    def _encode_padded(self, image_uint8_HW3: ImageArray, parameter: int) -> bytes:
        height, width = image_uint8_HW3.shape[:2]
        encoder = PictureEncoder(
            _X265, height, width, frames_per_second=1, gop=1, options={}, settings={"qp": str(parameter)}
        )
        return b"".join([*encoder.encode(image_uint8_HW3), *encoder.flush()])

    def _decode_padded(self, stream: bytes, size_hw: tuple[int, int]) -> ImageArray:
        decoder = PictureDecoder(_X265, max_pixels=_pixels_in_memory(size_hw))
        return _of_size(decoder.decode(stream), size_hw)


class VvcIntra(_IntraPicture):
    """VVC intra picture of VVenC (preset medium); quality 63 is the best. It takes seconds for an image.

    Raises:
        MissingDependencyError: there is no command `ffmpeg`.
    """

    format_name, title = "vvc", "VVC"
    max_quality, default_quality = 63, 31

    def __init__(self, quality: int | None = None) -> None:
        super().__init__(quality)
        _ffmpeg()

    def _encode_padded(self, image_uint8_HW3: ImageArray, parameter: int) -> bytes:
        height, width = image_uint8_HW3.shape[:2]
        source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-i", "-", "-frames:v", "1"]
        target = ["-pix_fmt", "yuv420p10le", "-c:v", "libvvenc", "-preset", "medium", "-qp", str(parameter)]
        return _run([*source, *target, "-threads", "1", "-f", "vvc", "-"], image_uint8_HW3.tobytes())

    def _decode_padded(self, stream: bytes, size_hw: tuple[int, int]) -> ImageArray:
        pixels = _run(
            [
                "-max_pixels",
                str(size_hw[0] * size_hw[1]),
                "-f",
                "vvc",
                "-i",
                "-",
                "-f",
                "rawvideo",
                "-pix_fmt",
                "rgb24",
                "-",
            ],
            stream,
        )
        if len(pixels) != 3 * size_hw[0] * size_hw[1]:
            raise BitstreamError(f"{len(pixels)} bytes of pixels came out")
        return np.frombuffer(pixels, np.uint8).reshape(*size_hw, 3)


def _coded_side(side: int) -> int:
    """Return a side, rounded up to a multiple of 8 and to the smallest side that encoders take."""
    return max(_SMALLEST_SIDE, -(-side // 8) * 8)


def _pixels_in_memory(size_hw: tuple[int, int]) -> int:
    """Return the number of pixels of a picture as FFmpeg counts it: in memory its rows are multiples of 64 pixels."""
    return size_hw[0] * -(-size_hw[1] // 64) * 64


def _of_size(image: ImageArray, size_hw: tuple[int, int]) -> ImageArray:
    if image.shape[:2] != size_hw:
        raise BitstreamError(f"its picture has {image.shape[0]}x{image.shape[1]} pixels, expected {size_hw}")
    return image


def _ffmpeg() -> str:
    found = shutil.which("ffmpeg")
    if found is None:
        raise MissingDependencyError(
            "VVC needs the command ffmpeg with libvvenc, which is not on the path: install FFmpeg"
        )
    return found


def _run(arguments: list[str], data: bytes) -> bytes:
    """Return what ffmpeg writes to its standard output.

    Raises:
        MissingDependencyError: this ffmpeg lacks VVenC.
        BitstreamError: ffmpeg fails.
    """
    done = subprocess.run(
        [_ffmpeg(), "-hide_banner", "-loglevel", "error", *arguments], input=data, capture_output=True, check=False
    )
    if done.returncode == 0:
        return done.stdout
    reason = next(iter(done.stderr.decode(errors="replace").strip().splitlines()), f"status {done.returncode}")
    if "libvvenc" in reason or "Unknown encoder" in reason:
        raise MissingDependencyError(f"this ffmpeg cannot encode VVC ({reason}): install one with libvvenc")
    raise BitstreamError(reason)
