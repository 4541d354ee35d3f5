"""Names of video codecs: one string names a classical or trained video codec, or an image codec, frame by frame."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from gosvae.codecs.classical_video import DEFAULT_GOP, VIDEO_CODECS, ClassicalVideoCodec
from gosvae.codecs.frame_by_frame import FrameByFrame
from gosvae.codecs.registry import embedded_codecs, load_codec, load_sequence_codec, models_folder, split_rate
from gosvae.codecs.slices import DEFAULT_OPTIONS, StreamOptions
from gosvae.codecs.temporal_model import has_temporal_model
from gosvae.codecs.video import VideoCodec
from gosvae.errors import ConfigError
from gosvae.precision import Precision
from gosvae.walk import expanded

INTRA = "@intra"
"""Ending of a name whose codec codes each frame on its own."""


def load_video_codec(
    spec: str,
    *,
    options: StreamOptions = DEFAULT_OPTIONS,
    device: str | torch.device = "cpu",
    precision: Precision = "32",
    trust: bool = False,
    verify: bool = True,
) -> VideoCodec:
    """Load any video codec by name.

    A classical codec is `NAME`, `NAME:CRF` (constant quality) or `NAME:RATEkbps` (constant rate), each with an intra
    frame at least every N frames as `NAME@gop=N`: `x265:36`, `svtav1-half:60kbps`, `x264:36@gop=30`. A trained codec
    with a temporal model is `NAME` or `NAME:LEVEL`. Every other name is that of an image codec, see `load_codec`, which
    codes each frame on its own, as the codec of `NAME@intra` does in any case, also within a budget for each frame
    (`NAME:1.5KiB@intra`).

    Args:
        spec: name.
        options, device, precision, trust, verify: as `load_codec`, for trained codecs.

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
    name, rate = split_rate(spec)
    if not spec.endswith(INTRA) and temporal_folder(name) is not None:
        if rate and not rate.isdecimal():
            raise ConfigError(
                f"{rate!r} is not a level: with its temporal model, {name} takes a level of 0..255 ({name}:64); a "
                f"budget for each frame is for frames on their own ({name}:1.5KiB{INTRA})"
            )
        return load_sequence_codec(spec, device=device, precision=precision, verify=verify)
    image_codec = load_codec(
        spec.removesuffix(INTRA), options=options, device=device, precision=precision, trust=trust, verify=verify
    )
    return FrameByFrame(image_codec)


def temporal_folder(name: str) -> Path | None:
    """Return the folder of a codec that has a temporal model, by its name or folder; None for any other codec."""
    folder = models_folder() / name if name in embedded_codecs() else expanded(name)
    return folder if has_temporal_model(folder) else None


def _split_gop(spec: str) -> tuple[str, int]:
    """Return the name and the number behind `@gop=`, or the whole string and the default."""
    match = re.fullmatch(r"(.*)@gop=(\d+)", spec)
    return (match[1], int(match[2])) if match else (spec, DEFAULT_GOP)
