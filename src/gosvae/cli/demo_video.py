"""`gosvae demo --video`: a clip by the package's codec, side by side with AV1 at as many bits."""

from __future__ import annotations

import argparse
import math

import numpy as np
from PIL import Image

from gosvae.codecs.classical_video import VIDEO_CODECS, ClassicalVideoCodec
from gosvae.codecs.rate_search import bisect_setting
from gosvae.codecs.registry import DEFAULT_CODEC
from gosvae.codecs.video import VideoCodec, encode_sequence
from gosvae.codecs.video_registry import load_video_codec
from gosvae.datasets.geometry import GeometryConfig
from gosvae.datasets.registry import generated_streets
from gosvae.entropy.latent_network import LEVELS
from gosvae.evaluation.clips import Clip, Footage, load_footage
from gosvae.evaluation.film import Column, film_frames, write_film
from gosvae.evaluation.rows import Row
from gosvae.evaluation.tables import terminal_table
from gosvae.evaluation.temporal import evaluate_video
from gosvae.evaluation.video_entry import VideoEntry
from gosvae.experts.registry import load_expert
from gosvae.tensors import ImageArray

OURS = DEFAULT_CODEC
"""Codec that the film shows, at level 0 or at the lowest rate of the first rival."""
RIVALS = ("svtav1", "svtav1-half")
_SIZE = GeometryConfig(resize_height=256, resize_width=512)
_FRAMES_PER_SECOND = 15.0
_FRAMES = 60
_FILM_FRAMES_PER_SECOND = 15.0
"""Greatest frame rate of the film, which leaves out frames of a faster clip."""
_SCENE = 7
"""Seed of the scene."""


def approach(
    scene_uint8_HW3: ImageArray, count: int, height: int, width: int, *, nearer: float = 1.8
) -> list[ImageArray]:
    """Return frames, uint8 (height, width, 3), of a camera that draws nearer to the middle of a scene.

    Args:
        scene_uint8_HW3: scene of the same aspect ratio, larger than the frames.
        count: number of frames.
        height, width: size of the frames.
        nearer: magnification of the last frame over the first.
    """
    picture = Image.fromarray(scene_uint8_HW3)
    frames = []
    for index in range(count):
        # A constant speed: the magnification of what is straight ahead grows as 1 / distance.
        share = 1.0 - (1.0 - 1.0 / nearer) * index / max(1, count - 1)
        left, top = picture.width * (1.0 - share) / 2, picture.height * (1.0 - share) / 2
        box = (left, top, picture.width - left, picture.height - top)
        frames.append(np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC, box=box)))
    return frames


def generated_clip() -> Footage:
    """Return the clip that the demo shows without one of the user's: the approach to a generated street."""
    scene = generated_streets(1, _SCENE, height=2 * 256, width=2 * 512)[0]
    frames = tuple(approach(scene.image_uint8_HW3, _FRAMES, 256, 512))
    return Footage("streets", (), (Clip("streets", frames, (None,) * len(frames), _FRAMES_PER_SECOND),))


def encoded(codec: VideoCodec, clip: Clip) -> bytes:
    """Return the bytes of all frames of a clip."""
    return b"".join(encode_sequence(codec, clip.frames, frames_per_second=clip.frames_per_second))


def at_equal_bits(name: str, clip: Clip, n_bytes: int) -> ClassicalVideoCodec | None:
    """Return a classical video codec at its best quality that takes at most `n_bytes` for a clip; None if none does."""

    def encode(crf: int) -> bytes:
        return encoded(ClassicalVideoCodec(name, crf=crf), clip)

    largest = VIDEO_CODECS[name].largest_crf
    smallest = encode(largest)
    if len(smallest) > n_bytes:
        return None
    return ClassicalVideoCodec(name, crf=bisect_setting(encode, n_bytes, fits=largest, exceeds=0, stream=smallest)[0])


def level_within(clip: Clip, n_bytes: int) -> int:
    """Return the highest level at which the package's codec takes at most `n_bytes` for a clip; 0 if none does."""

    def encode(level: int) -> bytes:
        return encoded(load_video_codec(f"{OURS}:{level}"), clip)

    return bisect_setting(encode, n_bytes, fits=0, exceeds=LEVELS, stream=b"")[0]


def run_demo_video(options: argparse.Namespace) -> int:
    """Print a table and write a film of the original, the package's codec, and AV1 at as many bits."""
    if options.video:
        footage = load_footage(
            options.video, frames_per_second=options.frames_per_second, geometry=_SIZE, limit=_FRAMES
        )
    else:
        footage = generated_clip()
    clip = footage.clips[0]
    footage = Footage(footage.name, (), (clip,))
    ours = f"{OURS}:0"
    n_bytes = len(encoded(load_video_codec(ours), clip))
    if all(at_equal_bits(name, clip, n_bytes) is None for name in RIVALS):
        n_bytes = len(encoded(ClassicalVideoCodec(RIVALS[0], crf=VIDEO_CODECS[RIVALS[0]].largest_crf), clip))
        lowest, ours = ours, f"{OURS}:{level_within(clip, n_bytes)}"
        print(f"AV1 takes more bits than {lowest} at every quality: the film shows {ours}, near AV1's lowest rate.\n")
    rivals = [rival for name in RIVALS if (rival := at_equal_bits(name, clip, n_bytes)) is not None]
    entries = [VideoEntry(ours, load_video_codec(ours))]
    entries += [VideoEntry(f"{rival.name}:{rival.crf}", rival) for rival in rivals]
    evaluation = evaluate_video(entries, footage, load_expert("embedded"), keep_frames=range(len(clip.frames)))
    print(terminal_table(evaluation), end="")
    _, row, *others = evaluation.rows
    best = max(others, key=lambda other: other.agreement_miou or 0.0)
    columns = [
        Column("original", f"{clip.name}, {clip.frames_per_second:g} frames a second"),
        Column(row.label, _detail(row), row.label),
        Column(best.label, _detail(best), best.label),
    ]
    path = options.out / "video.webp"
    step = math.ceil(clip.frames_per_second / _FILM_FRAMES_PER_SECOND)
    frames = film_frames(evaluation, columns)[::step]
    write_film(path, frames, frames_per_second=clip.frames_per_second / step)
    print(f"\nThe film is in {path}")
    return 0


def _detail(row: Row) -> str:
    return f"{row.kbit_per_second:.1f} kbit/s, agreement {row.agreement_miou:.3f}"
