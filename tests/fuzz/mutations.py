"""Damage to streams: what lines and disks do, and what a forger does who knows the container and its checksums."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from gosvae.bitstream import MAGIC, MAGIC_1, Stream, unpack_slices


@dataclass(frozen=True)
class Mutant:
    """Changed bytes.

    Attributes:
        kind: how they were made.
        forged: whether their checksums were made to agree: then they may be a stream, though not the one they were.
    """

    kind: str
    data: bytes
    forged: bool


def _flip(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    damaged = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 3, 8))):
        damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
    return bytes(damaged)


def _overwrite(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start = random.randrange(len(data))
    length = random.randint(1, 8)
    return (
        data[:start]
        + random.choice((bytes(length), b"\xff" * length, random.randbytes(length)))
        + data[start + length :]
    )


def _cut_end(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return data[: random.randrange(len(data))]


def _cut_out(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start = random.randrange(len(data))
    return data[:start] + data[start + random.randint(1, 16) :]


def _insert(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start = random.randrange(len(data) + 1)
    return data[:start] + random.randbytes(random.randint(1, 16)) + data[start:]


def _repeat(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start = random.randrange(len(data))
    piece = data[start : start + random.randint(1, 32)]
    where = random.randrange(len(data) + 1)
    return data[:where] + piece + data[where:]


def _splice(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    other = random.choice(others)
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]


def _overlay(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """The same stretch of another stream, at the same place."""
    other = random.choice(others)
    start = random.randrange(len(data))
    stop = random.randint(start, len(data))
    return data[:start] + other[start:stop] + data[stop:]


def _noise(random: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    beginning = random.choice((b"", MAGIC_1, MAGIC_1 + b"\x01", bytes([MAGIC]), data[:7], data[: len(data) // 2]))
    return beginning + random.randbytes(random.randrange(120))


DAMAGE: dict[str, Callable[[Random, bytes, Sequence[bytes]], bytes]] = {
    "flip": _flip,
    "overwrite": _overwrite,
    "cut end": _cut_end,
    "cut out": _cut_out,
    "insert": _insert,
    "repeat": _repeat,
    "splice": _splice,
    "overlay": _overlay,
    "noise": _noise,
}


@dataclass(frozen=True)
class Fields:
    """All that stands in a stream, free to be wrong; checksums are made when it is written."""

    version: int
    flags: int
    model_id: int
    fingerprint: bytes
    height: int
    width: int
    payloads: tuple[bytes, ...]
    announced: int = 0
    """Added to the number of slices, or of payload bytes in version 1."""
    detail_count: int = 0


def _varint(value: int) -> bytes:
    field = bytearray()
    while value > 127:
        field.append(value & 127 | 128)
        value >>= 7
    return bytes([*field, value])


def fields_of(stream: Stream) -> Fields:
    """The fields of an intact stream."""
    header = stream.header
    flags = 0 if len(stream.slices) == 1 else 3 if stream.layout == "interleaved" else 1
    flags |= 4 if stream.detail_count else 0
    return Fields(
        *(stream.version, flags, header.entropy_model_id, header.fingerprint, header.height, header.width),
        stream.payloads,
        detail_count=stream.detail_count,
    )


def write(fields: Fields) -> bytes:
    """The bytes, with checksums that agree."""
    if fields.version == 1:
        body = MAGIC_1 + bytes([1, fields.model_id]) + fields.fingerprint[:8].ljust(8, b"\0")
        body += struct.pack(">HH", fields.height % 65536, fields.width % 65536)
        payload = b"".join(fields.payloads)
        body += _varint(max(0, len(payload) + fields.announced)) + payload
        return body + struct.pack(">I", zlib.crc32(body))
    body = bytes([MAGIC, fields.version % 16 << 4 | fields.flags, fields.model_id]) + fields.fingerprint[:4]
    body += _varint(max(0, fields.height - 1)) + _varint(max(0, fields.width - 1))
    if not fields.flags & 1:
        body += b"".join(fields.payloads)
        return body + struct.pack(">I", zlib.crc32(body))
    body += _varint(max(0, len(fields.payloads) - 2 + fields.announced))
    body += _varint(max(0, fields.detail_count - 1)) if fields.flags & 4 else b""
    body += b"".join(_varint(len(part)) + struct.pack(">I", zlib.crc32(part)) for part in fields.payloads)
    return body + struct.pack(">I", zlib.crc32(body)) + b"".join(fields.payloads)


def _side(random: Random, side: int) -> int:
    """Another length of a side: near, or anything that the container holds, or beyond."""
    near = (side - 1, side + 1, side + 4, 2 * side, side * 64)
    return max(0, random.choice((*near, random.randrange(2 ** random.randint(1, 16)), 65535, 65536, 2**21, 2**40)))


def _forge(random: Random, fields: Fields, other: Fields) -> Fields:
    """One field changed."""
    payloads = list(fields.payloads)
    which = random.randrange(len(payloads))
    match random.randrange(12):
        case 0:
            return replace(fields, height=_side(random, fields.height))
        case 1:
            return replace(fields, width=_side(random, fields.width))
        case 2:
            return replace(fields, height=fields.width, width=fields.height)
        case 3:
            return replace(fields, model_id=random.choice((0, 1, 2, 3, 16, 32, random.randrange(256))))
        case 4:
            return replace(fields, flags=random.choice((0, 1, 3, random.randrange(16))))
        case 5:
            return replace(fields, version=random.choice((1, 2, 3, random.randrange(16))))
        case 6:
            return replace(fields, announced=random.choice((-1, 1, 2, 200, 2**20, 2**31)))
        case 7:
            random.shuffle(payloads)
        case 8:
            payloads = list(other.payloads)
        case 9:
            payloads[which] = random.choice(other.payloads)
        case 10:
            payloads = payloads + payloads if random.random() < 0.5 else payloads[:which] or payloads
        case _:
            damage = random.choice((_flip, _overwrite, _cut_end, _cut_out, _insert, _repeat, _noise))
            payloads[which] = damage(random, payloads[which] or b"\0", ())
    return replace(fields, payloads=tuple(payloads))


def mutate(
    random: Random,
    own: Sequence[bytes],
    others: Sequence[bytes],
    forge: Callable[[Random, bytes], bytes] | None = None,
) -> Mutant:
    """A changed stream; `own` are those of the codec that will read it, `others` those of all codecs."""
    data = random.choice(own)
    if random.random() < 0.6:
        kind = random.choice(list(DAMAGE))
        return Mutant(kind, DAMAGE[kind](random, data, random.choice((own, others))), forged=False)
    if forge is not None:
        return Mutant("forged", forge(random, data), forged=True)
    fields = fields_of(unpack_slices(data))
    for _ in range(random.choice((1, 1, 2, 3))):
        fields = _forge(random, fields, fields_of(unpack_slices(random.choice(own))))
    return Mutant("forged", write(fields), forged=True)
