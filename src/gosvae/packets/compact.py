"""Compact packets of a video, which leave out the values that all packets of a stream share.

The receiver takes these values from an earlier full packet. A full packet (see `gosvae.packets.packet`) has 32 bytes
besides its slice, a compact one has 9. The receiver expands compact packets into full ones, which go through the
reassembler like all others. `docs/link.md` has the layout.
"""

from __future__ import annotations

import struct
import zlib
from collections import OrderedDict
from dataclasses import dataclass

from gosvae.bitstream import SHORT_FINGERPRINT_BYTES, Header, unpack_slices
from gosvae.codecs.sequence.format import is_session
from gosvae.entropy.ids import EntropyModelId
from gosvae.errors import PacketError
from gosvae.packets.packet import FRAME_NUMBERS, FrameInfo, Packet, Part, read_packet
from gosvae.wire import COMPACT_FIRST_BYTE, PACKET_FIRST_BYTE

MOST_SLICES = 16
"""Greatest number of slices of a frame in compact packets."""
MOST_STREAMS = 1024
"""Number of streams that are remembered; the one that was silent for longest is forgotten first."""
_NUMBERS = 256
_HEAD = struct.Struct(">BIBB")
_CRC = struct.Struct(">H")
COMPACT_OVERHEAD_BYTES = _HEAD.size + _CRC.size
"""Number of bytes of a compact packet besides its slice."""
_MODEL_PLACE = struct.calcsize(">BBIHHH")


@dataclass(frozen=True)
class CompactPacket:
    """The contents of a compact packet.

    Attributes:
        stream_id: number of the sender's sequence of frames, 0..2**32 - 1.
        frame: number of the frame modulo 256.
        index, count: number of the slice in the packet, from 0, and number of slices of the frame, 1..16.
        data: the slice.
    """

    stream_id: int
    frame: int
    index: int
    count: int
    data: bytes

    def to_bytes(self) -> bytes:
        """Return the datagram."""
        place = self.index << 4 | (self.count - 1)
        data = _HEAD.pack(COMPACT_FIRST_BYTE, self.stream_id, self.frame, place) + self.data
        return data + _CRC.pack(zlib.crc32(data) & 0xFFFF)


def is_compact(data: bytes) -> bool:
    """Return whether a datagram begins as a compact packet."""
    return data[:1] == bytes([COMPACT_FIRST_BYTE])


def read_compact(data: bytes) -> CompactPacket:
    """Return the compact packet in a datagram; `CompactPacket.to_bytes` returns the same bytes again.

    Raises:
        PacketError: the datagram is not exactly one intact compact packet.
    """
    if len(data) <= COMPACT_OVERHEAD_BYTES or not is_compact(data):
        raise PacketError(f"not a compact packet: {len(data)} bytes that begin with {data[:4].hex(' ') or 'nothing'}")
    if _CRC.unpack(data[-_CRC.size :])[0] != zlib.crc32(data[: -_CRC.size]) & 0xFFFF:
        raise PacketError("damaged: the checksum of the compact packet does not agree with it")
    _, stream_id, frame, place = _HEAD.unpack_from(data)
    index, last = divmod(place, MOST_SLICES)
    if index > last:
        raise PacketError(f"damaged: slice {index} of {last + 1}")
    return CompactPacket(stream_id, frame, index, last + 1, data[_HEAD.size : -_CRC.size])


def compact_packets(stream: bytes, *, stream_id: int, frame: int, mtu_bytes: int) -> list[bytes] | None:
    """Return the compact packets of a frame of a video; None if the frame needs full packets.

    Full packets are needed for everything but videos, for frames that begin a session, for frames of more than
    `MOST_SLICES` slices, and for slices that are empty or longer than a packet.

    Args:
        stream: the stream around the frame.
        stream_id, frame, mtu_bytes: as in `packetise`.
    """
    taken = unpack_slices(stream)
    slices = taken.payloads
    longest = max(map(len, slices))
    if taken.header.entropy_model_id != EntropyModelId.TEMPORAL_CONTEXT or any(map(is_session, slices)):
        return None
    if len(slices) > MOST_SLICES or not 0 < longest <= mtu_bytes - COMPACT_OVERHEAD_BYTES:
        return None
    return [
        CompactPacket(stream_id, frame % _NUMBERS, index, len(slices), data).to_bytes()
        for index, data in enumerate(slices)
    ]


@dataclass
class _Stream:
    """What the packets of a stream share, and the number of its newest frame."""

    header: Header
    newest: int
    compact: bool = False
    spread_s: float | None = None


_FORGET = 0.9
"""Factor by which the usual time from the first packet of a frame to the last shrinks with each frame that takes less.
"""


class CompactReader:
    """Reader that expands compact packets into full ones, with the values of the latest full packet of each stream.

    Attributes:
        expanded: number of compact packets that were expanded.
        unknown: number of compact packets of streams without an earlier full packet.
        damaged: number of datagrams that begin as a compact packet and are not an intact one.
    """

    def __init__(self) -> None:
        self._streams: OrderedDict[int, _Stream] = OrderedDict()
        self.expanded = self.unknown = self.damaged = 0

    def has_compact(self, stream_id: int) -> bool:
        """Return whether compact packets of a stream have arrived."""
        stream = self._streams.get(stream_id)
        return stream is not None and stream.compact

    def spread_s(self, stream_id: int) -> float | None:
        """Return the usual time in seconds from the first packet of a frame to the last.

        It is None for a stream of which no compact packet has arrived.
        """
        stream = self._streams.get(stream_id)
        return stream.spread_s if stream is not None and stream.compact else None

    def note_spread(self, stream_id: int, seconds: float) -> None:
        """Note the time in seconds from the first packet of a complete frame to the last."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.spread_s = max(seconds, _FORGET * (stream.spread_s or 0.0))

    def read(self, data: bytes) -> bytes | None:
        """Return the full packet for a compact one; return other datagrams unchanged.

        The result is None for a compact packet that is damaged or whose stream is not known; both are counted.
        """
        if not is_compact(data):
            if data[:1] == bytes([PACKET_FIRST_BYTE]) and data[_MODEL_PLACE : _MODEL_PLACE + 1] == _VIDEO:
                self._remember(data)
            return data
        try:
            packet = read_compact(data)
        except PacketError:
            self.damaged += 1
            return None
        stream = self._streams.get(packet.stream_id)
        if stream is None:
            self.unknown += 1
            return None
        ahead = (packet.frame - stream.newest) % _NUMBERS
        frame = (stream.newest + (ahead if ahead < _NUMBERS // 2 else ahead - _NUMBERS)) % FRAME_NUMBERS
        stream.newest, stream.compact = frame if ahead < _NUMBERS // 2 else stream.newest, True
        self._streams.move_to_end(packet.stream_id)
        self.expanded += 1
        info = FrameInfo(header=stream.header, layout="bands", slice_count=packet.count, packet_count=packet.count)
        part = Part(number=packet.index, offset=0, total_bytes=len(packet.data), data=packet.data)
        return Packet(packet.stream_id, frame, packet.index, info, (part,)).to_bytes()

    def _remember(self, data: bytes) -> None:
        """Remember the values in a full packet of a video that all packets of its stream share."""
        try:
            packet = read_packet(data)
        except PacketError:
            return  # the reassembler counts it
        header = packet.info.header
        given = Header(
            header.fingerprint[:SHORT_FINGERPRINT_BYTES], header.height, header.width, header.entropy_model_id
        )
        stream = self._streams.setdefault(packet.stream_id, _Stream(given, packet.frame))
        stream.header, stream.newest = given, packet.frame
        self._streams.move_to_end(packet.stream_id)
        if len(self._streams) > MOST_STREAMS:
            self._streams.popitem(last=False)


_VIDEO = bytes([EntropyModelId.TEMPORAL_CONTEXT])
