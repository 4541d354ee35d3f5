"""Rate control of a sequence: choice of the frames that are sent, and of their level, for a number of kbit a second.

Few frames at a high level give better, but older, class maps than many frames at a low level.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from gosvae.codecs.sequence.encoder import SequenceEncoder
from gosvae.codecs.sequence.format import is_session
from gosvae.errors import ConfigError
from gosvae.tensors import ImageArray

GOOD_LEVEL = 64
"""Level up to which spare bits raise the level of few frames, before they bring more frames."""
BEST_LEVEL = 160
"""Level above which bits bring nothing to the class maps, see `docs/video.md`."""
DEFAULT_MAX_AGE_MS = 250.0
"""Default of the longest time in milliseconds between two frames that are sent."""
_LEVELS_OF_DOUBLE = 48.0
"""Number of levels that double the bytes of a frame, about."""
_GOOD_BYTES = 250.0
"""Typical number of bytes of a frame of 256x512 pixels at `GOOD_LEVEL`, with a reference."""
_GOOD_PIXELS = 256 * 512
_PATIENCE = 8
"""Number of frames between two changes: a change of level costs bytes of its own."""
_SMOOTHING = 0.1
"""Weight of the latest time between two frames of the source in their mean."""
_SLACK = (0.7, 1.1)
"""Shares of the rate between which nothing is changed."""
_AIM = 0.95
"""Share of the rate that a change aims at."""


class RateControl:
    """Controller of frame rate and level.

    The controller estimates how many periods of the source a frame at `GOOD_LEVEL` takes. It sends every n-th frame,
    where n is this number rounded up and limited by `max_age_ms`, and spends what is left on the level.

    Args:
        kbps: rate of the sequence in 1000 bits a second.
        frames_per_second: estimated frame rate of the source; the times of the frames correct it.
        max_age_ms: longest time in milliseconds from one frame that is sent to the next.

    Attributes:
        kbps: rate of the sequence.
        max_age_ms: longest time between two frames that are sent.

    Raises:
        ConfigError: a rate or the age is not above 0.
    """

    def __init__(self, kbps: float, frames_per_second: float, max_age_ms: float = DEFAULT_MAX_AGE_MS) -> None:
        if kbps <= 0 or frames_per_second <= 0:
            raise ConfigError(f"{kbps} kbit/s at {frames_per_second} frames a second: expected more than 0")
        if max_age_ms <= 0:
            raise ConfigError(f"a map of at most {max_age_ms} ms: expected more than 0", argument="max_age_ms")
        self.kbps, self.max_age_ms = kbps, max_age_ms
        self._bytes_per_s = kbps * 125.0
        self._period_s = 1.0 / frames_per_second
        self._seen_s: float | None = None
        self._is_measured = False
        self._debt = 0.0
        self._since = 0
        self._mean: float | None = None
        self._periods = 1.0
        self._waited = self._most
        self.expect(_GOOD_PIXELS)

    @property
    def _most(self) -> int:
        """Largest number of frames of the source for each one that is sent."""
        return max(1, int(self.max_age_ms / 1000.0 / self._period_s + 1e-6))

    @property
    def _bytes_of_slot(self) -> float:
        """Number of bytes for each frame of the source."""
        return self._bytes_per_s * self._period_s

    @property
    def every(self) -> int:
        """Number of frames of the source for each one that is sent."""
        return min(max(1, math.ceil(self._periods - 1e-9)), self._most)

    @property
    def level(self) -> int:
        """Level of the next frame."""
        level = GOOD_LEVEL + _LEVELS_OF_DOUBLE * math.log2(self.every / self._periods)
        return min(max(0, round(level)), BEST_LEVEL)

    def _scale(self, factor: float) -> None:
        """Spend `factor` times as many bytes, as far as the levels allow."""
        least = 2.0 ** ((GOOD_LEVEL - BEST_LEVEL) / _LEVELS_OF_DOUBLE)
        most = self._most * 2.0 ** (GOOD_LEVEL / _LEVELS_OF_DOUBLE)
        self._periods = min(max(least, self._periods / factor), most)

    def expect(self, pixels: int) -> None:
        """Estimate frame rate and level from the number of pixels of a frame; call this before the first frame."""
        self._periods = 1.0
        self._scale(self._bytes_of_slot / (_GOOD_BYTES * pixels / _GOOD_PIXELS))

    def wants(self, now_s: float | None = None) -> bool:
        """Return whether to send the next frame of the source. Call this once for each frame.

        Args:
            now_s: time of the frame on a clock that never goes back; None means one period after the frame before.
        """
        gap_s = self._period_s
        if now_s is not None:
            if self._seen_s is not None:
                gap_s = max(0.0, now_s - self._seen_s)
                before_s = self._period_s
                if not self._is_measured:
                    self._period_s, self._is_measured = min(max(gap_s, 1e-3), 10.0), True
                else:  # a pause of the source is no slower source
                    self._period_s += _SMOOTHING * (min(max(gap_s, 1e-3), 2.0 * self._period_s) - self._period_s)
                self._scale(self._period_s / before_s)  # a frame takes the same time, in other periods
            self._seen_s = now_s
        self._debt = max(self._debt - self._bytes_per_s * gap_s, -self._bytes_of_slot)
        self._waited += 1
        # A large frame, such as a key frame, is paid for by the frames after it, as long as the map does not get older.
        if self._waited < self.every or (self._debt > 0 and self._waited < self._most):
            return False
        self._waited = 0
        return True

    def sent(self, n_bytes: int, *, key: bool) -> None:
        """Take the size of the frame that was sent into account.

        Args:
            n_bytes: number of bytes of the frame.
            key: whether it is a key frame, whose size says nothing about the next frames.
        """
        self._debt += n_bytes
        if key:
            return
        self._since += 1
        if self._since == 1:  # the reference had another level
            return
        self._mean = n_bytes if self._mean is None else 0.7 * self._mean + 0.3 * n_bytes
        share = self._mean / (self._bytes_of_slot * self.every)
        if share > 2.0 or (self._since > _PATIENCE and not _SLACK[0] <= share <= _SLACK[1]):
            level, every = self.level, self.every
            self._scale(_AIM / share)
            if (level, every) != (self.level, self.every):
                self._since, self._mean = 0, None


def encoded_at_rate(
    encoder: SequenceEncoder, frames: Iterable[ImageArray | None], control: RateControl
) -> Iterator[bytes | None]:
    """Yield the bytes of each frame, uint8 (H, W, 3), of a sequence at a constant rate; None for one that is left out.

    Frames that are None, because they cannot be read, are left out.

    Raises:
        ShapeError: as `SequenceEncoder.encode`.
    """
    control.expect(encoder.header.height * encoder.header.width)
    for frame in frames:
        if frame is None or not control.wants():
            yield None
            continue
        encoder.level = control.level
        data = encoder.encode(frame)
        yield data
        control.sent(len(data), key=is_session(data))
