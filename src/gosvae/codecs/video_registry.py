"""Names of video codecs: one string names a classical video codec, or any image codec that works frame by frame."""

from __future__ import annotations

import re

import torch

from gosvae.codecs.classical_video import DEFAULT_GOP, VIDEO_CODECS, ClassicalVideoCodec
from gosvae.codecs.frame_by_frame import FrameByFrame
from gosvae.codecs.registry import load_codec
from gosvae.codecs.slices import DEFAULT_OPTIONS, StreamOptions
from gosvae.codecs.video import VideoCodec
from gosvae.errors import ConfigError
from gosvae.precision import Precision


def load_video_codec(
    spec: str,
    *,
    options: StreamOptions = DEFAULT_OPTIONS,
    device: str | torch.device = "cpu",
    precision: Precision = "32",
) -> VideoCodec:
    """Load any video codec by name.

    A classical codec is `NAME`, `NAME:CRF` (constant quality) or `NAME:RATEkbps` (constant rate), each with an intra
    frame at least every N frames as `NAME@gop=N`: `x265:36`, `svtav1-half:60kbps`, `x264:36@gop=30`. Every other name
    is that of an image codec, see `load_codec`, which codes each frame on its own.

    Args:
        spec: name.
        options, device, precision: as `load_codec`, for trained codecs.

    Raises:
        ConfigError: the name is unknown, or a setting is impossible.
        MissingDependencyError: PyAV is needed and not installed.
        CheckpointError, ExpertError: as `load_codec`.
    """
    base, gop = _split_gop(spec)
    name, _, rate = base.partition(":")
    if name in VIDEO_CODECS:
        constant = re.fullmatch(r"(\d+\.?\d*)kbps", rate)
        if constant:
            return ClassicalVideoCodec(name, kilobits_per_second=float(constant[1]), gop=gop)
        if rate and not rate.isdecimal():
            raise ConfigError(f"{rate!r} is not a rate of {name}: give a quality ({name}:36) or a rate ({name}:60kbps)")
        return ClassicalVideoCodec(name, crf=int(rate) if rate else None, gop=gop)
    if base != spec:
        raise ConfigError(f"{spec!r}: only {', '.join(VIDEO_CODECS)} have intra frames at a distance, leave out @gop")
    return FrameByFrame(load_codec(spec, options=options, device=device, precision=precision))


def _split_gop(spec: str) -> tuple[str, int]:
    """Return the name and the number behind `@gop=`, or the whole string and the default."""
    match = re.fullmatch(r"(.*)@gop=(\d+)", spec)
    return (match[1], int(match[2])) if match else (spec, DEFAULT_GOP)
