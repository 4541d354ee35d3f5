"""Repair packets: the layout to the byte, every pattern of losses, unequal protection, and what is refused."""

from __future__ import annotations

import sys
import zlib
from dataclasses import replace
from itertools import combinations

import pytest

from gosvae.bitstream import Header, pack_slices
from gosvae.errors import ConfigError, MissingDependencyError, PacketError
from gosvae.packets import (
    DEFAULT_MTU_BYTES,
    REPAIR_OVERHEAD_BYTES,
    Reassembler,
    Recovery,
    RecoveryCounters,
    RepairPacket,
    packetise,
    protect,
    read_packet,
    read_repair,
)
from gosvae.packets import recovery as recovery_module
from gosvae.packets.allowance import Allowance
from gosvae.packets.protection import LEAST_SYMBOL_BYTES, Group, Run, symbol_of
from gosvae.seeding import numpy_generator

HEADER = Header(bytes.fromhex("dd56de41"), 12, 13, 3)


def stream(*lengths: int) -> bytes:
    generator = numpy_generator(*lengths)
    return pack_slices(HEADER, [generator.bytes(n) for n in lengths], "interleaved")


EIGHT = stream(190, 201, 183, 199, 170, 192, 188, 204)


def packets(
    frame: int = 0, *, data: bytes = EIGHT, stream_id: int = 1, mtu_bytes: int = DEFAULT_MTU_BYTES
) -> list[bytes]:
    """One packet for each slice."""
    return packetise(data, stream_id=stream_id, frame=frame, mtu_bytes=mtu_bytes, slices_per_packet=1)


def recovered(datagrams: list[bytes], recovery: Recovery | None = None) -> list[bytes]:
    """What comes out for the reassembler."""
    recovery = recovery or Recovery()
    return [data for datagram in datagrams for data in recovery.add(datagram)]


def sealed(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "big")


def test_packets_travel_unchanged_with_repair_packets_behind_them() -> None:
    sent = packets()
    protected = protect(sent, overhead=0.25)
    assert protected[:8] == sent
    repair = [read_repair(data) for data in protected[8:]]
    group = Group(1, 0, (Run(0, 0, 8),), 240)  # 204 + 32 bytes and their length, in steps of 8
    assert [(packet.group, packet.symbol_id) for packet in repair] == [(group, 8), (group, 9)]
    assert [packet.to_bytes() for packet in repair] == protected[8:]
    assert {len(data) for data in protected[8:]} == {240 + 19}


def test_the_layout_to_the_byte() -> None:
    """The example of docs/link.md: of one packet, every repair symbol is the packet's own."""
    (packet,) = packetise(pack_slices(HEADER, [b"abcde"]), stream_id=0x01020304, frame=7)
    _, repair = protect([packet], overhead=1.0)
    checksum = zlib.crc32(pack_slices(HEADER, [b"abcde"])).to_bytes(4, "big").hex()
    beginning = f"ca200102030400070000000103dd56de41000b000c00{checksum}"
    assert packet.hex() == beginning + "00006162636465" + packet[-4:].hex()
    body = bytes.fromhex("cb 10 01020304 0007 0001 00  00 0000 01") + symbol_of(packet, 40)
    assert symbol_of(packet, 40) == b"\0\x25" + packet + bytes(1)
    assert repair == sealed(body)


def test_two_of_eight_come_back_whichever_are_lost() -> None:
    """45 patterns of 2 losses among 10 datagrams; for 8 packets not one of them fails."""
    sent = packets()
    protected = protect(sent, overhead=0.25)
    for lost in combinations(range(10), 2):
        recovery = Recovery()
        arrived = recovered([data for n, data in enumerate(protected) if n not in lost], recovery)
        assert sorted(arrived) == sorted(sent), lost
        assert recovery.counters.recovered == sum(n < 8 for n in lost)
        assert recovery.counters.given_up == 0


def test_what_is_not_enough_recovers_nothing_and_a_later_packet_completes_it() -> None:
    protected = protect(packets(), overhead=0.25)
    recovery = Recovery()
    assert recovered([*protected[3:8], *protected[8:]], recovery) == protected[3:8]
    assert set(recovered([protected[1]], recovery)) == {*protected[:3]}
    assert recovery.counters == RecoveryCounters(kept=2, recovered=2)


def test_any_order_duplicates_and_late_ones() -> None:
    sent = packets()
    protected = protect(sent, overhead=0.5)
    recovery = Recovery()
    order = [10, 3, 10, 9, 8, 4, 7, 11, 5, 6, 0, 8]
    given = recovered([protected[n] for n in order], recovery)
    assert set(given) == set(sent)
    assert given.count(sent[0]) == 2, "it was recovered before it came"
    assert recovery.counters == RecoveryCounters(kept=4, duplicates=1, late=1, recovered=4)
    reassembler = Reassembler()
    (frame,) = [frame for data in given for frame in reassembler.add(data)]
    assert frame.stream == EIGHT


def test_packets_of_several_frames_share_repair_packets() -> None:
    sent = [data for frame in (65535, 65536) for data in packets(frame)]
    protected = protect(sent, overhead=0.25)
    assert len(protected) == 20
    assert read_repair(protected[-1]).group.runs == (Run(0, 0, 8), Run(1, 0, 8))
    lost = {0, 1, 2, 3}  # more than one frame alone could bear
    assert set(recovered([data for n, data in enumerate(protected) if n not in lost])) == set(sent)


def test_the_most_important_packets_have_repair_packets_of_their_own() -> None:
    sent = packets()
    protected = protect(sent, overhead=0.0, classes=[(2, 1.0), (4, 0.25)])
    groups = [read_repair(data).group for data in protected[8:]]
    assert [(group.runs[0].first, group.count) for group in groups] == [(0, 2), (0, 2), (2, 4)]
    assert set(recovered([*protected[3:6], *protected[8:]])) == set(sent[:6])
    assert protect(sent, overhead=0.0) == sent
    assert protect([], overhead=1.0) == []


def test_large_frames_are_protected_in_groups() -> None:
    sent = packets(data=stream(*[30] * 256), mtu_bytes=200)
    groups = [read_repair(data).group for data in protect(sent, overhead=0.01)[256:]]
    assert [(group.runs, group.count) for group in groups] == [
        ((Run(0, 0, 128),), 128),
        ((Run(0, 0, 128),), 128),
        ((Run(0, 128, 128),), 128),
        ((Run(0, 128, 128),), 128),
    ]
    long = packets(data=stream(*[60_000] * 100), mtu_bytes=65507)
    protected = protect(long, overhead=0.02, mtu_bytes=65507)
    assert [read_repair(data).group.count for data in protected[100:]] == [50, 50]
    assert len(recovered([*protected[1:50], *protected[100:]])) == 50


def test_repair_packets_keep_to_the_mtu_of_those_who_leave_room() -> None:
    room = DEFAULT_MTU_BYTES - REPAIR_OVERHEAD_BYTES
    for length in (3000, 3007, 4999):
        cut = packetise(stream(length, 40), stream_id=1, frame=0, mtu_bytes=room)
        assert max(map(len, protect(cut))) <= DEFAULT_MTU_BYTES
    with pytest.raises(PacketError, match=f"packetise with an mtu_bytes of {room}"):
        protect(packetise(stream(3000), stream_id=1, frame=0))


@pytest.mark.parametrize(
    "arguments", [{"overhead": -0.1}, {"overhead": 256.0}, {"overhead": float("nan")}, {"classes": [(0, 1.0)]}]
)
def test_impossible_arguments(arguments: dict[str, object]) -> None:
    with pytest.raises(PacketError, match="expected shares of"):
        protect(packets(), **arguments)  # type: ignore[arg-type]


def test_packets_that_do_not_belong_together() -> None:
    with pytest.raises(PacketError, match="those of one stream in order"):
        protect([*packets(), *packets(1, stream_id=2)])
    with pytest.raises(PacketError, match="those of one stream in order"):
        protect(packets()[::-1])
    with pytest.raises(PacketError, match="in at most 16 runs"):
        protect([packets(n)[0] for n in range(17)])
    with pytest.raises(PacketError, match="not a gosvae packet"):
        protect([b"noise"])


def test_the_library_is_asked_for_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "raptorq", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'gosvae\[link\]'"):
        protect(packets())


def test_every_truncation_and_every_flipped_bit_is_found() -> None:
    *_, repair = protect(packets(data=stream(3, 4, 5)))
    for length in range(len(repair)):
        with pytest.raises(PacketError):
            read_repair(repair[:length])
    for bit in range(8 * len(repair)):
        changed = bytearray(repair)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PacketError):
            read_repair(bytes(changed))


GROUP = Group(1, 0, (Run(0, 0, 8),), 240)


@pytest.mark.parametrize(
    ("group", "symbol_id"),
    [
        (GROUP, 7),  # one of the packets themselves
        (replace(GROUP, symbol_bytes=239), 8),
        (replace(GROUP, symbol_bytes=0), 8),
        (replace(GROUP, symbol_bytes=24), 8),  # shorter than any packet
        (replace(GROUP, runs=(Run(1, 0, 8),)), 8),
        (replace(GROUP, runs=(Run(0, 0, 0),)), 8),
        (replace(GROUP, runs=(Run(0, 65530, 8),)), 8),
        (replace(GROUP, runs=(Run(0, 0, 4), Run(0, 3, 4))), 8),
        (replace(GROUP, runs=(Run(0, 0, 4), Run(1, 0, 4), Run(0, 4, 4))), 12),
        (replace(GROUP, runs=(Run(0, 0, 200), Run(1, 0, 200))), 400),
        (replace(GROUP, runs=tuple(Run(n, 0, 1) for n in range(17))), 17),
        (replace(GROUP, runs=(Run(0, 0, 255),), symbol_bytes=20000), 300),
    ],
)
def test_intact_bytes_that_make_no_sense_are_refused(group: Group, symbol_id: int) -> None:
    with pytest.raises(PacketError, match=r"damaged|not a repair"):
        read_repair(RepairPacket(group, symbol_id, bytes(group.symbol_bytes)).to_bytes())


def test_versions_and_values_that_there_are_not() -> None:
    repair = protect(packets())[-1]
    with pytest.raises(PacketError, match="format 2, this gosvae reads 1"):
        read_repair(sealed(b"\xcb\x20" + repair[2:-4]))
    with pytest.raises(PacketError, match="cannot hold"):
        RepairPacket(replace(GROUP, runs=(Run(0, 0, 256),)), 8, bytes(8)).to_bytes()


def test_a_forged_symbol_never_makes_a_packet() -> None:
    protected = protect(packets())
    true = read_repair(protected[8])
    forged = replace(true, symbol=bytes(len(true.symbol)))
    recovery = Recovery()
    assert recovered([*protected[1:8], forged.to_bytes()], recovery) == protected[1:8]
    assert recovered([protected[8]], recovery) == []
    assert recovery.counters == RecoveryCounters(kept=1, late=1, given_up=1)


def test_symbols_that_decode_to_packets_of_another_place_are_not_given_back() -> None:
    elsewhere = protect(packets(5))
    repair = read_repair(elsewhere[8])
    moved = replace(repair, group=replace(repair.group, frame=6))
    mixed = packets(6)
    recovery = Recovery()
    # Frame 6 lacks packet 0; the symbol is of frame 5, so that what comes out is neither.
    assert recovered([*mixed[1:], moved.to_bytes()], recovery) == mixed[1:]
    assert recovery.counters.given_up == 1
    one = protect(packets(5)[:1], overhead=1.0)[1]
    stolen = replace(read_repair(one), group=replace(read_repair(one).group, frame=6))
    assert recovered([stolen.to_bytes()], recovery) == [], "an intact packet, but not that of frame 6"
    assert recovery.counters.given_up == 2


def test_packets_longer_than_the_symbols_contradict_the_group() -> None:
    protected = protect(packets())
    repair = read_repair(protected[8])
    short = replace(repair, group=replace(repair.group, symbol_bytes=80), symbol=repair.symbol[:80])
    recovery = Recovery()
    recovered(protected[1:4], recovery)
    assert recovered([short.to_bytes()], recovery) == []
    assert recovery.counters == RecoveryCounters(unusable=1)
    recovery = Recovery()
    assert recovered([short.to_bytes(), *protected[1:8]], recovery) == protected[1:8]
    assert recovery.counters == RecoveryCounters(kept=1, given_up=1)


def test_a_packet_is_in_a_few_groups_only() -> None:
    recovery = Recovery()
    lengths = range(32, 88, 8)
    forged = [RepairPacket(replace(GROUP, symbol_bytes=n), 8, bytes(n)).to_bytes() for n in lengths]
    assert recovered(forged, recovery) == []
    assert recovery.counters == RecoveryCounters(kept=4, unusable=3)


def forged_group(number: int, count: int = 255) -> list[bytes]:
    """As many repair packets as a group has packets, with nothing true in them, in the shortest symbols."""
    group = Group(number, 0, (Run(0, 0, count),), LEAST_SYMBOL_BYTES)
    return [RepairPacket(group, count + n, bytes([n % 256]) * LEAST_SYMBOL_BYTES).to_bytes() for n in range(count)]


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of packets of the groups that are decoded."""
    seen: list[int] = []
    real = recovery_module.recover

    def counted(group: Group, symbols: list[tuple[int, bytes]]) -> list[bytes] | None:
        seen.append(group.count)
        return real(group, symbols)

    monkeypatch.setattr(recovery_module, "recover", counted)
    return seen


def test_large_groups_are_not_decoded_from_repair_packets_alone(attempts: list[int]) -> None:
    recovery = Recovery()
    for number in range(3):
        assert recovered(forged_group(number), recovery) == []
    assert attempts == []
    one_packet = protect(packets()[:1], overhead=1.0)
    assert recovered(one_packet[1:], recovery) == one_packet[:1]
    assert attempts == [1]


def test_decoding_takes_no_more_than_its_share_of_time(attempts: list[int]) -> None:
    """Every attempt takes 10 ms of processor time; a stream has 50 ms at once and then 5 ms each 100 ms."""
    now_s = used_s = 0.0

    def timer() -> float:
        nonlocal used_s
        used_s += 0.005  # at the beginning and at the end of an attempt
        return used_s

    allowance = Allowance(clock=lambda: now_s, timer=timer)
    recovery = Recovery(max_groups=60_000, max_bytes=2**30, allowance=allowance)

    def attack(stream_id: int, frames: range) -> None:
        for frame in frames:
            sent = packetise(EIGHT, stream_id=stream_id, frame=frame, slices_per_packet=1)
            group = Group(stream_id, frame, (Run(0, 0, 8),), 240)
            wrong = [RepairPacket(group, 8 + n, bytes(240)).to_bytes() for n in range(7)]
            recovered([sent[0], *wrong], recovery)

    attack(1, range(100))
    assert len(attempts) == 10  # each takes 5 ms by this timer
    attack(2, range(100))
    assert len(attempts) == 20, "another stream has its own"
    for stream_id in range(3, 300):
        attack(stream_id, range(2))
    assert len(attempts) == 40, "all streams together have 200 ms"
    now_s = 1.0
    for stream_id in range(300, 600):
        attack(stream_id, range(2))
    assert len(attempts) == 80, "and 200 ms more each second"
    assert recovery.counters.deferred > 500


def test_memory_is_bounded_and_given_back() -> None:
    recovery = Recovery(max_frames=8, max_groups=6, max_bytes=30_000)
    for frame in range(200):
        for data in protect(packets(frame), overhead=0.5)[frame % 5 : 11]:
            recovery.add(data)
            assert recovery.bytes_kept <= 30_000
    for n in range(2000):  # repair packets of one group, and of many
        group = replace(GROUP, frame=n % 7, stream_id=n // 1000)
        recovery.add(RepairPacket(group, 8 + n, bytes(240)).to_bytes())
        assert recovery.bytes_kept <= 30_000
    assert recovery.counters.evicted > 0
    tiny = Recovery(max_bytes=1)
    assert recovered(protect(packets()), tiny) == packets()
    assert tiny.bytes_kept == 0


def test_the_frames_that_came_first_are_forgotten_first() -> None:
    recovery = Recovery(max_frames=2)
    sent = {frame: protect(packets(frame)) for frame in range(3)}
    for frame in range(3):
        recovered(sent[frame][2:8], recovery)
    assert recovered(sent[0][8:], recovery) == []
    assert set(recovered(sent[2][8:], recovery)) == set(sent[2][:2])


@pytest.mark.parametrize("limits", [{"max_frames": 0}, {"max_groups": 0}, {"max_bytes": 0}, {"max_frames": 2**16}])
def test_limits_that_allow_nothing_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected at least 1 of each"):
        Recovery(**limits)


def test_everything_else_is_passed_on() -> None:
    recovery = Recovery()
    noise = [b"", b"\xca", b"noise", packets()[0][:-1], EIGHT]
    assert recovered([*noise, b"\xcb"], recovery) == noise
    assert recovery.counters == RecoveryCounters(damaged=1)
    assert recovery.bytes_kept == 0


def test_recovered_packets_read_as_what_was_sent() -> None:
    sent = packets(9)
    protected = protect(sent)
    back = recovered([*protected[2:]])
    assert {read_packet(data).index for data in back} == set(range(8))
