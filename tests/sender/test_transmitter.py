"""Rate control: the mean rate keeps to the target, whatever the pictures take."""

from __future__ import annotations

import random

import numpy as np
import pytest

from gosvae.codecs.base import RateControlledCodec
from gosvae.codecs.registry import load_codec
from gosvae.codecs.slices import StreamOptions
from gosvae.codecs.variable import VariableRateCodec
from gosvae.datasets.streets import Streets
from gosvae.errors import ConfigError, RateError
from gosvae.sender.transmitter import LeakyBucket, Transmitter
from gosvae.tensors import ImageArray
from small_link import codec

PICTURE = np.zeros((8, 8, 3), np.uint8)


class Steps(RateControlledCodec):
    """Streams come in a few lengths only, and the shortest changes with the picture."""

    name = "steps"

    def __init__(self, seed: int = 0, least: int = 100) -> None:
        self._random = random.Random(seed)
        self._least = least

    def compress(self, image_uint8_HW3: ImageArray) -> bytes:
        return bytes(1000 * (image_uint8_HW3.ndim == 3))

    def compress_smallest(self, image_uint8_HW3: ImageArray) -> bytes:
        return bytes(self._least * (image_uint8_HW3.ndim == 3))

    def compress_to_budget(self, image_uint8_HW3: ImageArray, budget_bytes: int) -> bytes:
        n_bytes = self._least * self._random.uniform(1.0, 1.5) + image_uint8_HW3[0, 0, 0]
        if n_bytes > budget_bytes:
            raise RateError("too little")
        while 1.1 * n_bytes <= min(budget_bytes, 500_000):
            n_bytes *= 1.1
        return bytes(int(n_bytes))

    def decompress(self, data: bytes) -> ImageArray:
        return PICTURE + np.uint8(len(data) > 0)


def mean_kbps(transmitter: Transmitter, fps: float, seconds: float, around: int = 0, jitter: float = 0.0) -> float:
    """The rate of a run on a clock of its own."""
    jitters, total, now_s = random.Random(1), 0, 0.0
    frames = int(fps * seconds)
    for n in range(frames):
        now_s = (n + jitters.uniform(0, jitter)) / fps
        stream = transmitter.code(PICTURE, now_s, lambda link_bytes: int(link_bytes) - around)
        if stream is not None:
            transmitter.spend(len(stream) + around)
            total += len(stream) + around
    return 8 * total / 1000 / seconds


@pytest.mark.parametrize("kbps", [20.0, 120.0, 900.0])
@pytest.mark.parametrize("fps", [2.0, 10.0, 30.0])
@pytest.mark.parametrize(("around", "jitter"), [(0, 0.0), (60, 0.8)])
def test_the_mean_rate_is_the_target(kbps: float, fps: float, around: int, jitter: float) -> None:
    transmitter = Transmitter(Steps(), kbps=kbps, fps=fps)
    rate = mean_kbps(transmitter, fps, 60.0, around, jitter)
    assert 0.97 * kbps <= rate <= kbps * (1 + 1 / (60.0 * fps))  # the run begins with one frame's bytes
    assert transmitter.counters.forced == 0
    assert transmitter.counters.coded + transmitter.counters.skipped == int(fps * 60)


def test_what_is_not_spent_is_not_kept_for_ever() -> None:
    bucket = LeakyBucket(80.0, first_s=0.1, most_s=0.5)  # 10,000 bytes a second
    assert bucket.credit_bytes(0.0) == 1000
    bucket.spend(400)
    assert bucket.credit_bytes(0.02) == pytest.approx(800)
    assert not bucket.is_full
    assert bucket.credit_bytes(100.0) == 5000
    assert bucket.is_full
    bucket.spend(6000)
    assert bucket.credit_bytes(100.05) == pytest.approx(-500)


def test_a_rate_below_the_smallest_stream_skips_pictures_and_is_kept() -> None:
    transmitter = Transmitter(Steps(least=5000), kbps=8.0, fps=10.0)  # 1000 bytes a second
    rate = mean_kbps(transmitter, 10.0, 120.0)
    assert 0.9 * 8 <= rate <= 1.05 * 8
    assert transmitter.counters.forced == transmitter.counters.coded == pytest.approx(24, abs=1)
    assert transmitter.counters.skipped > 1000


def test_a_picture_that_waits_for_room_is_not_skipped() -> None:
    transmitter = Transmitter(Steps(least=5000), kbps=8.0, fps=10.0)
    assert transmitter.code(PICTURE, 0.0, patient=True) is None
    assert transmitter.counters.skipped == 0
    assert transmitter.code(PICTURE, 100.0, patient=True) == bytes(5000)
    assert (transmitter.counters.coded, transmitter.counters.skipped) == (1, 0)


def test_without_a_rate_the_codec_has_its_own() -> None:
    transmitter = Transmitter(Steps())
    assert transmitter.code(PICTURE, 0.0) == bytes(1000)
    transmitter.spend(10**9)
    assert transmitter.code(PICTURE, 0.0) == bytes(1000)


def test_the_shipped_model_keeps_to_its_rate() -> None:
    streets = Streets(5, seed=3, height=96, width=192)
    pictures = [streets[n].image_uint8_HW3 for n in range(5)]
    model = load_codec("gosvae-variable-camvid", options=StreamOptions(effort=0))
    assert isinstance(model, VariableRateCodec)
    lengths = [len(model.compress_at(picture, 100)) for picture in pictures]
    target_kbps = 8 * 10 * sum(lengths) / len(lengths) / 1000  # ten frames a second of a middling level
    transmitter, total = Transmitter(model, kbps=target_kbps, fps=10.0), 0
    for n in range(30):
        stream = transmitter.code(pictures[n % 5], n / 10)
        if stream is not None:
            transmitter.spend(len(stream))
            total += len(stream)
    assert 0.97 * target_kbps <= 8 * total / 1000 / 3.0 <= target_kbps
    assert transmitter.counters.coded == 30


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="fixed"):
        Transmitter(codec(), kbps=10.0)
    for kbps, fps in ((0.0, 10.0), (-1.0, 10.0), (float("nan"), 10.0), (10.0, 0.0)):
        with pytest.raises(ConfigError, match="expected more than 0"):
            Transmitter(Steps(), kbps=kbps, fps=fps)
