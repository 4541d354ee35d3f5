"""Feedback over UDP: datagrams of 12 bytes that tell the sender of a video which of its frames were decoded."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from gosvae.errors import PacketError

FEEDBACK_FIRST_BYTE = 0xFB
"""First byte of a feedback datagram."""
FEEDBACK_VERSION = 1
"""Version of feedback that every sender of videos reads."""
COMPACT_FEEDBACK_VERSION = 2
"""Version of feedback from a receiver that takes compact packets; older senders ignore it."""
MOST_TOLD = 32
"""Number of frames whose outcomes a datagram holds."""
FRAME_NUMBERS = 2**16
"""Number of frame numbers; after the last one they begin again at 0."""
_FORM = struct.Struct(">BBIHI")


@dataclass(frozen=True)
class Feedback:
    """Outcomes of the latest frames of a stream.

    Attributes:
        stream_id: number of the stream.
        newest: number of the newest frame that arrived, modulo 2**16.
        decoded: bits of the frames: bit i, 0..31, is set if frame `newest - i` was decoded.
        compact: whether the receiver takes compact packets; the version of the datagram says so.
    """

    stream_id: int
    newest: int
    decoded: int
    compact: bool = False

    def pack(self) -> bytes:
        """Return the bytes of the datagram."""
        version = COMPACT_FEEDBACK_VERSION if self.compact else FEEDBACK_VERSION
        return _FORM.pack(FEEDBACK_FIRST_BYTE, version, self.stream_id, self.newest, self.decoded)

    @classmethod
    def unpack(cls, data: bytes) -> Feedback:
        """Return the feedback in a datagram.

        Raises:
            PacketError: the bytes are not feedback of a known version.
        """
        if len(data) != _FORM.size:
            raise PacketError(f"{len(data)} bytes are no feedback, which has {_FORM.size}")
        first, version, stream_id, newest, decoded = _FORM.unpack(data)
        if first != FEEDBACK_FIRST_BYTE or version not in (FEEDBACK_VERSION, COMPACT_FEEDBACK_VERSION):
            raise PacketError(f"no feedback: it begins with {data[:2].hex(' ')}")
        return cls(stream_id, newest, decoded, version == COMPACT_FEEDBACK_VERSION)


class Outcomes:
    """Outcomes of the latest frames of one stream, as they become known."""

    def __init__(self) -> None:
        self._newest: int | None = None
        self._decoded = 0

    def add(self, number: int, *, decoded: bool) -> None:
        """Add the outcome of a frame.

        Args:
            number: number of the frame modulo 2**16; outcomes of frames that are `MOST_TOLD` or more older than the
                newest one are ignored.
            decoded: whether the frame was decoded without concealment.
        """
        ahead = 0 if self._newest is None else (number - self._newest) % FRAME_NUMBERS
        if self._newest is None or 0 < ahead < FRAME_NUMBERS // 2:
            self._decoded = 0 if self._newest is None else (self._decoded << min(ahead, MOST_TOLD)) % 2**MOST_TOLD
            self._newest, ahead = number, 0
        behind = (self._newest - number) % FRAME_NUMBERS
        if decoded and behind < MOST_TOLD:
            self._decoded |= 1 << behind

    def feedback(self, stream_id: int, *, compact: bool = False) -> Feedback:
        """Return the feedback with the outcomes so far; at least one must have been added.

        Args:
            stream_id: number of the stream.
            compact: whether the receiver takes compact packets.
        """
        assert self._newest is not None
        return Feedback(stream_id, self._newest, self._decoded, compact)
