"""Whatever happens to datagrams: never a crash, never a wrong slice, never more memory than allowed."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gosvae.bitstream import MAX_PIXELS, MAX_SIDE, Header, Stream, pack_slices, salvage, unpack_slices
from gosvae.errors import PacketError
from gosvae.packets import FrameInfo, Packet, Part, Reassembler, ReceivedFrame, packetise, read_packet
from gosvae.seeding import numpy_generator

LAYOUTS = st.sampled_from(["bands", "interleaved"])
HEADERS = st.builds(
    Header,
    st.binary(min_size=4, max_size=4),
    st.integers(1, MAX_SIDE),
    st.integers(1, MAX_SIDE),
    st.integers(0, 255),
).filter(lambda header: header.height * header.width <= MAX_PIXELS)
LENGTHS = st.lists(st.one_of(st.integers(0, 60), st.integers(0, 500)), min_size=1, max_size=12)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    seed, lengths = draw(st.integers(0, 2**32)), draw(LENGTHS)
    payloads = [numpy_generator(seed, n).bytes(length) for n, length in enumerate(lengths)]
    return pack_slices(draw(HEADERS), payloads, draw(LAYOUTS) if len(lengths) > 1 else "bands")


def check(frame: ReceivedFrame, sent: Stream) -> None:
    """Every slice is the one that was sent or missing."""
    received = salvage(frame.stream)
    assert (received.header, received.layout, len(received.slices)) == (sent.header, sent.layout, len(sent.slices))
    assert received.damaged == frame.missing
    assert all(a in (None, b) for a, b in zip(received.slices, sent.slices, strict=True))


@given(streams(), st.integers(64, 1500), st.integers(1, 12), st.randoms(use_true_random=False))
def test_any_order_and_any_duplicates_give_the_same_bytes(stream: bytes, mtu: int, most: int, random: object) -> None:
    packets = packetise(stream, stream_id=5, frame=9, mtu_bytes=mtu, slices_per_packet=most)
    assert all(read_packet(packet).to_bytes() == packet and len(packet) <= mtu for packet in packets)
    arriving = packets * 2
    random.shuffle(arriving)  # type: ignore[attr-defined]
    reassembler = Reassembler()
    frames = [frame for packet in arriving for frame in reassembler.add(packet)]
    assert [(f.stream, f.missing) for f in frames] == [(stream, ())]
    assert reassembler.counters.used == len(packets)


def damaged(data: bytes, kind: int, place: int, noise: bytes) -> bytes:
    """A datagram as it was sent, cut, with a bit flipped, with other bytes inside or behind, or nothing but noise."""
    position = place % (len(data) + 1)
    match kind:
        case 1:
            return data[:position]
        case 2:
            bit = place % (8 * len(data))
            return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]
        case 3:
            return data[:position] + noise + data[position + len(noise) :]
        case 4:
            return data + noise
        case 5:
            return noise
    return data


EVENTS = st.lists(
    st.tuples(st.integers(0, 10**6), st.integers(0, 8), st.integers(0, 2**20), st.binary(max_size=40)), max_size=60
)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, 2), streams()), min_size=1, max_size=6),
    st.integers(0, 65535),
    EVENTS,
    st.integers(0, 3),
    st.integers(1, 3),
    st.sampled_from([1500, 4000, 10**6]),
    st.integers(1, 3),
)
def test_damage_loss_and_disorder_never_make_a_wrong_slice(
    frames: list[tuple[int, bytes]],
    start: int,
    events: list[tuple[int, int, int, bytes]],
    window: int,
    max_frames: int,
    max_bytes: int,
    max_streams: int,
) -> None:
    sent: dict[tuple[int, int], Stream] = {}
    datagrams: list[bytes] = []
    for n, (stream_id, stream) in enumerate(frames):
        sent[stream_id, (start + n) % 65536] = unpack_slices(stream)
        datagrams += packetise(stream, stream_id=stream_id, frame=start + n, mtu_bytes=120, slices_per_packet=2)
    reassembler = Reassembler(window=window, max_frames=max_frames, max_bytes=max_bytes, max_streams=max_streams)
    given_back: list[ReceivedFrame] = []
    for which, kind, place, noise in events:
        given_back += reassembler.add(damaged(datagrams[which % len(datagrams)], kind, place, noise))
        assert len(reassembler.in_flight) <= max_frames
        assert reassembler.bytes_in_flight <= max_bytes
    given_back += reassembler.flush()
    assert reassembler.bytes_in_flight == 0
    for frame in given_back:
        check(frame, sent[frame.stream_id, frame.frame])
    keys = [(frame.stream_id, frame.frame) for frame in given_back]
    if len({stream_id for stream_id, _ in frames}) <= max_streams:
        assert len(set(keys)) == len(keys), "each frame comes back once"
    counters = reassembler.counters
    added = counters.used + counters.damaged + counters.duplicates + counters.late + counters.conflicting
    assert counters.stray == counters.forged == 0
    assert added == len(events)
    assert counters.conflicting == 0
    assert counters.complete + counters.partial == len(given_back)
    assert counters.evicted <= counters.partial + counters.lost


@given(st.binary(max_size=200), st.booleans())
def test_bytes_that_pretend_to_be_a_packet(noise: bytes, sealed: bool) -> None:
    """Also with a checksum that agrees: refused, or a packet that writes the very same bytes."""
    data = b"\xca" + bytes([0x10 | (noise[0] & 3 if noise else 0)]) + noise
    data += zlib.crc32(data).to_bytes(4, "big") if sealed else b""
    try:
        packet = read_packet(data)
    except PacketError:
        return
    assert packet.to_bytes() == data


PARTS = st.builds(Part, st.integers(0, 2), st.integers(0, 6), st.integers(1, 8), st.binary(max_size=8))


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), PARTS), max_size=60))
def test_forged_packets_with_checksums_that_agree_crash_nothing(forged: list[tuple[int, int, Part]]) -> None:
    """Parts that overlap, that change their minds about the length, that stand in for each other."""
    reassembler = Reassembler(window=1, max_frames=2, max_bytes=4000)
    info = FrameInfo(Header(b"mark", 12, 13, 3), "bands", 3, 5)
    for frame, index, part in forged:
        for given_back in reassembler.add(Packet(0, frame, index, info, (part,)).to_bytes()):
            left = salvage(given_back.stream)
            assert left.damaged == given_back.missing
        assert reassembler.bytes_in_flight <= 4000
    reassembler.flush()
    assert reassembler.bytes_in_flight == 0


def test_the_strategies_reach_packets_that_are_accepted() -> None:
    assert read_packet(packetise(pack_slices(Header(b"mark", 1, 1, 0), [b""]), stream_id=0, frame=0)[0])
    with pytest.raises(PacketError):
        read_packet(damaged(b"\xca" * 40, 2, 77, b""))
