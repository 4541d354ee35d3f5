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


def test_frames_are_left_out_before_levels_are_low() -> None:
    control, _, _ = simulated(12.0, 100, 4000)
    assert control.every > 1
    assert control.level >= GOOD_LEVEL - 24
    control, _, _ = simulated(300.0, 100, 4000)
    assert control.every == 1


def test_impossible_rates_are_refused() -> None:
    for values in ((0.0, 10.0, 100.0), (10.0, 0.0, 100.0), (10.0, 10.0, 0.0)):
        with pytest.raises(ConfigError):
            RateControl(*values)
