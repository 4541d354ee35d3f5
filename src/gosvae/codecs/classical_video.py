"""x264, x265 and SVT-AV1 at low delay and with strong settings, at full and at half size, behind the contract.

The settings are the same for every sequence: no B frames, no look-ahead, one thread (so that the bytes do not depend
on the machine), an intra frame at least every `gop` frames, parameter sets in the stream and counted, no remarks. The
first frame begins with one byte on the size; everything else is the elementary stream. These formats have no checksum:
a damaged frame may give a wrong picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from gosvae.codecs.announced import DEFAULT_MAX_PIXELS
from gosvae.codecs.pyav import H264_SEI, Format, PictureDecoder, PictureEncoder, pyav, without_units
from gosvae.codecs.video import VideoCodec, VideoDecoder, VideoEncoder
from gosvae.errors import BitstreamError, ConfigError, ShapeError, unknown_name
from gosvae.tensors import ImageArray, check_image

DEFAULT_GOP = 250
"""Number of frames from one intra frame to the next."""

_FORMATS = {
    "x264": Format(
        "x264", "libx264", "h264", "x264-params", {"preset": "slow", "tune": "zerolatency"}, {"threads": "1"}
    ),
    "x265": Format(
        "x265",
        "libx265",
        "hevc",
        "x265-params",
        {"preset": "slow", "tune": "zerolatency"},
        {"pools": "none", "frame-threads": "1", "info": "0", "log-level": "none"},
    ),
    "svtav1": Format(
        "SVT-AV1",
        "libsvtav1",
        "libdav1d",
        "svtav1-params",
        {"preset": "6"},
        {"pred-struct": "1", "lookahead": "0", "lp": "1"},
    ),
}


@dataclass(frozen=True)
class SizedFormat:
    """A format at a size, its range of constant rate factors, and the usual one."""

    form: Format
    factor: int
    largest_crf: int
    default_crf: int


VIDEO_CODECS: dict[str, SizedFormat] = {
    "x264": SizedFormat(_FORMATS["x264"], 1, 51, 36),
    "x264-half": SizedFormat(_FORMATS["x264"], 2, 51, 30),
    "x265": SizedFormat(_FORMATS["x265"], 1, 51, 36),
    "x265-half": SizedFormat(_FORMATS["x265"], 2, 51, 30),
    "svtav1": SizedFormat(_FORMATS["svtav1"], 1, 63, 50),
    "svtav1-half": SizedFormat(_FORMATS["svtav1"], 2, 63, 40),
}
"""Classical video codecs by name."""


class ClassicalVideoCodec(VideoCodec):
    """Use this when you need a rival to compare with, as `ClassicalCodec` is one for images.

    The quality is constant, by a constant rate factor, or the rate is, in kbit/s with a buffer of one second.

    Args:
        name: key of `VIDEO_CODECS`. Codecs whose names end in `-half` see frames of half the height and width, which
            the decoder enlarges again (bicubic both times).
        crf: constant rate factor, from 1 to 51 (63 for SVT-AV1); a lower one is better and takes more bytes. None takes
            the default of the codec, unless there is a rate.
        kilobits_per_second: constant rate; not together with `crf`.
        gop: largest number of frames from one intra frame to the next.

    Raises:
        ConfigError: an unknown name, or a setting outside its range.
        MissingDependencyError: PyAV is not installed.
    """

    def __init__(
        self,
        name: str,
        *,
        crf: int | None = None,
        kilobits_per_second: float | None = None,
        gop: int = DEFAULT_GOP,
    ) -> None:
        if name not in VIDEO_CODECS:
            raise ConfigError(unknown_name("classical video codec", name, VIDEO_CODECS))
        self._name, self._kind = name, VIDEO_CODECS[name]
        title = self._kind.form.title
        if crf is not None and kilobits_per_second is not None:
            raise ConfigError(f"{title} has a constant quality or a constant rate: give crf or kilobits_per_second")
        if crf is not None and not 1 <= crf <= self._kind.largest_crf:
            raise ConfigError(f"{title} crf {crf}: expected a whole number in 1..{self._kind.largest_crf}")
        if kilobits_per_second is not None and not kilobits_per_second >= 1:
            raise ConfigError(f"{title} at {kilobits_per_second} kbit/s: expected at least 1")
        if gop < 1:
            raise ConfigError(f"{title} with an intra frame every {gop} frames: expected at least 1")
        self.crf = self._kind.default_crf if crf is None and kilobits_per_second is None else crf
        self.kilobits_per_second, self.gop = kilobits_per_second, gop
        pyav()  # refused here rather than at the first frame

    @property
    def name(self) -> str:
        return self._name

    def encoder(self, height: int, width: int, *, frames_per_second: float) -> VideoEncoder:
        return _Encoder(self._picture_encoder(height, width, frames_per_second), self._kind, height, width)

    def decoder(self) -> VideoDecoder:
        return _Decoder(self._kind)

    def _picture_encoder(self, height: int, width: int, frames_per_second: float) -> PictureEncoder:
        form, factor = self._kind.form, self._kind.factor
        options, settings = {}, {}
        if self.crf is not None:
            options["crf"] = str(self.crf)
        else:
            rate = f"{round(self.kilobits_per_second or 0)}"
            if form.encoder == "libsvtav1":
                settings = {"rc": "2", "tbr": rate}
            else:
                options["b"] = f"{rate}k"
                settings = {"vbv-maxrate": rate, "vbv-bufsize": rate}
        return PictureEncoder(
            form,
            _coded_side(height, factor) // factor,
            _coded_side(width, factor) // factor,
            frames_per_second=frames_per_second,
            gop=self.gop,
            options=options,
            settings=settings,
        )


class _Encoder(VideoEncoder):
    """Encoder of frames of one size."""

    def __init__(self, pictures: PictureEncoder, kind: SizedFormat, height: int, width: int) -> None:
        self._pictures, self._kind, self._size_hw = pictures, kind, (height, width)
        self._begun = False

    def encode(self, frame_uint8_HW3: ImageArray, *, budget_bytes: int | None = None) -> bytes:
        title = self._kind.form.title
        if budget_bytes is not None:
            raise ConfigError(f"{title} takes no budget for single frames: give the codec a rate in kbit/s")
        packets = self._pictures.encode(_coded_picture(frame_uint8_HW3, self._size_hw, self._kind.factor))
        if len(packets) != 1:
            raise ConfigError(f"this build of {title} keeps frames back: {len(packets)} packets came for one frame")
        first = b"" if self._begun else bytes([_size_byte(self._size_hw, self._kind.factor)])
        self._begun = True
        return first + _elementary(packets[0], self._kind.form)


class _Decoder(VideoDecoder):
    """Decoder of one sequence, which begins with its first frame."""

    def __init__(self, kind: SizedFormat) -> None:
        self._kind = kind
        self._pictures = PictureDecoder(kind.form, max_pixels=DEFAULT_MAX_PIXELS)
        self._missing_hw: tuple[int, int] | None = None

    def decode(self, data: bytes) -> ImageArray:
        factor = self._kind.factor
        if self._missing_hw is None:
            self._missing_hw = _missing_sides(data, self._kind)
            data = data[1:]
        image = self._pictures.decode(data)
        height, width = (
            factor * side - missing for side, missing in zip(image.shape[:2], self._missing_hw, strict=True)
        )
        if factor > 1:
            whole_wh = (factor * image.shape[1], factor * image.shape[0])
            image = np.asarray(Image.fromarray(image).resize(whole_wh, Image.Resampling.BICUBIC))
        return np.ascontiguousarray(image[:height, :width])


def _coded_side(side: int, factor: int) -> int:
    """Return a side, rounded up so that it is even at the size that is coded."""
    return -(-side // (2 * factor)) * 2 * factor


def _size_byte(size_hw: tuple[int, int], factor: int) -> int:
    """Return the first byte of a sequence: the factor, and the rows and columns that the coded frames have more."""
    more_height, more_width = (_coded_side(side, factor) - side for side in size_hw)
    return 16 * factor + 4 * more_height + more_width


def _missing_sides(data: bytes, kind: SizedFormat) -> tuple[int, int]:
    """Return the number of rows and columns that are cut off, from the first byte of a sequence."""
    missing = divmod(data[0] % 16, 4) if data else (0, 0)
    if not data or data[0] // 16 != kind.factor or max(missing) >= 2 * kind.factor:
        what = f"it begins with {data[:8].hex(' ')}" if data else "it is empty"
        raise BitstreamError(f"not the first frame of a {kind.form.title} sequence: {what}")
    return missing


def _coded_picture(frame_uint8_HW3: ImageArray, size_hw: tuple[int, int], factor: int) -> ImageArray:
    """Return the picture that is coded: the frame, padded by its edges to whole pixels, at a fraction of its size."""
    frame = check_image(frame_uint8_HW3)
    if frame.shape[:2] != size_hw:
        raise ShapeError(f"expected frames of {size_hw[0]}x{size_hw[1]} pixels", frame.shape)
    height, width = (_coded_side(side, factor) for side in size_hw)
    padding = ((0, height - size_hw[0]), (0, width - size_hw[1]), (0, 0))
    whole = np.pad(frame, padding, mode="edge")
    if factor == 1:
        return whole
    return np.asarray(Image.fromarray(whole).resize((width // factor, height // factor), Image.Resampling.BICUBIC))


def _elementary(packet: bytes, form: Format) -> bytes:
    return without_units(packet, H264_SEI) if form.decoder == "h264" else packet
