"""Rate control of a sequence: choice of the frames that are sent, and of their level, for a number of kbit a second.

Few frames at a high level give better, but older, class maps than many frames at a low level.
"""

from __future__ import annotations

from gosvae.entropy.latent_network import LEVELS
from gosvae.errors import ConfigError

GOOD_LEVEL = 64
"""Level below which spare bits raise the level rather than the number of frames that are sent."""
BEST_LEVEL = 160
"""The same limit while as few frames as allowed are sent. Above it, a lack of bits lowers the level rather than the
number of frames."""
_STEP = 12
"""Number of levels by which the level changes at once."""
_PATIENCE = 4
"""Number of frames between two changes: a change of level costs bytes of its own."""
_SMOOTHING = 0.1
"""Weight of the latest time between two frames of the source in their mean."""
_SLACK = (0.75, 1.05)
"""Shares of the rate between which nothing is changed."""


class RateControl:
    """Controller of frame rate and level.

    Args:
        kbps: rate of the sequence in 1000 bits a second.
        frames_per_second: estimated frame rate of the source; the times of the frames correct it.
        max_age_ms: longest time in milliseconds from one frame that is sent to the next.
        level: level of the first frame, 0..255.

    Attributes:
        level: level of the next frame.
        every: number of frames of the source for each one that is sent.

    Raises:
        ConfigError: a rate or the age is not above 0.
    """

    def __init__(self, kbps: float, frames_per_second: float, max_age_ms: float, level: int = 0) -> None:
        if kbps <= 0 or frames_per_second <= 0:
            raise ConfigError(f"{kbps} kbit/s at {frames_per_second} frames a second: expected more than 0")
        if max_age_ms <= 0:
            raise ConfigError(f"a map of at most {max_age_ms} ms: expected more than 0", argument="max_age_ms")
        self._bytes_per_s, self._max_age_s = kbps * 125.0, max_age_ms / 1000.0
        self._period_s = 1.0 / frames_per_second
        self._seen_s: float | None = None
        self._is_measured = False
        self.level, self.every = level, self._most
        self._debt = 0.0
        self._waited = self._most
        self._since = 0
        self._mean: float | None = None

    @property
    def _most(self) -> int:
        """Largest number of frames of the source for each one that is sent."""
        return max(1, int(self._max_age_s / self._period_s + 1e-6))

    @property
    def _bytes_of_slot(self) -> float:
        """Number of bytes for each frame of the source."""
        return self._bytes_per_s * self._period_s

    def wants(self, now_s: float | None = None) -> bool:
        """Return whether to send the next frame of the source. Call this once for each frame.

        Args:
            now_s: time of the frame on a clock that never goes back; None means one period after the frame before.
        """
        gap_s = self._period_s
        if now_s is not None:
            if self._seen_s is not None:
                gap_s = max(0.0, now_s - self._seen_s)
                if not self._is_measured:
                    self._period_s, self._is_measured = min(max(gap_s, 1e-3), 10.0), True
                else:  # a pause of the source is no slower source
                    self._period_s += _SMOOTHING * (min(max(gap_s, 1e-3), 2.0 * self._period_s) - self._period_s)
            self._seen_s = now_s
        self.every = min(self.every, self._most)
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
        self._mean = n_bytes if self._mean is None else 0.7 * self._mean + 0.3 * n_bytes
        self._since += 1
        share = self._mean / (self._bytes_of_slot * self.every)
        if share > _SLACK[1] and (self._since >= _PATIENCE or share > 2.0):
            self._change(1)
        elif share < _SLACK[0] and self._since >= _PATIENCE:
            self._change(-1)

    def _change(self, direction: int) -> None:
        """Take fewer bytes (1) or more (-1)."""
        self._since, self._mean = 0, None
        if direction > 0:
            if self.every < self._most and self.level <= BEST_LEVEL:
                self.every += 1
            else:
                self.level = max(0, self.level - _STEP)
        elif self.level < (GOOD_LEVEL if self.every < self._most else BEST_LEVEL) or self.every == 1:
            self.level = min(LEVELS - 1, self.level + _STEP)
        else:
            self.every -= 1
