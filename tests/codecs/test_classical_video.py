"""What is particular to x264, x265 and SVT-AV1; the shared behaviour is in `contracts/test_video_codecs.py`."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from gosvae.codecs.classical_video import VIDEO_CODECS, ClassicalVideoCodec
from gosvae.codecs.frame_by_frame import FrameByFrame
from gosvae.codecs.pyav import H264_SEI, without_units
from gosvae.codecs.video import VideoCodec, encode_sequence
from gosvae.codecs.video_registry import load_video_codec
from gosvae.errors import ConfigError, MissingDependencyError
from gosvae.tensors import ImageArray

NAMES = ["x264", "x264-half", "x265", "x265-half", "svtav1", "svtav1-half"]
RATE = 15.0


def pan(count: int, height: int = 96, width: int = 128) -> list[ImageArray]:
    """Frames of a camera that pans over grey blocks."""
    grey = np.random.default_rng(3).integers(0, 255, (-(-height // 8), width // 4, 1)).astype(np.uint8)
    wide = grey.repeat(8, axis=0).repeat(8, axis=1).repeat(3, axis=2)
    return [np.ascontiguousarray(wide[:height, 2 * number : 2 * number + width]) for number in range(count)]


def sizes(codec: VideoCodec, frames: list[ImageArray]) -> list[int]:
    return [len(data) for data in encode_sequence(codec, frames, frames_per_second=RATE)]


def test_names() -> None:
    assert list(VIDEO_CODECS) == NAMES
    for name in NAMES:
        codec = load_video_codec(f"{name}:40@gop=30")
        assert isinstance(codec, ClassicalVideoCodec)
        assert (codec.name, codec.crf, codec.kilobits_per_second, codec.gop) == (name, 40, None, 30)
        codec = load_video_codec(f"{name}:60.5kbps")
        assert isinstance(codec, ClassicalVideoCodec)
        assert (codec.crf, codec.kilobits_per_second, codec.gop) == (None, 60.5, 250)
    assert isinstance(load_video_codec("jpeg:30"), FrameByFrame)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("x264:0", r"x264 crf 0: expected a whole number in 1\.\.51"),
        ("x265:52", r"x265 crf 52: expected a whole number in 1\.\.51"),
        ("svtav1:64", r"SVT-AV1 crf 64: expected a whole number in 1\.\.63"),
        ("x264:0kbps", r"x264 at 0\.0 kbit/s: expected at least 1"),
        ("x264:good", r"'good' is not a rate of x264: give a quality \(x264:36\) or a rate \(x264:60kbps\)"),
        ("x264:30@gop=0", "x264 with an intra frame every 0 frames: expected at least 1"),
        ("jpeg:30@gop=5", "only x264, .* leave out @gop"),
        ("x266:30", "unknown codec"),
    ],
)
def test_what_cannot_be_is_refused(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_video_codec(spec)


def test_quality_and_rate_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="give crf or kilobits_per_second"):
        ClassicalVideoCodec("x264", crf=30, kilobits_per_second=60)
    with pytest.raises(ConfigError, match=r"unknown classical video codec 'x262'; did you mean 'x26"):
        ClassicalVideoCodec("x262")


@pytest.mark.parametrize("name", ["x264", "x265", "svtav1"])  # at half size the loss by shrinking decides
def test_a_lower_factor_is_larger_and_nearer(name: str) -> None:
    frames, results = pan(4), []
    for crf in (20, 45):
        codec = ClassicalVideoCodec(name, crf=crf)
        data, decoder = encode_sequence(codec, frames, frames_per_second=RATE), codec.decoder()
        pictures = [decoder.decode(piece) for piece in data]
        errors = [np.square(a.astype(int) - b).mean() for a, b in zip(pictures, frames, strict=True)]
        results.append((sum(map(len, data)), np.mean(errors)))
    assert results[0][0] > results[1][0]
    assert results[0][1] < results[1][1]


@pytest.mark.parametrize("name", NAMES)
def test_the_distance_of_intra_frames(name: str) -> None:
    frames = [pan(1, 256, 384)[0]] * 9  # nothing moves, so that an intra frame alone is large
    of_frame = sizes(ClassicalVideoCodec(name, crf=30, gop=4), frames)
    intra = [number for number, n_bytes in enumerate(of_frame) if n_bytes > max(of_frame) / 2]
    assert intra == [0, 4, 8]


@pytest.mark.parametrize("name", ["x264", "x265", "svtav1"])
def test_a_constant_rate_is_near_what_was_asked_for(name: str) -> None:
    generator = np.random.default_rng(4)
    frames = [generator.integers(0, 255, (96, 128, 3)).astype(np.uint8) for _ in range(45)]
    for kilobits in (160.0, 400.0):
        n_bytes = sum(sizes(ClassicalVideoCodec(name, kilobits_per_second=kilobits), frames))
        assert 0.5 * kilobits < 8e-3 * n_bytes * RATE / len(frames) < 1.5 * kilobits


def test_a_sequence_is_one_byte_and_an_elementary_stream() -> None:
    first, second = encode_sequence(ClassicalVideoCodec("x264"), pan(2, 65, 99), frames_per_second=RATE)
    assert first[0] == 16 * 1 + 4 * 1 + 1  # factor 1; one row and one column more than the frame
    assert first[1:5] == b"\0\0\0\1"  # with parameter sets
    assert first[5] & 0x1F == 7
    assert second[:3] == b"\0\0\1" or second[:4] == b"\0\0\0\1"
    for data in (first[1:], second):
        assert without_units(data, H264_SEI) == data
    (half,) = encode_sequence(ClassicalVideoCodec("x264-half"), pan(1, 65, 99), frames_per_second=RATE)
    assert half[0] == 16 * 2 + 4 * 3 + 1


@pytest.mark.skipif(sys.platform != "linux", reason="scheduling of threads as on Linux")
@pytest.mark.parametrize("name", ["x264", "x265", "svtav1"])
def test_an_encoder_leaves_the_scheduling_of_threads_alone(name: str) -> None:
    """As root, SVT-AV1 makes its own threads and the caller's real-time."""

    def policies() -> set[int]:
        found = set()
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # the thread has ended
                found.add(os.sched_getscheduler(int(task.name)))
        return found

    before = policies()
    encoder = ClassicalVideoCodec(name).encoder(96, 128, frames_per_second=RATE)
    for frame in pan(2):
        encoder.encode(frame)
        assert policies() <= before


def test_units_are_taken_out_whole() -> None:
    kept, remark, last = b"\0\0\0\1\x67abc", b"\0\0\1\x06remark", b"\0\0\1\x65picture"
    assert without_units(kept + remark + last, H264_SEI) == kept + last
    assert without_units(kept, H264_SEI) == kept
    assert without_units(b"", H264_SEI) == b""


def test_without_pyav_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"gosvae\[video\]"):
        load_video_codec("x264:30")
