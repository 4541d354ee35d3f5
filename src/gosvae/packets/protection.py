"""Forward error correction: repair packets, from which lost packets are restored. `docs/link.md` has the layout.

The code is RaptorQ (RFC 6330), a systematic fountain code: packets travel unchanged, and K packets are nearly always
restored from any K datagrams among them and their repair packets. The library `raptorq` computes the code; it is in the
extra `link` and is imported on first use.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from gosvae.errors import MissingDependencyError, PacketError
from gosvae.packets.packet import DEFAULT_MTU_BYTES, FRAME_NUMBERS, MAX_MTU_BYTES, Packet, read_packet
from gosvae.wire import REPAIR_FIRST_BYTE, REPAIR_VERSION

SYMBOL_STEP = 8
"""Step of the lengths of symbols, in bytes: each length is a multiple of it."""
LEAST_SYMBOL_BYTES = 32
"""Least length of a symbol in bytes: that of the shortest packet. Shorter ones would cost much work for few bytes."""
MAX_GROUP = 255
"""Greatest number of packets that share repair packets."""
MAX_GROUP_BYTES = 2**22
"""Greatest number of bytes of the symbols of a group, which bounds the work of a receiver."""
MAX_RUNS = 16
"""Greatest number of runs of consecutive packets in a group."""
MAX_SYMBOL_ID = 2**16 - 1

_BEGIN = struct.Struct(">BBIHHB")
_RUN = struct.Struct(">BHB")
_LENGTH = struct.Struct(">H")
_CRC = struct.Struct(">I")
REPAIR_OVERHEAD_BYTES = _BEGIN.size + _RUN.size + _CRC.size + _LENGTH.size + SYMBOL_STEP - 1
"""Greatest number of bytes by which a repair packet of one frame is longer than the longest packet.

Call `packetise` with an MTU that is smaller by this number, and the repair packets keep to the MTU too.
"""


@dataclass(frozen=True)
class Run:
    """Consecutive packets of one frame.

    Attributes:
        frame: number of frames from the first frame of the group to this one, 0..255.
        first: index of the first packet.
        count: number of packets, 1..255.
    """

    frame: int
    first: int
    count: int


@dataclass(frozen=True)
class Group:
    """Group of packets that share repair packets; the packets are the symbols 0..K-1 of the code, in this order.

    Attributes:
        stream_id: number of the stream.
        frame: number of the first frame.
        runs: runs of consecutive packets.
        symbol_bytes: length of a symbol, a multiple of 8.
    """

    stream_id: int
    frame: int
    runs: tuple[Run, ...]
    symbol_bytes: int

    @property
    def count(self) -> int:
        """Number of packets, K."""
        return sum(run.count for run in self.runs)

    def places(self) -> Iterator[tuple[int, int]]:
        """Yield the frame number and the index of every packet, in order."""
        for run in self.runs:
            number = (self.frame + run.frame) % FRAME_NUMBERS
            yield from ((number, run.first + n) for n in range(run.count))


@dataclass(frozen=True)
class RepairPacket:
    """The contents of a repair packet.

    Attributes:
        group: group of packets that it helps to recover.
        symbol_id: number of its symbol in the code: K or more, where K is the number of packets of the group.
        symbol: bytes of the symbol.
    """

    group: Group
    symbol_id: int
    symbol: bytes

    def to_bytes(self) -> bytes:
        """Return the datagram.

        Raises:
            PacketError: A repair packet cannot hold the values.
        """
        group = self.group
        try:
            data = _BEGIN.pack(
                REPAIR_FIRST_BYTE,
                REPAIR_VERSION << 4,
                group.stream_id,
                group.frame,
                self.symbol_id,
                len(group.runs) - 1,
            )
            data += b"".join(_RUN.pack(run.frame, run.first, run.count) for run in group.runs)
        except struct.error as error:
            raise PacketError(f"a repair packet cannot hold these values: {error}") from None
        data += self.symbol
        return data + _CRC.pack(zlib.crc32(data))


def is_repair(data: bytes) -> bool:
    """Return whether a datagram begins as a repair packet."""
    return data[:1] == bytes([REPAIR_FIRST_BYTE])


def read_repair(data: bytes) -> RepairPacket:
    """Return the repair packet in a datagram; `RepairPacket.to_bytes` returns the same bytes again.

    Raises:
        PacketError: the datagram is not exactly one intact repair packet of a known version.
    """
    if len(data) < _BEGIN.size + _RUN.size + SYMBOL_STEP + _CRC.size or not is_repair(data):
        raise PacketError(f"not a repair packet: {len(data)} bytes that begin with {data[:4].hex(' ') or 'nothing'}")
    if _CRC.unpack(data[-_CRC.size :])[0] != zlib.crc32(data[: -_CRC.size]):
        raise PacketError("damaged: the checksum of the repair packet does not agree with it")
    _, version, stream_id, frame, symbol_id, runs_1 = _BEGIN.unpack_from(data)
    if version != REPAIR_VERSION << 4:
        raise PacketError(
            f"a repair packet of format {version >> 4}, this gosvae reads {REPAIR_VERSION}: one end is older"
        )
    start = _BEGIN.size + (runs_1 + 1) * _RUN.size
    symbol = data[start : -_CRC.size]
    if len(symbol) < LEAST_SYMBOL_BYTES or len(symbol) % SYMBOL_STEP or start > len(data):
        raise PacketError(
            f"damaged: a symbol of {len(symbol)} bytes, expected {LEAST_SYMBOL_BYTES} or more in steps of {SYMBOL_STEP}"
        )
    fields = _RUN.iter_unpack(data[_BEGIN.size : start])
    runs = tuple(Run(frame=offset, first=first, count=count) for offset, first, count in fields)
    group = Group(stream_id=stream_id, frame=frame, runs=runs, symbol_bytes=len(symbol))
    if not _sound(group) or not group.count <= symbol_id <= MAX_SYMBOL_ID:
        raise PacketError(f"damaged: symbol {symbol_id} of a group of {group.count} packets in {len(runs)} runs")
    return RepairPacket(group, symbol_id, symbol)


def _sound(group: Group) -> bool:
    """Return whether the runs are not empty, in order, without overlap, and within the limits."""
    if not all(run.count and run.first + run.count <= FRAME_NUMBERS - 1 for run in group.runs):
        return False
    ends = [(run.frame, run.first + run.count) for run in group.runs]
    ordered = all(end <= (run.frame, run.first) for end, run in zip(ends, group.runs[1:], strict=False))
    few = len(group.runs) <= MAX_RUNS and group.count <= MAX_GROUP
    return ordered and few and group.runs[0].frame == 0 and group.count * group.symbol_bytes <= MAX_GROUP_BYTES


def import_raptorq() -> Any:
    """Return the module `raptorq`.

    Raises:
        MissingDependencyError: raptorq is not installed.
    """
    try:
        import raptorq
    except ImportError as error:
        raise MissingDependencyError(
            f"forward error correction needs raptorq ({error}): pip install 'gosvae[link]'"
        ) from None
    return raptorq


def repair_count(packets: int, overhead: float) -> int:
    """Return the number of repair packets for a number of packets: `packets * overhead`, rounded up."""
    return math.ceil(round(packets * overhead, 9))


def protect(
    packets: Sequence[bytes],
    *,
    overhead: float = 0.25,
    classes: Sequence[tuple[int, float]] = (),
    mtu_bytes: int = DEFAULT_MTU_BYTES,
) -> list[bytes]:
    """Return the packets, unchanged, followed by their repair packets.

    A receiver without `Recovery` uses the packets and ignores the repair packets. If the packets of several frames are
    given, they share repair packets. This recovers more at the same overhead, but the receiver has to wait for the last
    frame.

    Args:
        packets: packets of one stream, as `packetise` returns them, of one frame or of several consecutive frames.
        overhead: number of repair packets for each packet, rounded up for each group: 0.25 gives 2 for 8 packets.
        classes: pairs of a number of packets and their overhead, for unequal protection: the first pair is for the
            first packets, the second for the next ones, and so on. `overhead` is for the packets that are left. Each
            class has repair packets of its own.
        mtu_bytes: length of the longest datagram; see `REPAIR_OVERHEAD_BYTES`.

    Raises:
        PacketError: an argument is impossible, or the packets are not in order, not of one stream, or too long.
        MissingDependencyError: repair packets are needed and raptorq is not installed.
    """
    counts, shares = [count for count, _ in classes], [overhead, *(share for _, share in classes)]
    if any(count < 1 for count in counts) or not all(0 <= share <= MAX_GROUP for share in shares):
        raise PacketError(
            f"overhead {overhead}, classes {list(classes)}: expected shares of 0..{MAX_GROUP} and packets above 0"
        )
    read = [read_packet(data) for data in packets]
    result, start = list(packets), 0
    for count, share in [*classes, (len(packets), overhead)]:
        for piece in _pieces(packets[start : start + count]):
            if share:
                result += _repair(read[start : start + piece], packets[start : start + piece], share)
            start += piece
    longest = max(map(len, result), default=0)
    if longest > mtu_bytes:
        raise PacketError(
            f"a datagram of {longest} bytes where {mtu_bytes} are allowed: packetise with an mtu_bytes of "
            f"{mtu_bytes - REPAIR_OVERHEAD_BYTES}"
        )
    return result


def symbol_bytes_of(packets: Sequence[bytes]) -> int:
    """Return the length of the symbols that hold these packets."""
    longest = _LENGTH.size + max(map(len, packets))
    return longest + -longest % SYMBOL_STEP


def symbol_of(packet: bytes, symbol_bytes: int) -> bytes:
    """Return the symbol of a packet: the length of the packet, the packet, and zeros up to `symbol_bytes`."""
    return (_LENGTH.pack(len(packet)) + packet).ljust(symbol_bytes, b"\0")


def packet_of(symbol: bytes) -> bytes | None:
    """Return the packet in a symbol; None if the symbol does not hold one."""
    end = _LENGTH.size + int(_LENGTH.unpack_from(symbol)[0])
    return None if end > len(symbol) or any(symbol[end:]) else symbol[_LENGTH.size : end]


def _pieces(packets: Sequence[bytes]) -> list[int]:
    """Return the number of packets of each group of a class: as few groups as possible, of nearly equal length."""
    if not packets:
        return []
    most = max(1, min(MAX_GROUP, MAX_GROUP_BYTES // symbol_bytes_of(packets)))
    groups = -(-len(packets) // most)
    edges = [n * len(packets) // groups for n in range(groups + 1)]
    return [high - low for low, high in pairwise(edges)]


def _repair(read: Sequence[Packet], packets: Sequence[bytes], overhead: float) -> Iterator[bytes]:
    """Yield the repair packets of one group."""
    stream_id, first = read[0].stream_id, read[0].frame
    runs: list[Run] = []
    for packet in read:
        frame = (packet.frame - first) % FRAME_NUMBERS
        if runs and (runs[-1].frame, runs[-1].first + runs[-1].count) == (frame, packet.index):
            runs[-1] = replace(runs[-1], count=runs[-1].count + 1)
        else:
            runs.append(Run(frame=frame, first=packet.index, count=1))
    group = Group(stream_id=stream_id, frame=first, runs=tuple(runs), symbol_bytes=symbol_bytes_of(packets))
    one_stream = all(packet.stream_id == stream_id for packet in read)
    if not one_stream or runs[-1].frame > MAX_GROUP or not _sound(group) or group.symbol_bytes > MAX_MTU_BYTES:
        raise PacketError(
            f"packets that cannot be protected together: expected those of one stream in order, in at most {MAX_RUNS} "
            "runs"
        )
    data = b"".join(symbol_of(packet, group.symbol_bytes) for packet in packets)
    encoder = import_raptorq().Encoder.with_defaults(data, group.symbol_bytes)
    for symbol in encoder.get_encoded_packets(repair_count(len(packets), overhead))[len(packets) :]:
        block, symbol_id = symbol[0], int.from_bytes(symbol[1:4], "big")
        assert block == 0  # MAX_GROUP_BYTES keeps the symbols in one block
        yield RepairPacket(group, symbol_id, symbol[4:]).to_bytes()


def recover(group: Group, symbols: Sequence[tuple[int, bytes]]) -> list[bytes] | None:
    """Return all K symbols of a group, computed from some of them and repair symbols; None if these are not enough.

    Args:
        group: the group.
        symbols: pairs of a symbol id and the symbol, each id once, each of `group.symbol_bytes` bytes.

    Raises:
        MissingDependencyError: raptorq is not installed.
    """
    length = group.symbol_bytes
    decoder = import_raptorq().Decoder.with_defaults(group.count * length, length)
    for symbol_id, symbol in symbols:
        data = decoder.decode(symbol_id.to_bytes(4, "big") + symbol)
        if data is not None:
            return [data[n * length : (n + 1) * length] for n in range(group.count)]
    return None
