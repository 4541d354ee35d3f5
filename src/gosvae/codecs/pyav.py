"""Encoders and decoders of FFmpeg through PyAV: one picture in, its bytes out, on one thread.

Pictures are YCbCr 4:2:0 inside (BT.601, limited range), with bicubic scaling of the colour planes both ways.

Axis legend: H and W pixels, 3 RGB channels.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gosvae.errors import BitstreamError, ConfigError
from gosvae.extras import needs
from gosvae.tensors import ImageArray

H264_SEI = 6
"""Type of the units of an H.264 stream that carry remarks, such as the options of x264, and no picture."""
_START = b"\x00\x00\x01"


def pyav() -> Any:
    """Return the module of PyAV.

    Raises:
        MissingDependencyError: it is not installed.
    """
    with needs("video", "a classical video codec"):
        import av
    return av


@dataclass(frozen=True)
class Format:
    """A format of FFmpeg with its encoder and decoder.

    Attributes:
        title: name in messages.
        encoder, decoder: names that FFmpeg knows.
        parameters: name of the option that takes the encoder's own parameters.
        options: options of FFmpeg.
        settings: the encoder's own parameters.
    """

    title: str
    encoder: str
    decoder: str
    parameters: str
    options: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


class PictureEncoder:
    """Encoder of one sequence of pictures with even sides.

    Args:
        form: format.
        height, width: size of the pictures, which is even.
        frames_per_second: rate of the pictures.
        gop: largest number of pictures from one intra picture to the next.
        options, settings: further options and parameters, see `Format`.

    Raises:
        MissingDependencyError: PyAV is not installed.
        ConfigError: this build of FFmpeg lacks the encoder, or the encoder refuses the size or a setting.
    """

    def __init__(
        self,
        form: Format,
        height: int,
        width: int,
        *,
        frames_per_second: float,
        gop: int,
        options: Mapping[str, str],
        settings: Mapping[str, str],
    ) -> None:
        av = pyav()
        os.environ.setdefault("SVT_LOG", "0")  # SVT-AV1 reports its settings on standard error; failures are raised
        rate = Fraction(frames_per_second).limit_denominator(1001)
        own = ":".join(f"{name}={value}" for name, value in {**form.settings, **settings}.items())
        try:
            context = av.CodecContext.create(form.encoder, "w")
            context.width, context.height, context.pix_fmt = width, height, "yuv420p"
            context.framerate, context.time_base = rate, 1 / rate
            context.gop_size, context.max_b_frames, context.thread_count = gop, 0, 1
            context.options = {**form.options, **options, form.parameters: own}
            with _same_scheduling():
                context.open()
        except (OSError, ValueError, av.FFmpegError) as error:
            raise ConfigError(f"{form.title} cannot encode {height}x{width} pixels: {_reason(error)}") from None
        self._form, self._context, self._count = form, context, 0

    def encode(self, image_uint8_HW3: ImageArray) -> list[bytes]:
        """Hand over a picture and return the packets that are complete, in the order of the pictures."""
        av = pyav()
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image_uint8_HW3), format="rgb24")
        frame = frame.reformat(format="yuv420p", interpolation=_scaling(av))
        frame.pts, frame.time_base = self._count, self._context.time_base
        self._count += 1
        return [bytes(packet) for packet in self._context.encode(frame)]

    def flush(self) -> list[bytes]:
        """Return the packets that are still to come; the encoder takes no picture afterwards."""
        return [bytes(packet) for packet in self._context.encode(None)]


class PictureDecoder:
    """Decoder of one sequence of pictures that each depend on earlier ones only.

    Args:
        form: format.
        max_pixels: greatest number of pixels of a coded picture; larger ones are refused before they take memory.

    Raises:
        MissingDependencyError: PyAV is not installed.
    """

    def __init__(self, form: Format, *, max_pixels: int) -> None:
        av = pyav()
        self._form = form
        self._context = av.CodecContext.create(form.decoder, "r")
        self._context.options = {"max_pixels": str(max_pixels)}
        self._context.thread_count = 1  # with more threads a decoder keeps pictures back
        self._context.flags |= av.codec.context.Flags.low_delay

    def decode(self, data: bytes) -> ImageArray:
        """Return the picture, uint8 (H, W, 3), of the packet of one picture.

        Raises:
            BitstreamError: the packet gives no picture, or is damaged in a way that the decoder notices.
        """
        av = pyav()
        try:
            frames = self._context.decode(av.Packet(data)) if data else []
        except (OSError, ValueError, av.FFmpegError) as error:
            raise BitstreamError(
                f"{self._form.title} frame of {len(data)} bytes is damaged: {_reason(error)}"
            ) from None
        if len(frames) != 1 or frames[0].is_corrupt:
            raise BitstreamError(
                f"{self._form.title} frame of {len(data)} bytes gives no single intact picture: it is damaged, or "
                "earlier frames are missing"
            )
        image: ImageArray = frames[0].reformat(format="rgb24", interpolation=_scaling(av)).to_ndarray()
        return image


def without_units(data: bytes, unit_type: int) -> bytes:
    """Return an H.264 stream (Annex B) without the units of a type."""
    starts: list[int] = []
    position = data.find(_START)
    while position >= 0:
        # A unit that begins with four bytes (0, 0, 0, 1) owns the first of them.
        starts.append(position - 1 if position > 0 and data[position - 1] == 0 else position)
        position = data.find(_START, position + 3)
    units = [data[start:end] for start, end in pairwise([*starts, len(data)])]
    return b"".join(unit for unit in units if unit[unit.index(_START) + 3] & 0x1F != unit_type)


@contextlib.contextmanager
def _same_scheduling() -> Iterator[None]:
    """Give threads back the scheduling that they had before this context, and new threads that of the caller.

    When SVT-AV1 opens an encoder as root, it gives the caller and its own threads the highest real-time priority, so
    that they would keep everything else on the machine from running.
    """
    before = _scheduling()
    yield
    own = before.get(threading.get_native_id())
    for thread, policy in _scheduling().items():
        if own is not None and policy != before.get(thread, own):
            with contextlib.suppress(OSError):  # the thread has ended
                os.sched_setscheduler(thread, before.get(thread, own), os.sched_param(0))


def _scheduling() -> dict[int, int]:
    """Return the scheduling policy of each thread of this process; nothing on other systems than Linux."""
    policies = {}
    for task in Path("/proc/self/task").glob("*") if sys.platform == "linux" else ():
        with contextlib.suppress(OSError):
            policies[int(task.name)] = os.sched_getscheduler(int(task.name))
    return policies


def _scaling(av: Any) -> Any:
    """Return the way in which colour planes are scaled: bicubic, and exact on every processor."""
    kinds = av.video.reformatter.Interpolation
    return kinds.BICUBIC | kinds.FULL_CHR_H_INT | kinds.FULL_CHR_H_INP | kinds.ACCURATE_RND | kinds.BITEXACT


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())
