"""Packets: the layout to the byte, what is grouped and split, and what is refused."""

from __future__ import annotations

import zlib
from dataclasses import replace

import pytest

from gosvae.bitstream import Header, pack, pack_slices
from gosvae.errors import BitstreamError, PacketError
from gosvae.packets import FrameInfo, Packet, Part, Reassembler, packetise, read_packet
from gosvae.seeding import numpy_generator

HEADER = Header(bytes.fromhex("dd56de41"), 12, 13, 3)
STREAM = pack_slices(HEADER, [b"ab", b"", b"cde"], "interleaved")


def slices(*lengths: int) -> list[bytes]:
    generator = numpy_generator(*lengths)
    return [generator.bytes(n) for n in lengths]


def sealed(body: bytes) -> bytes:
    """Bytes with a checksum that agrees."""
    return body + zlib.crc32(body).to_bytes(4, "big")


def test_the_layout_of_whole_slices_to_the_byte() -> None:
    """The example of docs/link.md."""
    (packet,) = packetise(STREAM, stream_id=0x01020304, frame=65536 + 7)
    beginning = "ca 21 01020304 0007 0000 0001 03 dd56de41 000b 000c 02"
    table = "02 00 0002 01 0000 02"  # 2 + 1 slices: number 0 of 2 bytes, number 1 of 0 bytes, number 2
    body = bytes.fromhex(beginning) + zlib.crc32(STREAM).to_bytes(4, "big") + bytes.fromhex(table)
    assert packet == sealed(body + b"abcde")
    assert packet.hex() == "ca210102030400070000000103dd56de41000b000c028988f1c4020000020100000261626364650fe0ebe9"


def test_packets_of_version_1_are_read_for_ever() -> None:
    """They have no checksum of the stream."""
    old = bytes.fromhex("ca110102030400070000000103dd56de41000b000c0202000002010000026162636465a99d6633")
    packet = read_packet(old)
    assert packet.to_bytes() == old
    assert packet.info.checksum is None
    assert [(part.number, part.data) for part in packet.parts] == [(0, b"ab"), (1, b""), (2, b"cde")]
    (frame,) = Reassembler().add(old)
    assert (frame.stream, frame.missing) == (STREAM, ())
    with pytest.raises(PacketError, match=r"damaged: 3\d bytes are too few for a packet of format 2"):
        read_packet(sealed(bytes([0xCA, 0x20]) + old[2:24] + bytes(2)))


def test_the_layout_of_a_part_to_the_byte() -> None:
    data = bytes(range(100))
    first, *_, last = packetise(pack_slices(HEADER, [data]), stream_id=1, frame=2, mtu_bytes=64)
    beginning = bytes.fromhex("ca 22 00000001 0002 0000 0004 03 dd56de41 000b 000c 00")
    beginning += zlib.crc32(pack_slices(HEADER, [data])).to_bytes(4, "big")
    assert first == sealed(beginning + bytes.fromhex("00 00000064 00000000") + data[:25])
    beginning = beginning[:8] + bytes([0, 3]) + beginning[10:]
    assert last == sealed(beginning + bytes.fromhex("00 00000064 0000004b") + data[75:])


def test_a_packet_of_two_layers_counts_the_slices_of_the_second() -> None:
    layered = pack_slices(HEADER, [b"ab", b"", b"cde"], "interleaved", 2)
    (packet,) = packetise(layered, stream_id=0x01020304, frame=65536 + 7)
    one_layer = packetise(STREAM, stream_id=0x01020304, frame=65536 + 7)[0]
    checksum = zlib.crc32(layered).to_bytes(4, "big")
    assert packet == sealed(one_layer[:1] + b"\x25" + one_layer[2:22] + checksum + b"\x01" + one_layer[26:-4])
    assert read_packet(packet).info.detail_count == 2
    for mtu_bytes in (64, 65, 66, 1200):
        packets = packetise(
            pack_slices(HEADER, slices(30, 31, 500), "bands", 1), stream_id=1, frame=2, mtu_bytes=mtu_bytes
        )
        assert max(map(len, packets)) <= mtu_bytes
        assert [read_packet(packet).to_bytes() for packet in packets] == packets
    for count in (2, 255):
        with pytest.raises(PacketError, match=f"damaged: {count + 1} slices for detail of 3"):
            read_packet(sealed(packet[:26] + bytes([count]) + packet[27:-4]))


def test_slices_share_packets_up_to_the_mtu_and_long_ones_are_split() -> None:
    payloads = slices(400, 400, 341, 400, 1168, 1169, 10)
    stream = pack_slices(HEADER, payloads)
    packets = packetise(stream, stream_id=1, frame=2)
    numbers = [[(p.number, p.offset) for p in read_packet(packet).parts] for packet in packets]
    # 400 + 400 + 341 bytes would be 1179 with everything around them; one more 400 does not fit.
    assert numbers == [[(0, 0), (1, 0), (2, 0)], [(3, 0)], [(4, 0)], [(5, 0)], [(5, 1161)], [(6, 0)]]
    assert [len(packet) for packet in packets] == [1179, 432, 1200, 1200, 47, 42]
    assert [read_packet(packet).index for packet in packets] == list(range(6))
    assert {read_packet(packet).info for packet in packets} == {FrameInfo(HEADER, "bands", 7, 6, zlib.crc32(stream))}


def test_one_packet_for_each_slice_if_so_wanted() -> None:
    stream = pack_slices(HEADER, slices(*[192] * 8), "interleaved")
    packets = packetise(stream, stream_id=1, frame=2, slices_per_packet=1)
    assert [len(packet) for packet in packets] == [192 + 32] * 8
    assert len(packetise(stream, stream_id=1, frame=2, slices_per_packet=3)) == 3


@pytest.mark.parametrize("mtu_bytes", [64, 65, 200, 1200, 65507])
def test_no_packet_is_longer_than_the_mtu(mtu_bytes: int) -> None:
    payloads = slices(0, 1, 36, 37, 5000, 172, 173, 70000, 0)
    packets = packetise(pack_slices(HEADER, payloads), stream_id=1, frame=2, mtu_bytes=mtu_bytes)
    assert max(map(len, packets)) <= mtu_bytes
    assert max(map(len, packets)) > mtu_bytes - 30


def test_a_stream_of_version_1_travels_as_one_of_version_2() -> None:
    header = replace(HEADER, fingerprint=b"12345678")
    (packet,) = packetise(pack(header, b"payload", version=1), stream_id=1, frame=0)
    assert read_packet(packet).info.header.fingerprint == b"1234"
    assert read_packet(packet).parts[0].data == b"payload"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"mtu_bytes": 63}, "packets of 63 bytes: expected 64..65507"),
        ({"mtu_bytes": 65508}, "expected 64..65507"),
        ({"stream_id": 2**32}, "stream id 4294967296"),
        ({"frame": -1}, "frame -1"),
        ({"slices_per_packet": 0}, "0 slices in a packet"),
    ],
)
def test_impossible_arguments(arguments: dict[str, int], said: str) -> None:
    with pytest.raises(PacketError, match=said):
        packetise(STREAM, **{"stream_id": 1, "frame": 1, **arguments})


def test_streams_that_cannot_travel() -> None:
    with pytest.raises(BitstreamError, match="damaged"):
        packetise(pack_slices(HEADER, [b"ab", None]), stream_id=1, frame=1)
    with pytest.raises(PacketError, match="takes 80000 packets, at most 65535"):
        packetise(pack_slices(HEADER, [bytes(2_000_000)]), stream_id=1, frame=1, mtu_bytes=64)


def info(**more: object) -> FrameInfo:
    return replace(FrameInfo(HEADER, "bands", 3, 2), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "packet",
    [
        Packet(1, 1, 2, info(), (Part(0, 0, 1, b"a"),)),  # packet 2 of 2
        Packet(1, 1, 9, info(), (Part(0, 0, 1, b"a"),)),  # packet 9 of 2
        Packet(1, 1, 0, info(packet_count=0), (Part(0, 0, 1, b"a"),)),
        Packet(1, 1, 0, info(), (Part(3, 0, 1, b"a"),)),  # slice 3 of 3
        Packet(1, 1, 0, info(), (Part(1, 0, 1, b"a"), Part(1, 0, 1, b"a"))),
        Packet(1, 1, 0, info(), (Part(2, 0, 1, b"a"), Part(1, 0, 1, b"a"))),
        Packet(1, 1, 0, info(layout="interleaved", slice_count=1), (Part(0, 0, 1, b"a"),)),
        Packet(1, 1, 0, info(header=replace(HEADER, height=65535, width=65535)), (Part(0, 0, 1, b"a"),)),
        Packet(1, 1, 0, info(), (Part(0, 5, 6, b"ab"),)),  # reaches beyond the end
        Packet(1, 1, 0, info(), (Part(0, 5, 6, b""),)),
    ],
)
def test_intact_bytes_that_make_no_sense_are_refused(packet: Packet) -> None:
    with pytest.raises(PacketError, match="damaged"):
        read_packet(packet.to_bytes())


def test_a_part_that_is_the_whole_slice_is_refused() -> None:
    """There is one way to write each packet."""
    beginning = bytes.fromhex("ca 12 00000001 0002 0000 0004 03 dd56de41 000b 000c 00")
    with pytest.raises(PacketError, match="5 bytes at 0 are no part of a slice of 5"):
        read_packet(sealed(beginning + bytes.fromhex("00 00000005 00000000") + b"whole"))
    with pytest.raises(PacketError, match="a part of a slice without any bytes"):
        read_packet(sealed(beginning + bytes.fromhex("00 00000005 00000000")))
    with pytest.raises(PacketError, match="a table of 201 slices"):
        read_packet(sealed(bytes([0xCA, 0x10]) + beginning[2:] + b"\xc8" + b"whole"))
    with pytest.raises(PacketError, match="longer than their packet"):
        read_packet(sealed(bytes([0xCA, 0x10]) + beginning[2:] + bytes([1, 0, 0, 9, 1]) + b"whole"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "0 bytes that begin with nothing"),
        (STREAM, "begin with c7 23"),
        (sealed(b"\xca" * 30), "format 12, this gosvae reads 1 to 2"),
        (b"\xca" * 40, "checksum"),
    ],
)
def test_what_is_no_packet(data: bytes, said: str) -> None:
    with pytest.raises(PacketError, match=said):
        read_packet(data)


def test_every_truncation_and_every_flipped_bit_is_found() -> None:
    for packet in packetise(pack_slices(HEADER, slices(3, 50, 5)), stream_id=1, frame=2, mtu_bytes=64):
        for length in range(len(packet)):
            with pytest.raises(PacketError):
                read_packet(packet[:length])
        for bit in range(8 * len(packet)):
            changed = bytearray(packet)
            changed[bit // 8] ^= 1 << bit % 8
            with pytest.raises(PacketError):
                read_packet(bytes(changed))
        with pytest.raises(PacketError):
            read_packet(packet + b"\0")


def test_values_that_no_packet_holds() -> None:
    with pytest.raises(PacketError, match="cannot hold"):
        Packet(1, 70000, 0, info(), (Part(0, 0, 1, b"a"),)).to_bytes()
    with pytest.raises(PacketError, match="cannot hold"):
        Packet(1, 1, 0, info(), (Part(300, 0, 1, b"a"),)).to_bytes()
