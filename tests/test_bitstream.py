"""The container: exact layout, and a message that says which kind of bad file it is."""

from __future__ import annotations

import struct
import zlib

import pytest

from gosvae.bitstream import Header, check_fingerprint, header_bytes, pack, unpack
from gosvae.errors import BitstreamError, ForeignStreamError

HEADER = Header(bytes(range(8)), 256, 512, 1)
STREAM = pack(HEADER, b"payload")


def with_checksum(body: bytes) -> bytes:
    return body + struct.pack(">I", zlib.crc32(body))


def test_the_layout_is_the_documented_one() -> None:
    body = b"GSVA" + bytes([1, 1]) + bytes(range(8)) + bytes([1, 0, 2, 0]) + bytes([7]) + b"payload"
    assert with_checksum(body) == STREAM


@pytest.mark.parametrize("n_bytes", [0, 1, 127, 128, 16383, 16384, 3_000_000])
def test_round_trip_of_payload_lengths(n_bytes: int) -> None:
    payload = bytes(n_bytes)
    data = pack(HEADER, payload)
    assert unpack(data) == (HEADER, payload)
    assert header_bytes(data) == len(data) - n_bytes == 22 + max(1, -(-n_bytes.bit_length() // 7))


@pytest.mark.parametrize("sides", [(1, 1), (65535, 65535), (1, 5000)])
def test_extreme_sizes(sides: tuple[int, int]) -> None:
    header = Header(bytes(8), *sides, entropy_model_id=255)
    assert unpack(pack(header, b""))[0] == header


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


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (STREAM[:3], "truncated"),
        (STREAM[:4], "truncated"),
        (STREAM[:18], "truncated"),
        (STREAM[:-1], "truncated: 29 bytes where the header announces 30"),
        (STREAM + b"\n", "extended: 31 bytes where the header announces 30"),
        (STREAM[:20] + b"X" + STREAM[21:], "damaged: the checksum"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "not a gosvae stream: it begins with 89 50 .*this looks like a PNG"),
        (b"\xff\xd8\xff\xe0", "looks like a JPEG"),
        (b"\0\0\0\x20ftypavif", "looks like an AVIF"),
        (b"hello", "not a gosvae stream: it begins with 68 65 6c 6c 6f$"),
        (b"GSVA\x00" + STREAM[5:], "damaged: format version 0"),
        (b"GSVA\x02" + STREAM[5:], "damaged: format version 2"),
        (with_checksum(STREAM[:18] + b"\x87\x00payload"), "length field"),
        (with_checksum(STREAM[:18] + b"\xff" * 5), "length field"),
        (with_checksum(STREAM[:14] + bytes(4) + STREAM[18:-4]), "image of 0x0 pixels"),
    ],
)
def test_each_bad_file_is_named(data: bytes, message: str) -> None:
    with pytest.raises(BitstreamError, match=message):
        unpack(data)


def test_a_newer_version_is_told_from_damage() -> None:
    with pytest.raises(
        ForeignStreamError, match=r"made by a newer gosvae \(format 2\), this one reads up to 1: upgrade"
    ):
        unpack(with_checksum(b"GSVA\x02 whatever comes then"))


def test_a_codec_refuses_the_stream_of_another() -> None:
    check_fingerprint(HEADER, bytes(range(8)))
    check_fingerprint(HEADER, bytes(range(32)))
    with pytest.raises(ForeignStreamError, match=r"0001020304050607.*ffffffffffffffff;"):
        check_fingerprint(HEADER, b"\xff" * 32)


def test_a_payload_of_4_gib_is_refused() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return 2**32

    with pytest.raises(BitstreamError, match="4 GiB"):
        pack(HEADER, Huge())
