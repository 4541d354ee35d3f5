"""The reassembler: windows, limits, wrapping numbers, counters; and a codec's picture through lossy channels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gosvae.bitstream import Header, pack_slices, salvage, unpack_slices
from gosvae.channels import load_channel
from gosvae.codecs.vq import VqCodec, VqOptions
from gosvae.errors import BitstreamError, ConfigError
from gosvae.packets import Counters, Part, Reassembler, ReceivedFrame, packetise, read_packet
from gosvae.packets.reassembly import JUMP
from gosvae.seeding import torch_generator
from tiny import checkpoint, streets

HEADER = Header(b"mark", 12, 13, 3)


def stream(frame: int = 0, n_slices: int = 4, n_bytes: int = 50) -> bytes:
    return pack_slices(HEADER, [bytes([frame % 256, n]) * (n_bytes // 2) for n in range(n_slices)])


def packets(frame: int, *, stream_id: int = 1, n_slices: int = 4, n_bytes: int = 50) -> list[bytes]:
    """One packet for each slice."""
    return packetise(
        stream(frame, n_slices, n_bytes), stream_id=stream_id, frame=frame, mtu_bytes=5000, slices_per_packet=1
    )


def add_all(reassembler: Reassembler, datagrams: list[bytes]) -> list[ReceivedFrame]:
    return [frame for data in datagrams for frame in reassembler.add(data)]


def test_a_frame_comes_back_with_its_last_packet_to_the_byte() -> None:
    reassembler = Reassembler()
    *first, last = packets(3)
    assert add_all(reassembler, first) == []
    assert reassembler.in_flight == ((1, 3),)
    assert reassembler.add(last) == [ReceivedFrame(1, 3, stream(3), (), 4, 4)]
    assert reassembler.in_flight == ()
    assert reassembler.bytes_in_flight == 0
    assert reassembler.counters == Counters(used=4, complete=1)


def test_both_layers_of_a_frame_come_back() -> None:
    layered = pack_slices(HEADER, [b"task" * 9, b"more" * 9, b"detail" * 50], "interleaved", 1)
    sent = packetise(layered, stream_id=1, frame=3, mtu_bytes=100, slices_per_packet=1)
    (whole,) = add_all(Reassembler(), sent)
    assert (whole.stream, whole.missing) == (layered, ())
    reassembler = Reassembler()
    add_all(reassembler, [sent[0], *sent[2:-1]])
    (frame,) = reassembler.flush()
    assert (salvage(frame.stream).slices, salvage(frame.stream).detail) == ((b"task" * 9, None, None), (None,))


def test_what_is_missing_is_missing_and_the_rest_is_there() -> None:
    reassembler = Reassembler()
    sent = packets(3)
    add_all(reassembler, [sent[3], sent[1]])
    (frame,) = reassembler.flush()
    assert (frame.missing, frame.packets, frame.packet_count) == ((0, 2), 2, 4)
    left = salvage(frame.stream)
    assert left.header == HEADER
    whole = unpack_slices(stream(3)).slices
    assert left.slices == (None, whole[1], None, whole[3])
    with pytest.raises(BitstreamError, match="slice 0, 2 of 4"):
        unpack_slices(frame.stream)
    assert reassembler.counters == Counters(used=2, partial=1)


def test_duplicates_garbage_and_late_packets_are_counted_and_change_nothing() -> None:
    reassembler = Reassembler()
    sent = packets(3)
    assert add_all(reassembler, [sent[0], sent[0], b"noise", b"", sent[1][:-1], *sent[1:3]]) == []
    assert len(reassembler.add(sent[3])) == 1
    assert add_all(reassembler, sent) == []
    assert reassembler.counters == Counters(used=4, damaged=3, duplicates=1, late=4, complete=1)


def test_a_newer_frame_closes_those_beyond_the_window() -> None:
    reassembler = Reassembler(window=2)
    assert add_all(reassembler, [packets(n)[0] for n in (10, 11, 12)]) == []
    (closed,) = reassembler.add(packets(13)[0])
    assert (closed.frame, closed.missing) == (10, (1, 2, 3))
    assert add_all(reassembler, packets(10)) == []
    assert reassembler.counters.late == 4
    assert [frame.frame for frame in add_all(reassembler, packets(12))] == [12]
    assert [frame.frame for frame in reassembler.add(packets(20)[0])] == [11, 13]


def test_an_older_frame_within_the_window_may_still_begin() -> None:
    reassembler = Reassembler(window=2)
    reassembler.add(packets(12)[0])
    assert [frame.frame for frame in add_all(reassembler, packets(10))] == [10]
    assert add_all(reassembler, packets(9)) == []


def test_frame_numbers_wrap() -> None:
    reassembler = Reassembler(window=1)
    for n in (65534, 65535, 65536, 65537):
        (frame,) = add_all(reassembler, packets(n))
        assert (frame.frame, frame.stream) == (n % 65536, stream(n))
    assert add_all(reassembler, packets(65534)) == []
    assert reassembler.counters == Counters(used=16, complete=4, late=4)


def test_a_number_that_comes_round_again_is_a_new_frame() -> None:
    reassembler = Reassembler(window=1)
    numbers = range(0, 2**16 + 10, 10)
    frames = [frame.frame for n in numbers for frame in add_all(reassembler, packets(n))]
    assert frames == [n % 2**16 for n in numbers]


@pytest.mark.parametrize("far", [30_000, JUMP + 1, -JUMP - 2, -30_000, 40_000])
def test_one_forged_number_silences_nobody(far: int) -> None:
    reassembler = Reassembler()
    frames = [frame.frame for n in range(100, 103) for frame in add_all(reassembler, packets(n))]
    add_all(reassembler, packets((103 + far) % 2**16))
    frames += [frame.frame for n in range(103, 110) for frame in add_all(reassembler, packets(n))]
    assert frames == list(range(100, 110))
    assert reassembler.counters.stray == 4


def test_two_frames_in_sequence_are_believed_and_so_is_the_way_back() -> None:
    """A sender that starts again with its stream id loses one frame, and a forger of two costs it two."""
    reassembler = Reassembler()
    numbers = [*range(5000, 5003), *range(5), 60_000, 60_001, *range(5, 10)]
    frames = [frame.frame for n in numbers for frame in add_all(reassembler, packets(n))]
    assert frames == [*range(5000, 5003), *range(1, 5), 60_001, *range(6, 10)]
    replayed = [frame for n in (7, 7, 8, 8, 9) for frame in add_all(reassembler, packets(n))]
    assert replayed == [], "numbers near the newest are late"


def test_numbers_a_little_ahead_are_believed_at_once() -> None:
    reassembler = Reassembler()
    frames = [frame.frame for n in (0, JUMP, 2 * JUMP) for frame in add_all(reassembler, packets(n))]
    assert frames == [0, JUMP, 2 * JUMP]


def test_slices_of_two_pictures_never_make_one() -> None:
    """Two senders with one stream id and the same frame number, or an attacker who knows both."""
    ours, theirs = packets(7), packetise(stream(8), stream_id=1, frame=7, mtu_bytes=5000, slices_per_packet=1)
    reassembler = Reassembler()
    mixed = [packet for pair in zip(ours, theirs, strict=True) for packet in pair]
    assert [frame.stream for frame in add_all(reassembler, mixed)] == [stream(7)]
    assert reassembler.counters == Counters(used=4, conflicting=3, late=1, complete=1)
    reassembler = Reassembler()
    others = add_all(reassembler, [*ours[:2], *theirs[2:], *ours[2:]])
    assert [frame.stream for frame in others] == [stream(7)], "packets of the other picture fill no gap"
    assert reassembler.counters == Counters(used=4, conflicting=2, complete=1)
    stolen = [replace(read_packet(data), info=read_packet(ours[0]).info).to_bytes() for data in theirs]
    reassembler = Reassembler()
    assert add_all(reassembler, [*ours[:2], *stolen[2:]]) == [], "not even with the true checksum"
    assert reassembler.counters == Counters(used=4, forged=1)


def test_in_order_the_newest_comes_and_what_is_older_is_late() -> None:
    reassembler = Reassembler(ordered=True)
    one, two, three = packets(1), packets(2), packets(3)
    assert add_all(reassembler, [*one[:2], *two[:3], *three[:3]]) == []
    back = reassembler.add(three[3])
    assert [(frame.frame, frame.missing) for frame in back] == [(1, (2, 3)), (2, (3,)), (3, ())]
    assert add_all(reassembler, [*one[2:], *two[3:], *packets(0)]) == []
    assert reassembler.counters == Counters(used=9, late=7, complete=1, partial=2)
    assert [frame.frame for frame in add_all(reassembler, packets(4))] == [4]
    add_all(reassembler, [packets(5)[0], packets(6)[0]])
    assert [frame.frame for frame in reassembler.close_until(1, 6)] == [5, 6]
    assert reassembler.close_until(1, 6) == []
    unordered = Reassembler()
    add_all(unordered, [packets(5)[0], packets(6)[0]])
    assert [frame.frame for frame in unordered.close_until(1, 6)] == [6]


def test_streams_do_not_disturb_each_other() -> None:
    reassembler = Reassembler(window=0)
    mixed = [data for pair in zip(packets(5), packets(900, stream_id=2), strict=True) for data in pair]
    assert [(f.stream_id, f.frame, f.missing) for f in add_all(reassembler, mixed)] == [(1, 5, ()), (2, 900, ())]


def test_a_packet_that_contradicts_its_frame_is_left_out() -> None:
    reassembler = Reassembler()
    first, second, *rest = packets(3)
    reassembler.add(first)
    packet = read_packet(second)
    other_image = replace(packet.info, header=replace(HEADER, width=99))
    other_slice = (replace(packet.parts[0], number=0),)
    forged = [replace(packet, info=other_image), replace(packet, parts=other_slice)]
    assert add_all(reassembler, [p.to_bytes() for p in forged]) == []
    (frame,) = add_all(reassembler, [second, *rest])
    assert frame.stream == stream(3)
    assert reassembler.counters == Counters(used=4, conflicting=2, complete=1)


@pytest.mark.parametrize(
    ("part", "conflicting", "slice_0"),
    [
        (Part(0, 0, 100, b"x" * 10), 1, b"a" * 100),  # the same place
        (Part(0, 50, 101, b"x"), 1, b"a" * 100),  # another length
        (Part(0, 20, 100, b"x" * 72), 1, b"a" * 100),  # more bytes than are missing
        (Part(0, 60, 100, b"x" * 40), 2, None),  # overlaps what comes later, which is left out then
    ],
)
def test_parts_that_contradict_each_other_never_make_a_slice(
    part: Part, conflicting: int, slice_0: bytes | None
) -> None:
    data = packetise(pack_slices(HEADER, [b"a" * 100, b"b"]), stream_id=1, frame=0, mtu_bytes=68)
    info = replace(read_packet(data[0]).info, packet_count=6)
    first, *rest = (replace(read_packet(packet), info=info) for packet in data)
    assert [len(packet.parts[0].data) for packet in (first, *rest)] == [29, 29, 29, 13, 1]
    reassembler = Reassembler()
    arriving = [first, replace(first, index=5, parts=(part,)), *rest]
    (frame,) = add_all(reassembler, [packet.to_bytes() for packet in arriving]) + reassembler.flush()
    assert salvage(frame.stream).slices == (slice_0, b"b")
    assert reassembler.counters.conflicting == conflicting


def test_at_most_so_many_frames_are_in_flight_and_the_oldest_goes() -> None:
    reassembler = Reassembler(max_frames=3)
    given = add_all(reassembler, [packets(0, stream_id=n)[0] for n in range(10)])
    assert [frame.stream_id for frame in given] == list(range(7))
    assert len(reassembler.in_flight) == 3
    assert reassembler.counters == Counters(used=10, partial=7, evicted=7)


def test_at_most_so_many_bytes_are_in_flight() -> None:
    reassembler = Reassembler(max_bytes=20_000, window=1000)
    for n in range(50):
        for data in packets(n, n_bytes=4000)[:3]:
            reassembler.add(data)
            assert reassembler.bytes_in_flight <= 20_000
    assert reassembler.counters.evicted == 49
    tiny = Reassembler(max_bytes=100)
    assert [frame.missing for frame in tiny.add(packets(0)[0])] == [(1, 2, 3)]
    assert tiny.bytes_in_flight == 0


def test_streams_that_are_silent_are_forgotten() -> None:
    reassembler = Reassembler(max_streams=2)
    reassembler.add(packets(5, stream_id=1)[0])
    reassembler.add(packets(5, stream_id=2)[0])
    reassembler.add(packets(5, stream_id=1)[1])
    (gone,) = reassembler.add(packets(5, stream_id=3)[0])
    assert gone.stream_id == 2
    assert reassembler.in_flight == ((1, 5), (3, 5))
    assert len(add_all(reassembler, packets(5, stream_id=2))) == 2, "it is a new stream now, and pushes out another"


def test_the_caller_has_the_clock() -> None:
    reassembler = Reassembler()
    add_all(reassembler, [packets(5)[0], packets(6)[0]])
    closed = reassembler.close(1, 5)
    assert closed is not None
    assert closed.frame == 5
    assert reassembler.close(1, 5) is None
    assert add_all(reassembler, packets(5)) == []
    assert [frame.frame for frame in reassembler.flush()] == [6]
    assert reassembler.flush() == []


def test_a_frame_without_a_whole_slice_is_lost() -> None:
    reassembler = Reassembler()
    first, *_ = packetise(pack_slices(HEADER, [bytes(3000)]), stream_id=1, frame=0)
    reassembler.add(first)
    assert reassembler.close(1, 0) is None
    assert reassembler.counters == Counters(used=1, lost=1)


@pytest.mark.parametrize(
    "limits", [{"window": -1}, {"window": 2**15}, {"max_frames": 0}, {"max_bytes": 0}, {"max_streams": 0}]
)
def test_limits_that_allow_nothing_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Reassembler(**limits)


@pytest.mark.parametrize("spec", ["packet-loss p=0.3", "gilbert-elliott loss=0.3 burst=3", "binary-symmetric p=0.001"])
def test_a_codec_reads_what_came_through_a_channel(spec: str) -> None:
    """Every index that is called known is the one that was sent, and only what was lost is not known."""
    codec = VqCodec(checkpoint(), options=VqOptions(slices=8, layout="interleaved"))
    reassembler = Reassembler(window=2)
    sent, datagrams = [], []
    for n in range(12):
        image_uint8_HW3 = streets()[n % 4].image_uint8_HW3
        sent.append(codec.compress(image_uint8_HW3))
        datagrams += packetise(sent[-1], stream_id=77, frame=n, slices_per_packet=1)
    arrived = load_channel(spec)(datagrams, torch_generator(4)).arrived
    frames = add_all(reassembler, list(arrived)) + reassembler.flush()
    counters = reassembler.counters
    assert counters.used + counters.damaged == len(arrived)
    assert counters.complete + counters.partial == len(frames)
    assert counters.partial > 0
    for frame in frames:
        before, partial = codec.decode(sent[frame.frame]), codec.decode_damaged(frame.stream)
        assert (partial.height, partial.width) == (before.height, before.width)
        assert partial.damaged == frame.missing
        known_hw = np.ones(before.grid_hw, bool) if partial.known_hw is None else partial.known_hw
        np.testing.assert_array_equal(partial.symbols[known_hw], before.symbols[known_hw])
        assert known_hw.all() == (not frame.missing)
        if not frame.missing:
            assert frame.stream == sent[frame.frame]
