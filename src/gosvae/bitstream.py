"""Container of streams: header and checksums around the payload, so that a stream is never taken for something else.

Version 2 is written; version 1 is read for ever. `docs/bitstream.md` has the exact layout of both.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gosvae.errors import BitstreamError, ForeignStreamError
from gosvae.fields import CRC, FieldReader, varint

MAGIC = 0xC7
"""First byte of streams of version 2 and later: `G` with the top bit set.

No UTF-8 text begins with this byte and a version byte.
"""
MAGIC_1 = b"GSVA"
"""First bytes of streams of version 1."""
VERSION = 2
"""Newest version of the container, in which streams are written."""
FINGERPRINT_BYTES = 8
"""Length of a codec's fingerprint, the beginning of its SHA-256, as codecs keep it and version 1 holds it."""
SHORT_FINGERPRINT_BYTES = 4
"""Length of the fingerprint in version 2.

The probability that a stream is taken for one of another given codec is 2**-32.
"""
MAX_SIDE = 65535
"""Largest height or width of an image, in pixels."""
MAX_PIXELS = 2**28
"""Largest number of pixels of an image in version 2, such as 16384x16384; the header takes at most 16 bytes."""
MAX_SLICES = 256
"""Largest number of slices of a stream."""

SliceLayout = Literal["bands", "interleaved"]
"""Layout of the slices: bands of consecutive rows of the index grid, or every n-th row and column."""

_FIXED_1 = struct.Struct(f">4sBB{FINGERPRINT_BYTES}sHH")
_FIXED_2 = struct.Struct(f">BBB{SHORT_FINGERPRINT_BYTES}s")
_SLICED, _INTERLEAVED, _LAYERED = 1, 2, 4
_LOST = b"\0\xff\xff\xff\xff"
"""Entry of a lost slice in the table of slices: length 0, with a checksum that empty data does not have."""

_OTHER_FORMATS = {
    b"\x89PNG": "a PNG",
    b"\xff\xd8\xff": "a JPEG",
    b"RIFF": "a WebP",
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"\xff\x0a": "a JPEG XL",
    b"\x00\x00\x00\x0cJXL ": "a JPEG XL",
    b"II*\x00": "a TIFF",
    b"MM\x00*": "a TIFF",
    b"PK\x03\x04": "a zip file",
    b"\x1f\x8b": "a gzip file",
}


@dataclass(frozen=True)
class Header:
    """Values that a decoder needs before it reads the payload.

    Attributes:
        fingerprint: first 8 bytes of the SHA-256 of the codec (configuration and weights); 4 in a version 2 stream.
        height, width: true size of the image in pixels, 1..65535.
        entropy_model_id: id of the entropy model that made the payload, 0..255.

    Raises:
        BitstreamError: a value that the container cannot hold.
    """

    fingerprint: bytes
    height: int
    width: int
    entropy_model_id: int

    def __post_init__(self) -> None:
        if len(self.fingerprint) not in (SHORT_FINGERPRINT_BYTES, FINGERPRINT_BYTES):
            raise BitstreamError(f"codec fingerprint of {len(self.fingerprint)} bytes, expected {FINGERPRINT_BYTES}")
        if not (1 <= self.height <= MAX_SIDE and 1 <= self.width <= MAX_SIDE):
            raise BitstreamError(f"image of {self.height}x{self.width} pixels, a stream holds 1..{MAX_SIDE} a side")
        if not 0 <= self.entropy_model_id <= 255:
            raise BitstreamError(f"entropy model id {self.entropy_model_id}, expected 0..255")


@dataclass(frozen=True)
class Stream:
    """The contents of a stream.

    Attributes:
        version: version of the container.
        header: header, which all slices share.
        layout: layout of the slices; `bands` if there is only one slice.
        slices: payload of every slice in order; None if it is damaged or missing.
        detail_count: number of slices of the detail layer, which are the last ones; 0 in a stream of one layer.
    """

    version: int
    header: Header
    layout: SliceLayout
    slices: tuple[bytes | None, ...]
    detail_count: int = 0

    @property
    def task(self) -> Stream:
        """The same stream without its detail layer."""
        count = len(self.slices) - self.detail_count
        return replace(self, slices=self.slices[:count], detail_count=0)

    @property
    def detail(self) -> tuple[bytes | None, ...]:
        """Payloads of the slices of the detail layer, in order; None if one is damaged or missing."""
        return self.slices[len(self.slices) - self.detail_count :]

    @property
    def payloads(self) -> tuple[bytes, ...]:
        """The slices that are intact, in order."""
        return tuple(payload for payload in self.slices if payload is not None)

    @property
    def damaged(self) -> tuple[int, ...]:
        """Numbers, from 0, of the slices that are damaged or missing."""
        return tuple(number for number, payload in enumerate(self.slices) if payload is None)


def pack(header: Header, payload: bytes, *, version: int = VERSION) -> bytes:
    """Return a complete stream of one slice: header, payload and checksum.

    Version 2 holds the first 4 bytes of the fingerprint, version 1 all 8.

    Raises:
        BitstreamError: a payload of 4 GiB or more, an image that version 2 does not hold, an unknown version.
    """
    if version == VERSION:
        return pack_slices(header, [payload])
    if version != 1 or len(header.fingerprint) != FINGERPRINT_BYTES:
        raise BitstreamError(
            f"container version {version} with a fingerprint of {len(header.fingerprint)} bytes: "
            f"1 (with {FINGERPRINT_BYTES} bytes) and {VERSION} can be written"
        )
    _check_length(payload)
    fixed = _FIXED_1.pack(MAGIC_1, 1, header.entropy_model_id, header.fingerprint, header.height, header.width)
    body = fixed + varint(len(payload)) + payload
    return body + CRC.pack(zlib.crc32(body))


def pack_slices(
    header: Header, payloads: Sequence[bytes | None], layout: SliceLayout = "bands", detail_count: int = 0
) -> bytes:
    """Return a stream of version 2, with one slice or several that can be decoded without each other.

    A slice that is None was lost on the way: `salvage` finds it missing and `unpack_slices` refuses the stream. The
    last `detail_count` slices are those of the detail layer; the layout is that of the others.

    Raises:
        BitstreamError: there is no slice or more than 256, no slice before those of the detail layer, a slice has 4 GiB
            or more, the image has more than 2**28 pixels, or all slices are lost.
    """
    if not 1 <= len(payloads) <= MAX_SLICES:
        raise BitstreamError(f"{len(payloads)} slices, a stream holds 1..{MAX_SLICES}")
    if not 0 <= detail_count < len(payloads):
        raise BitstreamError(f"{detail_count} of {len(payloads)} slices for detail: at least one is of the task layer")
    there = [payload for payload in payloads if payload is not None]
    if not there:
        raise BitstreamError(f"all of the {len(payloads)} slices are lost: there is nothing to put into a stream")
    for payload in there:
        _check_length(payload)
    _check_pixels(header)
    sliced = len(payloads) > 1
    flags = (_SLICED | (_INTERLEAVED if layout == "interleaved" else 0)) if sliced else 0
    flags |= _LAYERED if detail_count else 0
    fingerprint = header.fingerprint[:SHORT_FINGERPRINT_BYTES]
    beginning = _FIXED_2.pack(MAGIC, VERSION << 4 | flags, header.entropy_model_id, fingerprint)
    beginning += varint(header.height - 1) + varint(header.width - 1)
    if not sliced:
        body = beginning + there[0]
        return body + CRC.pack(zlib.crc32(body))
    beginning += varint(len(payloads) - 2) + (varint(detail_count - 1) if detail_count else b"")
    beginning += b"".join(
        _LOST if payload is None else varint(len(payload)) + CRC.pack(zlib.crc32(payload)) for payload in payloads
    )
    return beginning + CRC.pack(zlib.crc32(beginning)) + b"".join(there)


def _check_length(payload: bytes) -> None:
    if len(payload) >= 2**32:
        raise BitstreamError(f"payload of {len(payload)} bytes, a stream holds less than 4 GiB")


def _check_pixels(header: Header) -> None:
    if header.height * header.width > MAX_PIXELS:
        raise BitstreamError(
            f"image of {header.height}x{header.width} pixels, a stream of version {VERSION} holds at most {MAX_PIXELS}"
        )


def _checksum_agrees(data: bytes) -> bool:
    """Return whether the last four bytes are the CRC-32 of those before."""
    return len(data) >= 4 and CRC.unpack(data[-4:])[0] == zlib.crc32(data[:-4])


def _version_of(data: bytes) -> int:
    """Return the version of a stream, 1 or 2; raise `BitstreamError` if the bytes do not begin as a stream does."""
    if not data:
        raise BitstreamError("empty: expected a gosvae stream, got 0 bytes")
    if len(data) < 5 and (MAGIC_1.startswith(data) or data == bytes([MAGIC])):
        raise BitstreamError(f"truncated: {len(data)} bytes are less than the header of a gosvae stream")
    if data.startswith(MAGIC_1):
        if data[4] != 1:
            raise BitstreamError(f"damaged: GSVA begins streams of format version 1 alone, here {data[4]} follows")
        return 1
    if data[0] != MAGIC:
        kinds = [kind for magic, kind in _OTHER_FORMATS.items() if data.startswith(magic)]
        kinds += ["an AVIF"] if data[4:12] in (b"ftypavif", b"ftypavis") else []
        looks = f", this looks like {kinds[0]}" if kinds else ""
        raise BitstreamError(f"not a gosvae stream: it begins with {data[:8].hex(' ')}{looks}")
    version = data[1] >> 4
    # Later versions keep the first byte, the place of the version, and a CRC-32 of everything at the end, so that a
    # newer stream can be told from a damaged one.
    if version > VERSION and _checksum_agrees(data):
        raise ForeignStreamError(f"made by a newer gosvae (format {version}), this one reads up to {VERSION}: upgrade")
    if version != VERSION:
        raise BitstreamError(f"damaged: format version {version} and a checksum that does not agree")
    return version


def _read_1(data: bytes) -> Stream:
    """Return the contents of an intact stream of version 1."""
    reader = FieldReader(data, 0)
    _, _, model_id, fingerprint, height, width = _FIXED_1.unpack(reader.take(_FIXED_1.size))
    n_bytes = reader.varint("length", 2**32)
    _check_end(data, reader.position + n_bytes + CRC.size)
    payload = reader.take(n_bytes)
    if not _checksum_agrees(data):
        raise BitstreamError("damaged: the checksum does not agree with the bytes before it; send the stream again")
    return Stream(1, Header(fingerprint, height, width, model_id), "bands", (payload,))


def _read_2(data: bytes) -> tuple[Stream, int]:
    """Return the contents of a stream of version 2 and its length; slices with a wrong checksum are None."""
    reader = FieldReader(data, 0)
    _, flags, model_id, fingerprint = _FIXED_2.unpack(reader.take(_FIXED_2.size))
    flags &= 15
    if flags & ~_INTERLEAVED not in (0, _SLICED, _SLICED | _LAYERED) or flags == _INTERLEAVED:
        raise BitstreamError(f"damaged: the flags {flags:04b} are not valid")
    height = 1 + reader.varint("height", MAX_SIDE)
    width = 1 + reader.varint("width", MAX_SIDE)
    if not flags:
        payload = reader.take(max(0, len(data) - reader.position - CRC.size))
        if reader.crc() != zlib.crc32(data[: -CRC.size]):
            raise BitstreamError(
                "truncated or damaged: the checksum does not agree with the bytes before it; send the stream again"
            )
        header = Header(fingerprint, height, width, model_id)
        _check_pixels(header)
        return Stream(2, header, "bands", (payload,)), len(data)
    count = 2 + reader.varint("slice count", MAX_SLICES - 1)
    detail_count = 1 + reader.varint("detail count", count - 1) if flags & _LAYERED else 0
    table = [(reader.varint("length", 2**32), reader.crc()) for _ in range(count)]
    n_bytes = reader.position
    if reader.crc() != zlib.crc32(data[:n_bytes]):
        raise BitstreamError("damaged: the checksum of the header does not agree with it; send the stream again")
    header = Header(fingerprint, height, width, model_id)
    _check_pixels(header)
    slices: list[bytes | None] = []
    position = reader.position
    for length, crc in table:
        payload = data[position : position + length]
        slices.append(payload if len(payload) == length and zlib.crc32(payload) == crc else None)
        position += length
    layout: SliceLayout = "interleaved" if flags & _INTERLEAVED else "bands"
    return Stream(2, header, layout, tuple(slices), detail_count), position


def _check_end(data: bytes, expected: int) -> None:
    if len(data) != expected:
        which = "truncated" if len(data) < expected else "extended"
        raise BitstreamError(f"{which}: {len(data)} bytes where the header announces {expected}")


def as_bytes(data: object) -> bytes:
    """Return bytes, a bytearray or a memoryview as `bytes`.

    Raises:
        BitstreamError: something else; the message says what to call.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        advice = "Path(...).read_bytes() reads a file"
        raise BitstreamError(f"expected the bytes of a stream, got {type(data).__name__}: {advice}")
    return bytes(data)


def unpack_slices(data: bytes) -> Stream:
    """Return the contents of a complete, intact stream; no slice is None.

    Raises:
        ForeignStreamError: the stream is intact and of a newer format version.
        BitstreamError: the bytes are empty, truncated, extended, damaged or of another format.
    """
    data = as_bytes(data)
    if _version_of(data) == 1:
        return _read_1(data)
    stream, end = _read_2(data)
    _check_end(data, end)
    if stream.damaged:
        numbers = ", ".join(map(str, stream.damaged))
        raise BitstreamError(
            f"damaged: the checksum of slice {numbers} of {len(stream.slices)} (from 0) does not agree; the others "
            "are intact"
        )
    return stream


def salvage(data: bytes) -> Stream:
    """Return the contents of a damaged stream: slices that are damaged or cut off are None.

    Bytes after the end are ignored. A stream of one slice is refused unless it is intact.

    Raises:
        ForeignStreamError: the stream is intact and of a newer format version.
        BitstreamError: the header is damaged, or no slice is intact.
    """
    data = as_bytes(data)
    stream = _read_1(data) if _version_of(data) == 1 else _read_2(data)[0]
    if not stream.payloads:
        raise BitstreamError(f"damaged: the header is intact, but none of the {len(stream.slices)} slices is")
    return stream


def unpack(data: bytes) -> tuple[Header, bytes]:
    """Return header and payload of a complete, intact stream of one slice.

    Raises:
        ForeignStreamError: the stream is intact and of a newer format version.
        BitstreamError: the stream has several slices, or the bytes are not a stream, as in `unpack_slices`.
    """
    stream = unpack_slices(data)
    if len(stream.slices) > 1:
        raise BitstreamError(f"a stream of {len(stream.slices)} slices where one is expected")
    return stream.header, stream.payloads[0]


def payload_bytes(data: bytes) -> int:
    """Return the number of bytes of all slices of an intact stream; errors as in `unpack_slices`."""
    return sum(map(len, unpack_slices(data).payloads))


def made_by(header: Header, fingerprint: bytes) -> bool:
    """Return whether a codec made the stream, given its SHA-256 or the first 8 or more bytes of it."""
    return fingerprint[: len(header.fingerprint)] == header.fingerprint


def check_fingerprint(header: Header, expected: bytes) -> None:
    """Raise `ForeignStreamError` unless a codec made the stream, given its SHA-256 or the beginning of it."""
    if not made_by(header, expected):
        raise ForeignStreamError(
            f"made by another codec: the stream's fingerprint is {header.fingerprint.hex()}, this codec's is "
            f"{expected[: len(header.fingerprint)].hex()}; decode with the checkpoint that made it"
        )
