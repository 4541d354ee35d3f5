"""Pictures to streams at the sender: each frame gets the bytes that a leaky bucket allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gosvae.codecs.base import ImageCodec, RateControlledCodec
from gosvae.errors import ConfigError, RateError
from gosvae.tensors import ImageArray


class LeakyBucket:
    """Bytes that may be sent: they come in at a steady rate, and what is not spent is kept for a while.

    Args:
        kbps: rate in 1000 bits a second.
        first_s: as if it had filled for so long at the beginning: the time between two frames.
        most_s: no more is kept than comes in so many seconds.

    Raises:
        ConfigError: a rate or times that are not above 0.
    """

    def __init__(self, kbps: float, *, first_s: float, most_s: float = 1.0) -> None:
        if not (kbps > 0 and first_s > 0 and most_s > 0):
            raise ConfigError(f"a rate of {kbps} kbit/s, kept for {most_s} s: expected more than 0")
        self.bytes_per_s = 1000 * kbps / 8
        self.most_bytes = self.bytes_per_s * max(most_s, 2 * first_s)
        self._credit_bytes = self.bytes_per_s * first_s
        self._seen_s: float | None = None

    def credit_bytes(self, now_s: float) -> float:
        """What may be sent now; below 0 where more was sent than had come in."""
        if self._seen_s is not None:
            self._credit_bytes += (now_s - self._seen_s) * self.bytes_per_s
        self._seen_s = now_s
        self._credit_bytes = min(self._credit_bytes, self.most_bytes)
        return self._credit_bytes

    @property
    def is_full(self) -> bool:
        """Whether waiting brings nothing more."""
        return self._credit_bytes >= 0.999 * self.most_bytes

    def spend(self, n_bytes: int) -> None:
        """So much was sent."""
        self._credit_bytes -= n_bytes


@dataclass
class TransmitterCounters:
    """What became of the pictures.

    Attributes:
        coded: streams that were made.
        skipped: pictures that the rate had no room for.
        forced: streams that took more than the rate allows, because the smallest does; pictures behind them pay.
    """

    coded: int = 0
    skipped: int = 0
    forced: int = 0


class Transmitter:
    """A codec whose rate follows a bucket, or one at its own rate.

    Args:
        codec: of the frames.
        kbps: what goes over the link in 1000 bits a second, with what `spend` adds; None: as the codec has it.
        fps: frames a second, as far as they are known.

    Raises:
        ConfigError: a rate for a codec whose rate is fixed, or one that is not above 0.
    """

    def __init__(self, codec: ImageCodec, *, kbps: float | None = None, fps: float = 10.0) -> None:
        if not fps > 0:
            raise ConfigError(f"{fps} frames a second: expected more than 0")
        if kbps is not None and not isinstance(codec, RateControlledCodec):
            raise ConfigError(f"the rate of {codec.name!r} is fixed: name a variable-rate codec", argument="kbps")
        self.codec = codec
        self.counters = TransmitterCounters()
        self._bucket = None if kbps is None else LeakyBucket(kbps, first_s=1 / fps)

    def code(self, image_uint8_HW3: ImageArray, now_s: float, room: Callable[[float], int] = int) -> bytes | None:
        """The stream of a picture, or None where the rate has no room for it.

        Args:
            now_s: on a clock that never goes back.
            room: bytes of stream that fit into so many bytes on the link.

        Raises:
            ShapeError, ImageError: as the codec's `compress`.
        """
        stream = self._code(image_uint8_HW3, now_s, room)
        if stream is None:
            self.counters.skipped += 1
        else:
            self.counters.coded += 1
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
                if self._bucket.is_full:  # more will never come in
                    self.counters.forced += 1
                    return codec.compress_smallest(image_uint8_HW3)
        return None

    def spend(self, link_bytes: int) -> None:
        """So many bytes went over the link for the latest stream."""
        if self._bucket is not None:
            self._bucket.spend(link_bytes)
