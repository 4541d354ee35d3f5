"""Reassembly of streams from packets, which may come in any order, late, twice or damaged, in bounded memory."""

from __future__ import annotations

import zlib
from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, fields

from gosvae.errors import ConfigError, PacketError
from gosvae.packets.packet import FRAME_NUMBERS, FrameInfo, Packet, Part, read_packet

JUMP = 16
"""Greatest distance from the newest frame of its stream at which a frame number is accepted at once, unless the window
is larger. A number further away is accepted only if the next such number follows it (RFC 3550, appendix A.1)."""
_FRAME_COST_BYTES = 1024
_PACKET_COST_BYTES = 256
"""Greatest number of bytes for the bookkeeping of a frame and of a packet, which the limit on bytes includes."""


@dataclass(frozen=True)
class ReceivedFrame:
    """Frame with the slices that arrived.

    Attributes:
        stream_id: number of the stream, as it was sent.
        frame: number of the frame, modulo 2**16.
        stream: stream of container version 2. If nothing is missing, it has exactly the bytes that were sent;
            otherwise `bitstream.salvage` and `decode_damaged` read the slices in it.
        missing: numbers, from 0, of the slices that did not arrive.
        packets: number of packets that arrived.
        packet_count: number of packets that were sent.
    """

    stream_id: int
    frame: int
    stream: bytes
    missing: tuple[int, ...]
    packets: int
    packet_count: int


@dataclass(frozen=True)
class Counters:
    """Numbers of packets and frames; the first six add up to the number of packets that were added.

    Attributes:
        used: number of packets that brought new bytes.
        damaged: number of datagrams that are not an intact packet.
        duplicates: number of packets that had arrived already.
        late: number of packets of frames that were closed already, including duplicates for complete frames. If the
            reassembler is `ordered`, also those of frames before one that was returned already.
        stray: number of packets whose frame number is far from those of their stream. They are forged, or of a sender
            that started again, whose next frame is accepted.
        conflicting: number of packets that contradict an earlier one of the same frame, by a defect or a forgery.
        complete: number of frames that were returned with every slice.
        partial: number of frames that were returned with slices missing.
        lost: number of frames of which packets arrived but no whole slice.
        forged: number of frames that have all their slices, but do not match the checksum of the stream that was sent.
        evicted: number of partial and lost frames that were closed to keep within the limits on memory.
    """

    used: int = 0
    damaged: int = 0
    duplicates: int = 0
    late: int = 0
    stray: int = 0
    conflicting: int = 0
    complete: int = 0
    partial: int = 0
    lost: int = 0
    forged: int = 0
    evicted: int = 0


@dataclass
class _Slice:
    """A slice in parts; the keys of `parts` are their offsets."""

    total_bytes: int
    parts: dict[int, bytes] = field(default_factory=dict)
    have_bytes: int = 0

    def joined(self) -> bytes | None:
        """Return the slice if the parts cover it without a gap or an overlap, which no sender makes; otherwise None."""
        if self.have_bytes != self.total_bytes:
            return None
        pieces, position = [], 0
        while position < self.total_bytes:
            piece = self.parts.get(position)
            if piece is None:
                return None
            pieces.append(piece)
            position += len(piece)
        return b"".join(pieces)


@dataclass
class _Frame:
    """A frame in flight."""

    info: FrameInfo
    cost_bytes: int = _FRAME_COST_BYTES
    packets: set[int] = field(default_factory=set)
    slices: dict[int, bytes] = field(default_factory=dict)
    partial: dict[int, _Slice] = field(default_factory=dict)

    def conflicts(self, packet: Packet) -> bool:
        """Return whether the packet contradicts the earlier packets of the frame."""
        if packet.info != self.info:
            return True
        return any(self._conflicts(part) for part in packet.parts)

    def _conflicts(self, part: Part) -> bool:
        if part.number in self.slices:
            return True
        begun = self.partial.get(part.number)
        if begun is None:
            return False
        room = begun.total_bytes - begun.have_bytes
        return part.total_bytes != begun.total_bytes or part.offset in begun.parts or len(part.data) > room

    def take(self, packet: Packet) -> None:
        """Add a packet that does not conflict."""
        self.packets.add(packet.index)
        self.cost_bytes += _PACKET_COST_BYTES + sum(len(part.data) for part in packet.parts)
        for part in packet.parts:
            if part.whole:
                self.slices[part.number] = part.data
                continue
            begun = self.partial.setdefault(part.number, _Slice(part.total_bytes))
            begun.parts[part.offset] = part.data
            begun.have_bytes += len(part.data)
            joined = begun.joined()
            if joined is not None:
                self.slices[part.number] = joined
                del self.partial[part.number]

    @property
    def complete(self) -> bool:
        return len(self.slices) == self.info.slice_count


@dataclass
class _Sender:
    """The newest frame number of a stream, and the numbers within the window before it that are closed.

    `returned` is the newest frame that was returned, `expected` the frame that a stray one would be followed by.
    """

    newest: int
    closed: set[int] = field(default_factory=set)
    returned: int | None = None
    expected: int | None = None


class Reassembler:
    """Buffer that takes packets one at a time and returns each frame once, when it is complete or closed.

    An incomplete frame is closed when a packet of the same stream arrives that is more than `window` frames newer, when
    the limits on memory are reached (the oldest frame is closed first), or when the caller closes it. The reassembler
    has no clock: deadlines are up to the caller. Packets that arrive after their frame was closed are counted and
    dropped. An object must not be used by several threads at once.

    Args:
        window: greatest number of frames by which the newest frame of a stream may be ahead of an open one; 0 closes a
            frame when the next one begins.
        max_frames: greatest number of open frames, of all streams together.
        max_bytes: greatest number of bytes of the open frames, bookkeeping included.
        max_streams: greatest number of streams that are remembered. The stream that was silent for the longest time is
            forgotten first; if it comes back, it counts as new.
        ordered: whether frames of a stream are returned in the order of their numbers. When a frame is returned, the
            open frames before it are closed and returned first, with slices missing; packets of these that arrive
            later are counted as late.

    Raises:
        ConfigError: a limit allows nothing, or the window is half of the frame numbers or more.
    """

    def __init__(
        self,
        *,
        window: int = 4,
        max_frames: int = 256,
        max_bytes: int = 2**25,
        max_streams: int = 1024,
        ordered: bool = False,
    ) -> None:
        if not 0 <= window < FRAME_NUMBERS // 2 or min(max_frames, max_bytes, max_streams) < 1:
            raise ConfigError(
                f"window {window}, {max_frames} frames, {max_bytes} bytes, {max_streams} streams: expected "
                f"0..{FRAME_NUMBERS // 2 - 1} and at least 1 of each"
            )
        self.window, self.max_frames, self.max_bytes, self.max_streams = window, max_frames, max_bytes, max_streams
        self.ordered, self.bytes_in_flight = ordered, 0
        self._frames: OrderedDict[tuple[int, int], _Frame] = OrderedDict()
        self._senders: OrderedDict[int, _Sender] = OrderedDict()
        self._counts: Counter[str] = Counter()

    @property
    def counters(self) -> Counters:
        """Numbers of packets and frames so far."""
        return Counters(**{f.name: self._counts[f.name] for f in fields(Counters)})

    @property
    def in_flight(self) -> tuple[tuple[int, int], ...]:
        """Stream and number of the frames that wait for more packets, in the order of their first packets."""
        return tuple(self._frames)

    def add(self, data: bytes) -> list[ReceivedFrame]:
        """Take a datagram, which may hold any bytes, and return the frames that it completes or closes.

        Usually this is no frame or one frame.
        """
        try:
            packet = read_packet(data)
        except PacketError:
            self._counts["damaged"] += 1
            return []
        key = packet.stream_id, packet.frame
        done: list[ReceivedFrame] = []
        sender = self._sender(packet, done)
        if sender is None:
            self._counts["stray"] += 1
            return done
        overtaken = sender.returned is not None and _ahead(sender.returned, packet.frame) > 0
        if _ahead(sender.newest, packet.frame) > self.window or packet.frame in sender.closed or overtaken:
            self._counts["late"] += 1
            return done
        frame = self._frames.get(key) or _Frame(packet.info)
        if packet.info == frame.info and packet.index in frame.packets:
            self._counts["duplicates"] += 1
        elif frame.conflicts(packet):
            self._counts["conflicting"] += 1
        else:
            self._counts["used"] += 1
            self.bytes_in_flight -= self._frames[key].cost_bytes if key in self._frames else 0
            frame.take(packet)
            self._frames[key] = frame
            self.bytes_in_flight += frame.cost_bytes
            if frame.complete:
                done += self._close([*self._before(key), key])
        while len(self._frames) > self.max_frames or self.bytes_in_flight > self.max_bytes:
            done += self._close([next(iter(self._frames))], evicted=True)
        return done

    def close(self, stream_id: int, frame: int) -> ReceivedFrame | None:
        """Close a frame and return it; None if it has no whole slice or is not open."""
        key = stream_id, frame
        return next(iter(self._close([key])), None) if key in self._frames else None

    def close_until(self, stream_id: int, frame: int) -> list[ReceivedFrame]:
        """Close a frame and return it if it has a whole slice.

        If the reassembler is `ordered`, do the same for the frames of the stream before it.
        """
        key = stream_id, frame
        return self._close([*self._before(key), key]) if key in self._frames else []

    def flush(self) -> list[ReceivedFrame]:
        """Close all frames and return those with at least one whole slice."""
        return self._close(self.in_flight)

    def _before(self, key: tuple[int, int]) -> list[tuple[int, int]]:
        """Return the frames in flight that are returned before a frame, oldest first: none if no order is kept."""
        if not self.ordered:
            return []
        ages = {other: _ahead(key[1], other[1]) for other in self._frames if other[0] == key[0]}
        return sorted((other for other, age in ages.items() if age > 0), key=lambda other: -ages[other])

    def _sender(self, packet: Packet, done: list[ReceivedFrame]) -> _Sender | None:
        """Return the state of the packet's stream, with the frames closed that are too old if the packet is newer.

        It is None for a packet whose number is not believed: one far from the newest, unless it follows another.
        """
        sender = self._senders.setdefault(packet.stream_id, _Sender(packet.frame))
        self._senders.move_to_end(packet.stream_id)
        mine = [key for key in self._frames if key[0] == packet.stream_id]
        if abs(_ahead(sender.newest, packet.frame)) > max(self.window, JUMP):
            if packet.frame != sender.expected:
                sender.expected = (packet.frame + 1) % FRAME_NUMBERS
                return None
            done += self._close(mine)
            sender = self._senders[packet.stream_id] = _Sender(packet.frame)
        elif _ahead(sender.newest, packet.frame) < 0:
            sender.newest = packet.frame
            done += self._close([key for key in mine if _ahead(sender.newest, key[1]) > self.window])
            sender.closed = {frame for frame in sender.closed if 0 <= _ahead(sender.newest, frame) <= self.window}
        if len(self._senders) > self.max_streams:
            silent = next(iter(self._senders))
            done += self._close([key for key in self._frames if key[0] == silent], evicted=True)
            del self._senders[silent]
        return sender

    def _close(self, keys: Iterable[tuple[int, int]], *, evicted: bool = False) -> list[ReceivedFrame]:
        """Take frames out of flight and return those with at least one whole slice."""
        done = []
        for key in keys:
            frame = self._frames.pop(key)
            self.bytes_in_flight -= frame.cost_bytes
            sender, info = self._senders[key[0]], frame.info
            sender.closed.add(key[1])
            self._counts["evicted"] += evicted
            slices = [frame.slices.get(number) for number in range(info.slice_count)]
            missing = tuple(number for number, payload in enumerate(slices) if payload is None)
            stream = info.stream_of(slices) if frame.slices else b""
            forged = not missing and info.checksum not in (None, zlib.crc32(stream))
            fate = "forged" if forged else "complete" if not missing else "partial" if frame.slices else "lost"
            self._counts[fate] += 1
            if not frame.slices or forged:
                continue
            if self.ordered:
                sender.returned = key[1]
            done.append(
                ReceivedFrame(
                    stream_id=key[0],
                    frame=key[1],
                    stream=stream,
                    missing=missing,
                    packets=len(frame.packets),
                    packet_count=info.packet_count,
                )
            )
        return done


def _ahead(newest: int, frame: int) -> int:
    """Return the number of frames by which `newest` is ahead of `frame`, below 0 if `frame` is newer.

    Numbers wrap (RFC 1982): a difference of half of the frame numbers or more counts as newer.
    """
    age = (newest - frame) % FRAME_NUMBERS
    return age if age < FRAME_NUMBERS // 2 else age - FRAME_NUMBERS
