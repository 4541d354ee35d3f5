"""Interface of a destination of frames over any link, and the counters of a sender."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gosvae.protocol.frames import Reason
from gosvae.tensors import ImageArray

RECENT = 4096
"""Number of the latest frames whose times are kept."""


@dataclass
class SenderCounters:
    """Numbers of frames of a sender, and times in ms.

    Attributes:
        sent: number of frames that were sent.
        stream_bytes: number of bytes of their streams.
        link_bytes: number of bytes that they took on the link.
        answered: number of frames that were answered.
        dropped: number of frames that the receiver dropped, by `Reason`.
        lost: number of frames that were under way when the connection broke, and were too old to be sent again.
        sent_again: number of frames that were under way when the connection broke, and were sent again.
        reconnections: number of connections that replaced a broken one.
        originals_left_out: number of originals that were not sent, because the frame would have been too long.
        round_trips_ms: times from sending a frame to its answer, of the latest frames.
        coding_ms: times of compression, of the latest pictures.
    """

    sent: int = 0
    stream_bytes: int = 0
    link_bytes: int = 0
    answered: int = 0
    dropped: Counter[Reason] = field(default_factory=Counter)
    lost: int = 0
    sent_again: int = 0
    reconnections: int = 0
    originals_left_out: int = 0
    round_trips_ms: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    coding_ms: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))


OnOutcome = Callable[[int, Reason | None], None]
"""Function that is called with the number of a frame and the reason why it was dropped, or None if it was decoded."""
Recode = Callable[[Sequence[tuple[int, ImageArray]]], list[bytes] | None]
"""Function from the numbers and pictures of frames to streams that depend on no earlier frame; None keeps those that
there are."""


class Target(ABC):
    """Destination of frames.

    Attributes:
        counters: numbers of frames.
        on_outcome: function that is called when the outcome of a frame is known.
        recode: function that codes frames again for a receiver that was restarted and has no references; None sends
            the same streams again.
    """

    counters: SenderCounters
    on_outcome: OnOutcome | None = None
    recode: Recode | None = None

    @abstractmethod
    async def send(self, number: int, stream: bytes, image_uint8_HW3: ImageArray) -> int:
        """Send a frame and return the number of bytes that it takes on the link.

        Args:
            number: number of the frame, from 0.
            stream: bytes of the codec.
            image_uint8_HW3: the original picture, uint8 (H, W, 3).

        Raises:
            LinkError: the stream has ended.
        """

    @abstractmethod
    async def finish(self) -> None:
        """Wait for the missing answers; errors are those of `send`."""

    def room(self, link_bytes: float) -> int:
        """Return the number of bytes of a stream that fit into `link_bytes` on the link, as earlier frames did."""
        counters = self.counters
        share = counters.stream_bytes / counters.link_bytes if counters.link_bytes else 1.0
        return int(link_bytes * share)
