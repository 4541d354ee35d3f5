"""Packets: datagrams with parts of a stream, each usable without the others. `docs/link.md` has the layout.

A packet repeats the values in the header of the stream. It holds whole slices, or a part of a slice that is longer than
a packet.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from gosvae.bitstream import (
    MAX_PIXELS,
    MAX_SLICES,
    SHORT_FINGERPRINT_BYTES,
    Header,
    SliceLayout,
    pack_slices,
    unpack_slices,
)
from gosvae.errors import BitstreamError, PacketError
from gosvae.wire import (
    PACKET_FIRST_BYTE,
    PACKET_FLAG_FRAGMENT,
    PACKET_FLAG_INTERLEAVED,
    PACKET_FLAG_LAYERED,
    PACKET_VERSION,
)

DEFAULT_MTU_BYTES = 1200
"""Default length of the longest packet, in bytes.

With the headers of IP, UDP and a tunnel, such a packet fits any IPv6 path (1280 bytes). QUIC uses the same length.
"""
MIN_MTU_BYTES = 64
MAX_MTU_BYTES = 65507
"""Length of the longest datagram of UDP over IPv4."""
MAX_PACKETS = 65535
FRAME_NUMBERS = 2**16
"""Number of frame numbers; after the last one they begin again at 0."""

_FIXED = struct.Struct(f">BBIHHHB{SHORT_FINGERPRINT_BYTES}sHHB")
_ENTRY = struct.Struct(">BH")
_FRAGMENT = struct.Struct(">BII")
_CRC = struct.Struct(">I")
_WHOLE_BYTES = _FIXED.size + 2 + _CRC.size
"""Number of bytes around one whole slice in version 1; version 2 has `_CRC.size` more."""
_FRAGMENT_BYTES = _FIXED.size + _FRAGMENT.size + _CRC.size


@dataclass(frozen=True)
class Part:
    """A slice, or a part of one.

    Attributes:
        number: number of the slice, from 0.
        offset: number of bytes of the slice before this part.
        total_bytes: length of the slice.
        data: bytes of this part; at least one unless the slice is empty.
    """

    number: int
    offset: int
    total_bytes: int
    data: bytes

    @property
    def whole(self) -> bool:
        """Whether this is the whole slice."""
        return len(self.data) == self.total_bytes


@dataclass(frozen=True)
class FrameInfo:
    """Values that all packets of a frame share.

    Attributes:
        header: header of the stream, with 4 bytes of the codec's fingerprint.
        layout: layout of the slices.
        slice_count: number of slices, 1..256.
        packet_count: number of packets, 1..65535.
        checksum: CRC-32 of the stream that was cut into these packets, 0..2**32 - 1; it prevents slices of two streams
            from being put together. None in packets of version 1, which do not have it.
        detail_count: number of slices of the detail layer, which are the last ones; 0 in a stream of one layer.
    """

    header: Header
    layout: SliceLayout
    slice_count: int
    packet_count: int
    checksum: int | None = None
    detail_count: int = 0

    def stream_of(self, slices: Sequence[bytes | None]) -> bytes:
        """Return the stream that holds the given slices of the frame.

        Args:
            slices: bytes of each slice; None for one that is missing.

        Raises:
            BitstreamError: as in `pack_slices`.
        """
        return pack_slices(self.header, slices, self.layout, self.detail_count)


@dataclass(frozen=True)
class Packet:
    """The contents of a packet.

    Attributes:
        stream_id: number of the sender's sequence of frames, 0..2**32 - 1.
        frame: number of the frame in that sequence, modulo 2**16.
        index: index of the packet in the frame, from 0.
        info: values that all packets of the frame share.
        parts: one or several whole slices in the order of their numbers, or one part of a slice.
    """

    stream_id: int
    frame: int
    index: int
    info: FrameInfo
    parts: tuple[Part, ...]

    def to_bytes(self) -> bytes:
        """Return the datagram.

        Raises:
            PacketError: A packet cannot hold the values.
        """
        header, fragment = self.info.header, not self.parts[0].whole
        flags = (PACKET_FLAG_INTERLEAVED if self.info.layout == "interleaved" else 0) | (
            PACKET_FLAG_FRAGMENT if fragment else 0
        )
        flags |= PACKET_FLAG_LAYERED if self.info.detail_count else 0
        *first, last = self.parts
        try:
            data = _FIXED.pack(
                PACKET_FIRST_BYTE,
                (1 if self.info.checksum is None else PACKET_VERSION) << 4 | flags,
                self.stream_id,
                self.frame,
                self.index,
                self.info.packet_count,
                header.entropy_model_id,
                header.fingerprint,
                header.height - 1,
                header.width - 1,
                self.info.slice_count - 1,
            )
            if self.info.checksum is not None:
                data += _CRC.pack(self.info.checksum)
            if self.info.detail_count:
                data += bytes([self.info.detail_count - 1])
            if fragment:
                data += _FRAGMENT.pack(last.number, last.total_bytes, last.offset)
            else:
                data += bytes([len(first)])
                data += b"".join(_ENTRY.pack(part.number, len(part.data)) for part in first) + bytes([last.number])
        except (struct.error, ValueError) as error:
            raise PacketError(f"a packet cannot hold these values: {error}") from None
        data += b"".join(part.data for part in self.parts)
        return data + _CRC.pack(zlib.crc32(data))


def packetise(
    stream: bytes,
    *,
    stream_id: int,
    frame: int,
    mtu_bytes: int = DEFAULT_MTU_BYTES,
    slices_per_packet: int = MAX_SLICES,
) -> list[bytes]:
    """Return the packets of one stream, in order.

    Each packet takes as many of the next slices as fit; a slice that is longer than a packet is split over several
    packets, which hold nothing else. A stream of container version 1 is sent, and arrives, as one of version 2.

    Args:
        stream: complete, intact stream.
        stream_id: number that tells senders apart, 0..2**32 - 1; choose a random one for each session.
        frame: number of the frame, taken modulo 2**16; consecutive frames of a sender have consecutive numbers.
        mtu_bytes: length of the longest packet, 64..65507, without the headers of IP and UDP.
        slices_per_packet: greatest number of slices that share a packet, and are lost together.

    Raises:
        BitstreamError: the stream is not complete and intact.
        PacketError: an argument is impossible, or the stream takes more than 65535 packets.
    """
    if not MIN_MTU_BYTES <= mtu_bytes <= MAX_MTU_BYTES:
        raise PacketError(f"packets of {mtu_bytes} bytes: expected {MIN_MTU_BYTES}..{MAX_MTU_BYTES}")
    if slices_per_packet < 1 or frame < 0 or not 0 <= stream_id < 2**32:
        raise PacketError(
            f"stream id {stream_id}, frame {frame}, {slices_per_packet} slices in a packet: expected 0..2^32 - 1, a "
            "number from 0, at least 1"
        )
    taken = unpack_slices(stream)
    # A packet of two layers is longer by the byte that counts the slices of the second.
    room_bytes = mtu_bytes - _CRC.size - (taken.detail_count > 0)
    groups = list(_groups(taken.payloads, room_bytes, slices_per_packet))
    if len(groups) > MAX_PACKETS:
        raise PacketError(f"a stream of {len(stream)} bytes takes {len(groups)} packets, at most {MAX_PACKETS} can be")
    given = taken.header
    header = Header(given.fingerprint[:SHORT_FINGERPRINT_BYTES], given.height, given.width, given.entropy_model_id)
    info = FrameInfo(
        header=header,
        layout=taken.layout,
        slice_count=len(taken.slices),
        packet_count=len(groups),
        detail_count=taken.detail_count,
    )
    info = replace(info, checksum=zlib.crc32(info.stream_of(taken.slices)))
    return [
        Packet(stream_id=stream_id, frame=frame % FRAME_NUMBERS, index=index, info=info, parts=parts).to_bytes()
        for index, parts in enumerate(groups)
    ]


def _groups(payloads: tuple[bytes, ...], mtu_bytes: int, slices_per_packet: int) -> Iterator[tuple[Part, ...]]:
    """Yield the parts of each packet."""
    group: list[Part] = []
    taken = 0
    for number, payload in enumerate(payloads):
        alone = _WHOLE_BYTES + len(payload)
        if group and (len(group) == slices_per_packet or taken + _ENTRY.size + len(payload) > mtu_bytes):
            yield tuple(group)
            group, taken = [], 0
        if alone <= mtu_bytes:
            taken += _ENTRY.size + len(payload) if group else alone
            group.append(Part(number=number, offset=0, total_bytes=len(payload), data=payload))
            continue
        step = mtu_bytes - _FRAGMENT_BYTES
        for offset in range(0, len(payload), step):
            part = payload[offset : offset + step]
            yield (Part(number=number, offset=offset, total_bytes=len(payload), data=part),)
    if group:
        yield tuple(group)


def read_packet(data: bytes) -> Packet:
    """Return the packet in a datagram; `Packet.to_bytes` returns the same bytes again.

    Raises:
        PacketError: the datagram is not exactly one intact packet of a known version.
    """
    if len(data) < _WHOLE_BYTES or data[0] != PACKET_FIRST_BYTE:
        raise PacketError(f"not a gosvae packet: {len(data)} bytes that begin with {data[:4].hex(' ') or 'nothing'}")
    if _CRC.unpack(data[-_CRC.size :])[0] != zlib.crc32(data[: -_CRC.size]):
        raise PacketError("damaged: the checksum of the packet does not agree with it")
    fields = _FIXED.unpack_from(data)
    _, version_flags, stream_id, frame, index, count, model_id, fingerprint, height_1, width_1, slices_1 = fields
    version, flags = divmod(version_flags, 16)
    if not 1 <= version <= PACKET_VERSION:
        raise PacketError(
            f"a packet of format {version}, this gosvae reads 1 to {PACKET_VERSION}: this end is older than the other"
        )
    if (
        flags > (PACKET_FLAG_INTERLEAVED | PACKET_FLAG_FRAGMENT | PACKET_FLAG_LAYERED)
        or (flags & PACKET_FLAG_INTERLEAVED and not slices_1)
        or index >= count
    ):
        raise PacketError(f"damaged: flags {flags:04b}, packet {index} of {count}, {slices_1 + 1} slices")
    try:
        header = Header(fingerprint, height_1 + 1, width_1 + 1, model_id)
    except BitstreamError as error:
        raise PacketError(f"damaged: {error}") from None
    if header.height * header.width > MAX_PIXELS:
        raise PacketError(f"damaged: an image of {header.height}x{header.width} pixels, at most {MAX_PIXELS} can be")
    layout: SliceLayout = "interleaved" if flags & PACKET_FLAG_INTERLEAVED else "bands"
    body, checksum, detail_count = data[_FIXED.size : -_CRC.size], None, 0
    if version > 1:
        if len(data) < _WHOLE_BYTES + _CRC.size:
            raise PacketError(f"damaged: {len(data)} bytes are too few for a packet of format {version}")
        checksum, body = int(_CRC.unpack_from(body)[0]), body[_CRC.size :]
    if flags & PACKET_FLAG_LAYERED:
        detail_count, body = body[0] + 1, body[1:]
        if detail_count > slices_1 or not body or version == 1:
            raise PacketError(f"damaged: {detail_count} slices for detail of {slices_1 + 1}")
    info = FrameInfo(
        header=header,
        layout=layout,
        slice_count=slices_1 + 1,
        packet_count=count,
        checksum=checksum,
        detail_count=detail_count,
    )
    parts = (_fragment(body),) if flags & PACKET_FLAG_FRAGMENT else _whole_slices(body)
    if parts[-1].number >= info.slice_count or any(a.number >= b.number for a, b in pairwise(parts)):
        raise PacketError(f"damaged: slices {[part.number for part in parts]} of {info.slice_count}")
    return Packet(stream_id=stream_id, frame=frame, index=index, info=info, parts=parts)


def _fragment(body: bytes) -> Part:
    """Return the part of a slice in the body of a packet; it is neither empty nor the whole slice."""
    if len(body) <= _FRAGMENT.size:
        raise PacketError("damaged: a part of a slice without any bytes")
    number, total, offset = _FRAGMENT.unpack_from(body)
    part = Part(number=number, offset=offset, total_bytes=total, data=body[_FRAGMENT.size :])
    if offset + len(part.data) > total or part.whole:
        raise PacketError(f"damaged: {len(part.data)} bytes at {offset} are no part of a slice of {total}")
    return part


def _whole_slices(body: bytes) -> tuple[Part, ...]:
    """Return the slices in the body of a packet, which begins with their numbers and all lengths but the last."""
    position = 2 + body[0] * _ENTRY.size
    if position > len(body):
        raise PacketError(f"damaged: a table of {body[0] + 1} slices in {len(body)} bytes")
    parts = []
    for number, length in _ENTRY.iter_unpack(body[1 : position - 1]):
        data = body[position : position + length]
        parts.append(Part(number=number, offset=0, total_bytes=length, data=data))
        position += length
    if position > len(body):
        raise PacketError("damaged: slices that are longer than their packet")
    number = body[1 + body[0] * _ENTRY.size]
    last = Part(number=number, offset=0, total_bytes=len(body) - position, data=body[position:])
    return (*parts, last)
