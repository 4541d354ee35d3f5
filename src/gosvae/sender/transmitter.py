"""Coding of pictures at the sender, with the number of bytes for each frame that a leaky bucket allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gosvae.codecs.base import ImageCodec, RateControlledCodec
from gosvae.errors import ConfigError, RateError
from gosvae.tensors import ImageArray


class LeakyBucket:
    """Credit of bytes that may be sent, which grows at a steady rate up to a limit; sending spends it.

    Args:
        kbps: rate in 1000 bits a second.
        first_s: time between two frames in seconds; the bucket begins with the credit of this time.
        most_s: greatest time in seconds whose credit is kept; the limit is never less than that of twice `first_s`.

    Raises:
        ConfigError: the rate or a time is not above 0.
    """

    def __init__(self, kbps: float, *, first_s: float, most_s: float = 1.0) -> None:
        if not (kbps > 0 and first_s > 0 and most_s > 0):
            raise ConfigError(f"a rate of {kbps} kbit/s, kept for {most_s} s: expected more than 0")
        self.bytes_per_s = 1000 * kbps / 8
        self.most_bytes = self.bytes_per_s * max(most_s, 2 * first_s)
        self._credit_bytes = self.bytes_per_s * first_s
        self._seen_s: float | None = None

    def credit_bytes(self, now_s: float) -> float:
        """Return the number of bytes that may be sent now; below 0 if more was sent than the credit allowed."""
        if self._seen_s is not None:
            self._credit_bytes += (now_s - self._seen_s) * self.bytes_per_s
        self._seen_s = now_s
        self._credit_bytes = min(self._credit_bytes, self.most_bytes)
        return self._credit_bytes

    @property
    def is_full(self) -> bool:
        """Whether the credit is at its limit."""
        return self._credit_bytes >= 0.999 * self.most_bytes

    def spend(self, n_bytes: int) -> None:
        """Take a number of bytes that were sent from the credit."""
        self._credit_bytes -= n_bytes


@dataclass
class TransmitterCounters:
    """Numbers of pictures.

    Attributes:
        coded: number of pictures that were coded.
        skipped: number of pictures that were skipped, because the rate had no room for them.
        forced: number of pictures that were coded although their smallest stream is above the rate; the bytes are taken
            from the pictures that follow.
    """

    coded: int = 0
    skipped: int = 0
    forced: int = 0


class Transmitter:
    """Codec of a sender, which keeps a rate on the link or the codec's own rate.

    Args:
        codec: codec of the frames.
        kbps: rate on the link in 1000 bits a second, counted by `spend`; None keeps the codec's own rate.
        fps: estimated number of frames a second.

    Raises:
        ConfigError: `kbps` or `fps` is not above 0, or `kbps` is given and the rate of the codec is fixed.
    """

    def __init__(self, codec: ImageCodec, *, kbps: float | None = None, fps: float = 10.0) -> None:
        if not fps > 0:
            raise ConfigError(f"{fps} frames a second: expected more than 0")
        if kbps is not None and not isinstance(codec, RateControlledCodec):
            raise ConfigError(f"the rate of {codec.name!r} is fixed: name a variable-rate codec", argument="kbps")
        self.codec = codec
        self.counters = TransmitterCounters()
        self._bucket = None if kbps is None else LeakyBucket(kbps, first_s=1 / fps)

    @property
    def waits(self) -> bool:
        """Whether a picture for which the rate has no room may be sent later; otherwise it is left out."""
        return True

    def code(
        self,
        image_uint8_HW3: ImageArray,
        now_s: float,
        room: Callable[[float], int] = int,
        *,
        patient: bool = False,
    ) -> bytes | None:
        """Return the stream of a picture; None if the rate has no room for it.

        Args:
            image_uint8_HW3: the picture, uint8 (H, W, 3).
            now_s: time on a clock that never goes back.
            room: function from a number of bytes on the link to the number of bytes of a stream that fit into them.
            patient: whether the caller tries again if the rate has no room; the picture then does not count as skipped.

        Raises:
            ShapeError, ImageError: as in the codec's `compress`.
        """
        stream = self._code(image_uint8_HW3, now_s, room)
        self.counters.coded += stream is not None
        self.counters.skipped += stream is None and not (patient and self.waits)
        return stream

    def _code(self, image_uint8_HW3: ImageArray, now_s: float, room: Callable[[float], int]) -> bytes | None:
        codec = self.codec
        if self._bucket is None or not isinstance(codec, RateControlledCodec):
            return codec.compress(image_uint8_HW3)
        budget_bytes = room(self._bucket.credit_bytes(now_s))
        if budget_bytes >= 1:
            try:
                return codec.compress_to_budget(image_uint8_HW3, budget_bytes)
            except RateError:
                if self._bucket.is_full:  # waiting brings no more credit
                    self.counters.forced += 1
                    return codec.compress_smallest(image_uint8_HW3)
        return None

    def recode(self, frames: Sequence[tuple[int, ImageArray]]) -> list[bytes] | None:
        """Return new streams of the latest frames for a receiver that was restarted; None if the old ones will do.

        Args:
            frames: numbers and pictures of all frames without an outcome, in their order.
        """
        del frames
        return None

    def spend(self, link_bytes: int) -> None:
        """Count the bytes that the latest stream took on the link."""
        if self._bucket is not None:
            self._bucket.spend(link_bytes)
