"""Entry point of a receiver for datagrams: recovery, reassembly, and deadlines by the caller's clock."""

from __future__ import annotations

from gosvae.errors import ConfigError
from gosvae.packets.compact import CompactReader
from gosvae.packets.reassembly import Reassembler, ReceivedFrame
from gosvae.packets.recovery import Recovery

DEFAULT_DEADLINE_MS = 250.0
"""Default number of milliseconds from the arrival of a frame's first packet after which the frame is closed."""
_SPREAD = 3.0
"""Multiple of the usual time from the first packet of a video's frame to the last, after which a frame is closed."""
_LEAST_WAIT_S = 0.02
"""Number of seconds that are added to this multiple."""


class Inlet:
    """Recovery, reassembly and deadlines in one object, which takes datagrams and returns frames.

    Args:
        deadline_ms: number of milliseconds from the arrival of a frame's first packet after which the frame is closed,
            with slices missing if they have not arrived. Frames of a video in compact packets are closed earlier:
            after three times the time that the packets of its earlier frames usually took to arrive, plus 20 ms, if
            that is less than `deadline_ms`.
        reassembler, recovery: objects to use; None makes one with the default limits. The default reassembler returns
            the frames of a stream in order.

    Raises:
        ConfigError: the deadline is not above 0.
    """

    def __init__(
        self,
        deadline_ms: float = DEFAULT_DEADLINE_MS,
        *,
        reassembler: Reassembler | None = None,
        recovery: Recovery | None = None,
    ) -> None:
        if not deadline_ms > 0:
            raise ConfigError(f"a deadline of {deadline_ms} ms: expected more than 0")
        self.deadline_s = deadline_ms / 1000
        self.reassembler = reassembler or Reassembler(ordered=True)
        self.recovery = recovery or Recovery()
        self.compact = CompactReader()
        self._began_s: dict[tuple[int, int], float] = {}

    @property
    def next_deadline_s(self) -> float | None:
        """Time on the caller's clock at which `expire` has a frame to close; None if no frame waits."""
        return min((began_s + self._wait_s(key[0]) for key, began_s in self._began_s.items()), default=None)

    def _wait_s(self, stream_id: int) -> float:
        """Return the number of seconds from the first packet of a frame after which a frame of a stream is closed."""
        spread_s = self.compact.spread_s(stream_id)
        return self.deadline_s if spread_s is None else min(self.deadline_s, _LEAST_WAIT_S + _SPREAD * spread_s)

    def add(self, data: bytes, now_s: float) -> list[ReceivedFrame]:
        """Take a datagram, which may hold any bytes, and return the frames that it closes.

        Args:
            data: the datagram.
            now_s: time on the caller's clock, which never goes back.
        """
        done: list[ReceivedFrame] = []
        full = self.compact.read(data)
        if full is None:
            return done
        for packet in self.recovery.add(full):
            done += self.reassembler.add(packet)
            waiting = self.reassembler.in_flight
            if waiting and waiting[-1] not in self._began_s:
                self._began_s[waiting[-1]] = now_s
        for frame in done:
            began_s = self._began_s.pop((frame.stream_id, frame.frame), now_s)
            if not frame.missing:
                self.compact.note_spread(frame.stream_id, now_s - began_s)
        if len(self._began_s) > 2 * self.reassembler.max_frames:  # lost frames are closed without being returned
            waiting = self.reassembler.in_flight
            self._began_s = {key: began for key, began in self._began_s.items() if key in waiting}
        return done

    def expire(self, now_s: float) -> list[ReceivedFrame]:
        """Close the frames whose deadline has passed and return those with at least one slice.

        Args:
            now_s: time on the caller's clock, as in `add`.
        """
        done = []
        for key, began_s in list(self._began_s.items()):
            if key in self._began_s and began_s + self._wait_s(key[0]) <= now_s:
                del self._began_s[key]
                done += self.reassembler.close_until(*key)
                for frame in done:
                    self._began_s.pop((frame.stream_id, frame.frame), None)
        return done

    def flush(self) -> list[ReceivedFrame]:
        """Close all frames and return those with at least one slice."""
        self._began_s.clear()
        return self.reassembler.flush()
