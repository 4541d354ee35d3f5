"""The container: exact layout of both versions, and a message that says which kind of bad file it is."""

from __future__ import annotations

import struct
import zlib

import pytest

from gosvae.bitstream import (
    Header,
    check_fingerprint,
    pack,
    pack_slices,
    payload_bytes,
    salvage,
    unpack,
    unpack_slices,
)
from gosvae.errors import BitstreamError, ForeignStreamError

HEADER = Header(bytes(range(8)), 256, 512, 1)
SHORT = Header(bytes(range(4)), 256, 512, 1)
FIRST = pack(HEADER, b"payload", version=1)
STREAM = pack(HEADER, b"payload")
PAYLOADS = [b"the first", b"", b"the third", b"4"]
SLICED = pack_slices(HEADER, PAYLOADS, "interleaved")
TABLE = 11
"""Where the table of slices begins in SLICED."""


def with_checksum(body: bytes) -> bytes:
    return body + struct.pack(">I", zlib.crc32(body))


def test_the_layout_of_version_1_is_the_documented_one() -> None:
    body = b"GSVA" + bytes([1, 1]) + bytes(range(8)) + bytes([1, 0, 2, 0]) + bytes([7]) + b"payload"
    assert with_checksum(body) == FIRST


def test_the_layout_of_version_2_is_the_documented_one() -> None:
    beginning = bytes([0x20, 1, 0, 1, 2, 3]) + b"\xff\x01" + b"\xff\x03"
    assert with_checksum(b"\xc7" + beginning + b"payload") == STREAM
    table = b"".join(bytes([len(p)]) + struct.pack(">I", zlib.crc32(p)) for p in PAYLOADS)
    for layout, flags in (("bands", b"\x21"), ("interleaved", b"\x23")):
        expected = with_checksum(b"\xc7" + flags + beginning[1:] + b"\x02" + table) + b"".join(PAYLOADS)
        assert pack_slices(HEADER, PAYLOADS, "bands" if layout == "bands" else "interleaved") == expected


@pytest.mark.parametrize("n_bytes", [0, 1, 127, 128, 16383, 16384, 3_000_000])
def test_round_trip_of_payload_lengths(n_bytes: int) -> None:
    payload = bytes(n_bytes)
    data = pack(HEADER, payload, version=1)
    assert unpack(data) == (HEADER, payload)
    assert len(data) - payload_bytes(data) == 22 + max(1, -(-n_bytes.bit_length() // 7))
    data = pack(HEADER, payload)
    assert unpack(data) == (SHORT, payload)
    assert (payload_bytes(data), len(data)) == (n_bytes, n_bytes + 15)
    data = pack_slices(HEADER, [payload, b"another"])
    stream = unpack_slices(data)
    assert (stream.version, stream.header, stream.layout, stream.damaged) == (2, SHORT, "bands", ())
    assert stream.payloads == (payload, b"another")
    assert payload_bytes(data) == n_bytes + 7


@pytest.mark.parametrize("sides", [(1, 1), (16384, 16384), (1, 65535), (65535, 4096), (128, 129), (16385, 16383)])
def test_no_header_takes_more_than_16_bytes(sides: tuple[int, int]) -> None:
    header = Header(bytes(4), *sides, entropy_model_id=255)
    data = pack(header, b"payload")
    assert unpack(data) == (header, b"payload")
    assert len(data) - payload_bytes(data) <= 16
    assert unpack_slices(pack_slices(header, PAYLOADS)).header == header


def test_version_1_holds_any_two_sides_and_version_2_so_many_pixels() -> None:
    header = Header(bytes(8), 65535, 65535, entropy_model_id=255)
    assert unpack(pack(header, b"", version=1))[0] == header
    for sides in ((65535, 65535), (16384, 16385)):
        with pytest.raises(BitstreamError, match=rf"{sides[0]}x{sides[1]} pixels, .* at most 268435456"):
            pack(Header(bytes(8), *sides, entropy_model_id=1), b"")
    crafted = with_checksum(b"\xc7\x20" + bytes(5) + 2 * b"\xfe\xff\x03" + b"payload")
    with pytest.raises(BitstreamError, match="65535x65535 pixels"):
        unpack(crafted)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((bytes(7), 1, 1, 0), "fingerprint of 7 bytes"),
        ((bytes(8), 0, 1, 0), "0x1 pixels"),
        ((bytes(8), 1, 65536, 0), "1x65536 pixels"),
        ((bytes(8), 1, 1, 256), "entropy model id 256"),
    ],
)
def test_headers_that_do_not_fit(values: tuple[bytes, int, int, int], message: str) -> None:
    with pytest.raises(BitstreamError, match=message):
        Header(*values)


def test_containers_that_cannot_be_written() -> None:
    with pytest.raises(BitstreamError, match="container version 3"):
        pack(HEADER, b"", version=3)
    with pytest.raises(BitstreamError, match="with a fingerprint of 4 bytes"):
        pack(SHORT, b"", version=1)
    for count in (0, 257):
        with pytest.raises(BitstreamError, match=rf"{count} slices, a stream holds 1..256"):
            pack_slices(HEADER, [b""] * count)
    assert len(unpack_slices(pack_slices(HEADER, [b"x"] * 256)).slices) == 256


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (FIRST[:3], "truncated"),
        (FIRST[:4], "truncated"),
        (FIRST[:18], "truncated"),
        (FIRST[:-1], "truncated: 29 bytes where the header announces 30"),
        (FIRST + b"\n", "extended: 31 bytes where the header announces 30"),
        (FIRST[:20] + b"X" + FIRST[21:], "damaged: the checksum"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "not a gosvae stream: it begins with 89 50 .*this looks like a PNG"),
        (b"\xff\xd8\xff\xe0", "looks like a JPEG"),
        (b"\0\0\0\x20ftypavif", "looks like an AVIF"),
        (b"hello", "not a gosvae stream: it begins with 68 65 6c 6c 6f$"),
        (b"GSVA\x00" + FIRST[5:], "damaged: GSVA begins .* here 0 follows"),
        (b"GSVA\x02" + FIRST[5:], "damaged: GSVA begins .* here 2 follows"),
        (with_checksum(FIRST[:18] + b"\x87\x00payload"), "length field"),
        (with_checksum(FIRST[:18] + b"\xff" * 5), "length field"),
        (with_checksum(FIRST[:14] + bytes(4) + FIRST[18:-4]), "image of 0x0 pixels"),
        (STREAM[:1], "truncated"),
        (STREAM[:6], "truncated: 6 bytes end inside the header"),
        (STREAM[:10], "truncated"),
        (STREAM[:14], "truncated"),
        (STREAM[:-1], "truncated or damaged: the checksum"),
        (STREAM + b"\n", "truncated or damaged: the checksum"),
        (STREAM[:15] + b"X" + STREAM[16:], "truncated or damaged: the checksum"),
        (b"\xc7\x10" + STREAM[2:], "damaged: format version 1"),
        (b"\xc7\x30" + STREAM[2:], "damaged: format version 3"),
        (with_checksum(b"\xc7\x22" + STREAM[2:-4]), "flags 0010"),
        (with_checksum(b"\xc7\x24" + STREAM[2:-4]), "flags 0100"),
        (with_checksum(STREAM[:7] + b"\x80\x00" + STREAM[9:-4]), "height field"),
        (with_checksum(STREAM[:7] + b"\xff\xff\xff" + STREAM[9:-4]), "height field"),
        (with_checksum(STREAM[:9] + b"\xff\xff\x03" + STREAM[11:-4]), "width field"),
        (SLICED[: TABLE + 7], "truncated: 18 bytes end inside the header"),
        (SLICED[:-1], "truncated: 54 bytes where the header announces 55"),
        (SLICED + b"\n", "extended: 56 bytes where the header announces 55"),
        (SLICED[:-1] + b"5", "damaged: the checksum of slice 3 of 4"),
        (SLICED[: TABLE + 3] + b"?" + SLICED[TABLE + 4 :], "damaged: the checksum of the header"),
        (SLICED[:TABLE] + b"\xff\x01" + SLICED[TABLE + 1 :], "slice count field"),
    ],
)
def test_each_bad_file_is_named(data: bytes, message: str) -> None:
    for reader in (unpack, unpack_slices):
        with pytest.raises(BitstreamError, match=message):
            reader(data)


def test_a_newer_version_is_told_from_damage() -> None:
    with pytest.raises(
        ForeignStreamError, match=r"made by a newer gosvae \(format 3\), this one reads up to 2: upgrade"
    ):
        unpack(with_checksum(b"\xc7\x3f whatever comes then"))


def test_intact_slices_are_given_and_the_damaged_ones_named() -> None:
    start = len(SLICED) - len(b"".join(PAYLOADS))
    assert salvage(SLICED) == unpack_slices(SLICED)
    assert salvage(STREAM) == unpack_slices(STREAM)
    assert salvage(FIRST).slices == (b"payload",)
    damaged = SLICED[:start] + b"T" + SLICED[start + 1 :]
    assert salvage(damaged).slices == (None, *PAYLOADS[1:])
    assert salvage(damaged).damaged == (0,)
    cut = salvage(SLICED[: start + 12])
    assert (cut.slices, cut.damaged) == ((b"the first", b"", None, None), (2, 3))
    assert salvage(SLICED + b"more") == unpack_slices(SLICED)
    swapped = SLICED[:start] + b"the third" + b"the first" + b"4"
    assert salvage(swapped).damaged == (0, 2)
    with pytest.raises(BitstreamError, match="the header is intact, but none of the 2 slices"):
        salvage(pack_slices(HEADER, [b"one", b"two"])[:-6])
    for damage in (STREAM[:-1], FIRST[:-1], SLICED[:8] + b"\x02" + SLICED[9:]):
        with pytest.raises(BitstreamError):
            salvage(damage)


def test_slices_that_were_lost_are_missing_also_where_an_empty_one_would_be_right() -> None:
    data = pack_slices(HEADER, [b"one", None, b"", None])
    assert salvage(data).slices == (b"one", None, b"", None)
    assert len(data) == len(pack_slices(HEADER, [b"one", b"", b"", b""]))
    with pytest.raises(BitstreamError, match="the checksum of slice 1, 3 of 4"):
        unpack_slices(data)
    for lost in ([None], [None, None]):
        with pytest.raises(BitstreamError, match="slices are lost"):
            pack_slices(HEADER, lost)


def test_the_layout_of_two_layers_is_the_documented_one() -> None:
    table = b"".join(bytes([len(p)]) + struct.pack(">I", zlib.crc32(p)) for p in PAYLOADS)
    for layout, flags in (("bands", b"\x25"), ("interleaved", b"\x27")):
        expected = b"\xc7" + flags + bytes([1, 0, 1, 2, 3]) + b"\xff\x01\xff\x03" + b"\x02\x00" + table
        data = pack_slices(HEADER, PAYLOADS, "bands" if layout == "bands" else "interleaved", 1)
        assert data == with_checksum(expected) + b"".join(PAYLOADS)
        stream = unpack_slices(data)
        assert (stream.task.slices, stream.detail) == (tuple(PAYLOADS[:3]), (PAYLOADS[3],))
        assert (stream.task.layout, stream.task.detail_count, stream.task.detail) == (layout, 0, ())
        assert salvage(data[:-1]).detail == (None,)
    for count in (-1, 4, 5):
        with pytest.raises(BitstreamError, match="at least one is of the task layer"):
            pack_slices(HEADER, PAYLOADS, "bands", count)
    with pytest.raises(BitstreamError, match="at least one is of the task layer"):
        pack_slices(HEADER, PAYLOADS[:1], "bands", 1)
    forged = b"\xc7\x25" + bytes([1, 0, 1, 2, 3]) + b"\xff\x01\xff\x03" + b"\x02\x03" + table
    with pytest.raises(BitstreamError, match="the detail count field is not valid"):
        unpack_slices(with_checksum(forged) + b"".join(PAYLOADS))
    for flags in (b"\x22", b"\x24", b"\x26", b"\x28"):
        with pytest.raises(BitstreamError, match="the flags"):
            unpack_slices(with_checksum(b"\xc7" + flags + forged[2:]))


def test_one_payload_is_asked_for_and_several_are_there() -> None:
    with pytest.raises(BitstreamError, match="a stream of 4 slices where one is expected"):
        unpack(SLICED)


def test_a_codec_refuses_the_stream_of_another() -> None:
    for header in (HEADER, SHORT):
        check_fingerprint(header, bytes(range(8)))
        check_fingerprint(header, bytes(range(32)))
    with pytest.raises(ForeignStreamError, match=r"0001020304050607.*ffffffffffffffff;"):
        check_fingerprint(HEADER, b"\xff" * 32)
    with pytest.raises(ForeignStreamError, match=r"is 00010203, .*is ffffffff;"):
        check_fingerprint(SHORT, b"\xff" * 32)


def test_every_byte_of_a_fingerprint_counts() -> None:
    for header in (HEADER, SHORT):
        for place in range(len(header.fingerprint)):
            other = bytearray(range(32))
            other[place] ^= 1
            with pytest.raises(ForeignStreamError):
                check_fingerprint(header, bytes(other))


def test_a_payload_of_4_gib_is_refused() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return 2**32

    for version in (1, 2):
        with pytest.raises(BitstreamError, match="4 GiB"):
            pack(HEADER, Huge(), version=version)
