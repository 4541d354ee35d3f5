"""The container, format 1: what stands around a payload so that it is never taken for something else.

`docs/bitstream.md` has the exact layout.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from gosvae.errors import BitstreamError, ForeignStreamError

MAGIC = b"GSVA"
VERSION = 1
FINGERPRINT_BYTES = 8
MAX_SIDE = 65535

_FIXED = struct.Struct(f">4sBB{FINGERPRINT_BYTES}sHH")
_CRC = struct.Struct(">I")
_MAX_LENGTH_BYTES = 5

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
    """What a decoder must know before it reads the payload.

    Attributes:
        fingerprint: first 8 bytes of the SHA-256 of the codec (configuration and weights).
        height, width: true size of the image in pixels, 1..65535.
        entropy_model_id: which entropy model made the payload, 0..255.

    Raises:
        BitstreamError: a value that the container cannot hold.
    """

    fingerprint: bytes
    height: int
    width: int
    entropy_model_id: int

    def __post_init__(self) -> None:
        if len(self.fingerprint) != FINGERPRINT_BYTES:
            raise BitstreamError(f"codec fingerprint of {len(self.fingerprint)} bytes, expected {FINGERPRINT_BYTES}")
        if not (1 <= self.height <= MAX_SIDE and 1 <= self.width <= MAX_SIDE):
            raise BitstreamError(f"image of {self.height}x{self.width} pixels, a stream holds 1..{MAX_SIDE} a side")
        if not 0 <= self.entropy_model_id <= 255:
            raise BitstreamError(f"entropy model id {self.entropy_model_id}, expected 0..255")


def _length_field(n_bytes: int) -> bytes:
    """Unsigned LEB128: seven bits a byte, lowest first, top bit set where more follow."""
    field = bytearray()
    while n_bytes > 127:
        field.append(n_bytes & 127 | 128)
        n_bytes >>= 7
    field.append(n_bytes)
    return bytes(field)


def pack(header: Header, payload: bytes) -> bytes:
    """A complete stream: header, payload and checksum.

    Raises:
        BitstreamError: a payload of 4 GiB or more.
    """
    if len(payload) >= 2**32:
        raise BitstreamError(f"payload of {len(payload)} bytes, a stream holds less than 4 GiB")
    fixed = _FIXED.pack(MAGIC, VERSION, header.entropy_model_id, header.fingerprint, header.height, header.width)
    body = fixed + _length_field(len(payload)) + payload
    return body + _CRC.pack(zlib.crc32(body))


def _check_beginning(data: bytes) -> None:
    """Raise unless the bytes begin as a stream of this version does."""
    if not data:
        raise BitstreamError("empty: expected a gosvae stream, got 0 bytes")
    if not data.startswith(MAGIC):
        if MAGIC.startswith(data):
            raise BitstreamError(f"truncated: {len(data)} bytes are less than the header of a gosvae stream")
        kinds = [kind for magic, kind in _OTHER_FORMATS.items() if data.startswith(magic)]
        kinds += ["an AVIF"] if data[4:12] in (b"ftypavif", b"ftypavis") else []
        looks = f", this looks like {kinds[0]}" if kinds else ""
        raise BitstreamError(f"not a gosvae stream: it begins with {data[:8].hex(' ')}{looks}")
    # Magic, version and a final CRC-32 are common to all versions, so that a newer one is told from a damaged one.
    if len(data) > 4 and data[4] != VERSION:
        version = data[4]
        intact = len(data) >= 9 and _CRC.unpack(data[-4:])[0] == zlib.crc32(data[:-4])
        if version > VERSION and intact:
            raise ForeignStreamError(
                f"made by a newer gosvae (format {version}), this one reads up to {VERSION}: upgrade"
            )
        raise BitstreamError(f"damaged: format version {version} and a checksum that does not agree")


def _payload_span(data: bytes) -> tuple[int, int]:
    """First and last byte (exclusive) of the payload as the length field says; the payload may be cut off."""
    n_bytes, position = 0, _FIXED.size
    for shift in range(0, 7 * _MAX_LENGTH_BYTES, 7):
        if position >= len(data):
            raise BitstreamError(f"truncated: {len(data)} bytes end inside the header of a gosvae stream")
        byte = data[position]
        position += 1
        n_bytes |= (byte & 127) << shift
        if byte < 128:
            if (byte == 0 and shift > 0) or n_bytes >= 2**32:
                break
            return position, position + n_bytes
    raise BitstreamError("damaged: the length field is not valid")


def unpack(data: bytes) -> tuple[Header, bytes]:
    """Header and payload of a complete, intact stream.

    Raises:
        ForeignStreamError: an intact stream of a newer format version.
        BitstreamError: anything else that is not a stream: empty, truncated, extended, damaged, another format.
    """
    _check_beginning(data)
    start, end = _payload_span(data)
    expected = end + _CRC.size
    if len(data) != expected:
        which = "truncated" if len(data) < expected else "extended"
        raise BitstreamError(f"{which}: {len(data)} bytes where the header announces {expected}")
    if _CRC.unpack_from(data, end)[0] != zlib.crc32(data[:end]):
        raise BitstreamError("damaged: the checksum does not agree with the bytes before it; send the stream again")
    _, _, entropy_model_id, fingerprint, height, width = _FIXED.unpack_from(data)
    return Header(fingerprint, height, width, entropy_model_id), data[start:end]


def header_bytes(data: bytes) -> int:
    """Bytes of an intact stream that are not payload: header and checksum; errors as in `unpack`."""
    return len(data) - len(unpack(data)[1])


def check_fingerprint(header: Header, expected: bytes) -> None:
    """Raise `ForeignStreamError` unless the codec whose SHA-256 begins with or is `expected` made the stream."""
    if header.fingerprint != expected[:FINGERPRINT_BYTES]:
        raise ForeignStreamError(
            f"made by another codec: the stream's fingerprint is {header.fingerprint.hex()}, this codec's is "
            f"{expected[:FINGERPRINT_BYTES].hex()}; decode with the checkpoint that made it"
        )
