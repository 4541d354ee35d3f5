"""Compact packets: they become the packets that were meant, or nothing."""

from __future__ import annotations

import numpy as np
import pytest

from gosvae.bitstream import Header, pack_slices
from gosvae.entropy.ids import EntropyModelId
from gosvae.errors import PacketError
from gosvae.packets import Inlet, packetise
from gosvae.packets.compact import COMPACT_OVERHEAD_BYTES, MOST_SLICES, CompactPacket, compact_packets, read_compact
from gosvae.seeding import numpy_generator

VIDEO = Header(b"mark", 64, 96, EntropyModelId.TEMPORAL_CONTEXT)


def stream(*slices: bytes) -> bytes:
    return pack_slices(VIDEO, slices)


def compact(data: bytes, frame: int, mtu_bytes: int = 1200) -> list[bytes]:
    packets = compact_packets(data, stream_id=7, frame=frame, mtu_bytes=mtu_bytes)
    assert packets is not None
    return packets


def opened(frame: int = 65530) -> Inlet:
    """An inlet that has had a full packet of frame `frame`."""
    inlet = Inlet()
    (first,) = packetise(stream(b"key"), stream_id=7, frame=frame)
    assert len(inlet.add(first, 0.0)) == 1
    return inlet


def test_the_layout_is_that_of_the_page() -> None:
    (data,) = compact(stream(b"abc"), 0x1234)
    assert data.hex(" ") == "cd 00 00 00 07 34 00 61 62 63 5b 49"
    assert len(data) == 3 + COMPACT_OVERHEAD_BYTES
    assert read_compact(data) == CompactPacket(7, 0x34, 0, 1, b"abc")


def test_frames_arrive_as_they_were_sent() -> None:
    inlet = opened()
    assert not inlet.compact.has_compact(7)
    for number in range(65531, 65531 + 600):
        data = stream(b"first %d" % number, b"second")
        frames = [frame for packet in compact(data, number)[::-1] for frame in inlet.add(packet, 0.0)]
        assert [(frame.stream, frame.frame, frame.missing) for frame in frames] == [(data, number % 65536, ())]
    assert inlet.compact.has_compact(7)


def test_a_frame_without_a_slice_is_returned_when_its_time_is_over() -> None:
    inlet = opened()
    assert not inlet.add(compact(stream(b"a", b"b", b"c"), 65531)[1], 1.0)
    (frame,) = inlet.expire(9.0)
    assert frame.missing == (0, 2)


def test_packets_of_streams_that_are_not_known_and_damaged_ones_are_left_out() -> None:
    inlet, (data,) = Inlet(), compact(stream(b"abc"), 1)
    assert not inlet.add(data, 0.0)
    assert inlet.compact.unknown == 1
    inlet = opened(0)
    generator = numpy_generator("compact")
    for _ in range(200):
        bad = bytearray(data)
        bad[int(generator.integers(len(bad)))] ^= int(generator.integers(1, 256))
        inlet.add(bytes(bad), 0.0)
    assert inlet.compact.damaged + inlet.reassembler.counters.damaged + inlet.recovery.counters.damaged == 200
    assert not inlet.compact.has_compact(7)
    for cut in range(len(data)):
        with pytest.raises(PacketError):
            read_compact(data[:cut])
    with pytest.raises(PacketError, match="slice 3 of 3"):
        read_compact(CompactPacket(7, 1, 3, 3, b"x").to_bytes())


def test_what_they_cannot_hold_takes_full_packets() -> None:
    picture = pack_slices(Header(b"mark", 64, 96, 4), [b"data"])
    for data in (picture, stream(b"\x0fGSV and so on"), stream(bytes(1200)), stream(*[b"x"] * (MOST_SLICES + 1))):
        assert compact_packets(data, stream_id=7, frame=1, mtu_bytes=1200) is None


def test_late_packets_keep_their_numbers() -> None:
    inlet = opened(10)
    order = np.array([12, 11, 14, 13])
    got = [frame.frame for number in order for frame in inlet.add(compact(stream(b"%d" % number), int(number))[0], 0.0)]
    assert got == [12, 14]  # frames are returned in order
    assert inlet.reassembler.counters.late == 2
