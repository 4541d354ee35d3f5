"""Rate of a sequence: the bytes keep to the rate, fewer frames come before low levels, and the map does not get old."""

from __future__ import annotations

import pytest

from gosvae.codecs.sequence.rate import GOOD_LEVEL, RateControl
from gosvae.errors import ConfigError


def simulated(kbps: float, bytes_at_0: float, bytes_at_255: float, frames: int = 600) -> tuple[RateControl, float, int]:
    """The controller after a source of 10 frames a second, the rate over its second half, and the longest wait."""
    control, taken, waited, longest = RateControl(kbps, 10.0, 300.0), 0, 0, 0
    for number in range(frames):
        waited += 1
        if control.wants():
            longest, waited = max(longest, waited), 0
            size = round(bytes_at_0 * (bytes_at_255 / bytes_at_0) ** (control.level / 255))
            control.sent(size, key=number == 0)
            taken += size if number >= frames // 2 else 0
    return control, taken * 8 / 1000 / (frames / 2 / 10.0), longest


@pytest.mark.parametrize("kbps", [6.0, 12.0, 30.0, 100.0])
def test_the_bytes_keep_to_the_rate(kbps: float) -> None:
    _, rate, longest = simulated(kbps, 100, 4000)
    assert 0.6 * kbps < rate < 1.1 * kbps
    assert longest <= 3


@pytest.mark.parametrize("kbps", [12.0, 20.0, 40.0])
@pytest.mark.parametrize("easy", [0.5, 1.0, 2.0])
def test_a_short_clip_uses_its_rate(kbps: float, easy: float) -> None:
    """The first ten seconds, of a scene whose frames take half, or twice, as many bytes as the first estimate."""
    control, taken = RateControl(kbps, 10.0, 300.0), 0
    for number in range(100):
        if control.wants():
            size = round(100 * easy * 2 ** (control.level / 48))
            control.sent(size, key=number == 0)
            taken += size
    assert 0.75 * kbps < taken * 8 / 1000 / 10.0 < 1.1 * kbps


@pytest.mark.parametrize("pixels", [64 * 96, 256 * 512, 1080 * 1920])
def test_the_first_estimate_follows_the_size_of_the_frames(pixels: int) -> None:
    control = RateControl(20.0 * pixels / (256 * 512), 10.0, 300.0)
    control.expect(pixels)
    assert (control.every, control.level) == (1, GOOD_LEVEL)


def test_frames_are_left_out_before_levels_are_low() -> None:
    control, _, _ = simulated(12.0, 100, 4000)
    assert control.every > 1
    assert control.level >= GOOD_LEVEL - 24
    control, _, _ = simulated(300.0, 100, 4000)
    assert control.every == 1


@pytest.mark.parametrize("fps", [3.0, 10.0, 30.0])
def test_the_rate_holds_for_a_camera_of_unknown_speed(fps: float) -> None:
    """The controller expects 10 frames a second."""
    control, taken, age_s, longest_s, sent_s = RateControl(20.0, 10.0, 300.0), 0, 0.0, 0.0, 0.0
    for number in range(int(60 * fps)):
        now_s = 1000.0 + number / fps
        if control.wants(now_s):
            age_s = now_s - sent_s if sent_s else 0.0
            longest_s, sent_s = max(longest_s, age_s), now_s
            size = round(100 * 40 ** (control.level / 255))
            control.sent(size, key=number == 0)
            taken += size if number >= 30 * fps else 0
    assert 0.6 * 20.0 < taken * 8 / 1000 / 30.0 < 1.1 * 20.0
    assert longest_s <= max(0.34, 1.01 / fps)


def test_a_pause_of_the_source_brings_no_credit() -> None:
    control = RateControl(12.0, 10.0, 300.0)
    now_s = 0.0
    for number in range(200):
        now_s += 20.0 if number == 100 else 0.1
        if control.wants(now_s):
            control.sent(400, key=False)
        assert control.every <= 3


def test_impossible_rates_are_refused() -> None:
    for values in ((0.0, 10.0, 100.0), (10.0, 0.0, 100.0), (10.0, 10.0, 0.0)):
        with pytest.raises(ConfigError):
            RateControl(*values)
