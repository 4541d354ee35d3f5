"""Repair packets: whatever is lost or repeated, nothing but the sent packets comes out, and enough suffices."""

from __future__ import annotations

import zlib
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gosvae.bitstream import Header, pack_slices
from gosvae.errors import PacketError
from gosvae.packets import Recovery, packetise, protect, read_repair
from gosvae.seeding import numpy_generator

HEADER = Header(b"mark", 12, 13, 3)
LENGTHS = st.lists(st.integers(0, 300), min_size=1, max_size=30)


def packets(lengths: list[int], frame: int = 0) -> list[bytes]:
    stream = pack_slices(HEADER, [numpy_generator(n, length).bytes(length) for n, length in enumerate(lengths)])
    return packetise(stream, stream_id=3, frame=frame, slices_per_packet=1)


@given(
    LENGTHS, st.floats(0, 2), st.lists(st.tuples(st.integers(1, 8), st.floats(0, 2)), max_size=3), st.integers(0, 2**32)
)
def test_only_what_was_sent_comes_out(
    lengths: list[int], overhead: float, classes: list[tuple[int, float]], seed: int
) -> None:
    sent = packets(lengths)
    datagrams = protect(sent, overhead=overhead, classes=classes)
    assert datagrams[: len(sent)] == sent
    assert all(read_repair(data).to_bytes() == data for data in datagrams[len(sent) :])
    random = Random(seed)
    arriving = [data for data in datagrams if random.random() < 0.7] + random.choices(datagrams, k=3)
    random.shuffle(arriving)
    recovery = Recovery()
    given_back = [packet for data in arriving for packet in recovery.add(data)]
    assert set(given_back) <= set(sent)
    assert set(given_back) >= set(arriving) & set(sent)
    assert recovery.counters.given_up == recovery.counters.unusable == recovery.counters.damaged == 0
    more = [packet for packet in set(given_back) if given_back.count(packet) > arriving.count(packet)]
    assert recovery.counters.recovered == len(more)


@settings(max_examples=50)
@given(LENGTHS, st.integers(0, 2**32), st.integers(0, 65535))
def test_two_datagrams_more_than_packets_are_enough(lengths: list[int], seed: int, frame: int) -> None:
    """With K + 2 datagrams RaptorQ fails once in a million groups."""
    sent = packets(lengths, frame)
    datagrams = protect(sent, overhead=2.0)
    random = Random(seed)
    arriving = random.sample(datagrams, min(len(sent) + 2, len(datagrams)))
    recovery = Recovery()
    given_back = [packet for data in arriving for packet in recovery.add(data)]
    assert set(given_back) == set(sent)


@given(st.binary(max_size=200), st.booleans(), st.integers(0, 20))
def test_bytes_that_pretend_to_be_a_repair_packet(noise: bytes, sealed: bool, runs: int) -> None:
    """Also with a checksum that agrees: refused, or a repair packet that writes the very same bytes."""
    data = b"\xcb\x10" + noise[:8].ljust(8, b"\0") + bytes([runs]) + noise[8:]
    data += zlib.crc32(data).to_bytes(4, "big") if sealed else b""
    try:
        packet = read_repair(data)
    except PacketError:
        assert Recovery().add(data) == []
        return
    assert packet.to_bytes() == data
    assert packet.group.count <= packet.symbol_id


def test_the_strategies_reach_repair_packets_that_are_accepted() -> None:
    _, repair = protect(packets([5]), overhead=1.0)
    assert read_repair(repair).group.count == 1
    with pytest.raises(PacketError):
        read_repair(repair + b"\0")
