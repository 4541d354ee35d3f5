"""Bytes of a sequence: the session header and the frames. `docs/bitstream.md` has the exact layout."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from gosvae.bitstream import MAX_PIXELS, MAX_SIDE, MAX_SLICES, SHORT_FINGERPRINT_BYTES, SliceLayout
from gosvae.entropy.base import MARK_BYTES
from gosvae.errors import BitstreamError, ForeignStreamError

SESSION_MAGIC = b"\x0fGSV"
"""First bytes of a session header. No frame and no text begins with the first of them."""
VERSION = 1
"""Version of the session header and of its frames."""
NUMBERS = 128
"""Number of frame numbers; frames carry their number modulo this."""
MOST_DISTANCE = NUMBERS // 2 - 1
"""Largest distance, in frames, from a frame to its reference."""
KEPT_FRAMES = 32
"""Greatest number of frames that encoder and decoder keep as references."""
CHECK_BYTES = 2
"""Length of the checksum at the end of a frame."""
SLICE_LENGTH_BYTES = 3
"""Length in bytes of the field that holds the length of a slice; the last slice has no such field."""
_SESSION = struct.Struct(f">4sB{SHORT_FINGERPRINT_BYTES}s{MARK_BYTES}sHHHBB")
_CRC = struct.Struct(">I")
_RATE_UNITS = 100
LEAST_RATE, MOST_RATE = 1 / _RATE_UNITS, (2**16 - 1) / _RATE_UNITS
"""Lowest and highest rate of frames that a session header holds, in frames a second."""
_SHORT_DISTANCES = 8


class Mode(IntEnum):
    """Coding of the symbols of a frame: two bits of its first byte."""

    INTRA = 0
    NETWORK = 1
    TABLES = 2
    UNCHANGED = 3


@dataclass(frozen=True)
class SessionHeader:
    """Values that all frames of a session share.

    Attributes:
        fingerprint: first 4 bytes of the SHA-256 of the codec.
        mark: mark of the codec's context model xor that of its temporal model, 4 bytes.
        height, width: size of the frames in pixels, 1..65535.
        frames_per_second: rate at which frames are shown, 0..655.35 in steps of 0.01; 0 if it is not known.
        slices: number of slices of a frame, 1..256, which are coded independently of each other.
        layout: layout of the slices.

    Raises:
        BitstreamError: a value is outside its range, or the frames have more than 2**28 pixels.
    """

    fingerprint: bytes
    mark: bytes
    height: int
    width: int
    frames_per_second: float = 0.0
    slices: int = 1
    layout: SliceLayout = "bands"

    def __post_init__(self) -> None:
        if not (1 <= self.height <= MAX_SIDE and 1 <= self.width <= MAX_SIDE):
            raise BitstreamError(f"frames of {self.height}x{self.width} pixels, a session has 1..{MAX_SIDE} a side")
        if self.height * self.width > MAX_PIXELS:
            raise BitstreamError(f"frames of {self.height}x{self.width} pixels, a session has at most {MAX_PIXELS}")
        if not 0 <= self.frames_per_second * _RATE_UNITS < 2**16:
            raise BitstreamError(f"{self.frames_per_second} frames a second, a session has 0 to 655.35")
        if not 1 <= self.slices <= MAX_SLICES:
            raise BitstreamError(f"{self.slices} slices, a frame has 1..{MAX_SLICES}")

    def pack(self) -> bytes:
        """Return the bytes of the header."""
        layout = int(self.layout == "interleaved")
        rate = round(self.frames_per_second * _RATE_UNITS)
        sizes = (self.height, self.width, rate, self.slices - 1, layout)
        body = _SESSION.pack(SESSION_MAGIC, VERSION, self.fingerprint[:SHORT_FINGERPRINT_BYTES], self.mark, *sizes)
        return body + _CRC.pack(zlib.crc32(body))

    @classmethod
    def unpack(cls, data: bytes) -> tuple[SessionHeader, bytes]:
        """Return the header at the beginning of the bytes, and the bytes after it.

        Raises:
            ForeignStreamError: the header is of a newer version.
            BitstreamError: the bytes do not begin with an intact session header.
        """
        if not is_session(data) or len(data) < HEADER_BYTES:
            raise BitstreamError(f"no session header: {len(data)} bytes that begin with {data[:4].hex(' ')}")
        body, end = data[: _SESSION.size], HEADER_BYTES
        if zlib.crc32(body) != _CRC.unpack(data[_SESSION.size : end])[0]:
            raise BitstreamError("damaged: the checksum of the session header does not agree with it")
        _, version, fingerprint, mark, height, width, rate, last_slice, layout = _SESSION.unpack(body)
        if version > VERSION:
            raise ForeignStreamError(f"made by a newer gosvae (session {version}), this one reads {VERSION}: upgrade")
        if version != VERSION or layout > 1:
            raise BitstreamError(f"damaged: a session header of version {version} with the layout {layout}")
        names: tuple[SliceLayout, SliceLayout] = ("bands", "interleaved")
        header = cls(fingerprint, mark, height, width, rate / _RATE_UNITS, last_slice + 1, names[layout])
        return header, data[end:]


HEADER_BYTES = _SESSION.size + _CRC.size
"""Length of a session header."""


def is_session(data: bytes) -> bool:
    """Return whether the bytes begin as a session header does."""
    return data.startswith(SESSION_MAGIC)


@dataclass(frozen=True)
class FrameHeader:
    """Values of a frame that a decoder needs before the payload.

    Attributes:
        number: number of the frame modulo 128.
        mode: way in which the symbols are coded.
        level: level of the frame; None if it is that of the reference.
        distance: number of frames from the reference to this frame, 1..63; 0 for an intra frame.
        activity: class of activity, see `Memory.activity`; 0 for modes that do not use it.
    """

    number: int
    mode: Mode
    level: int | None
    distance: int = 0
    activity: int = 0

    def pack(self) -> bytes:
        """Return the bytes of the header: two, and one each for a level and for a distance of 8 or more."""
        short = self.distance if self.distance < _SHORT_DISTANCES else 0
        first = self.mode << 6 | self.activity << 3 | short
        data = bytes([first, self.number << 1 | (self.level is not None)])
        if self.mode is not Mode.INTRA and not short:
            data += bytes([self.distance])
        return data if self.level is None else data + bytes([self.level])

    @classmethod
    def unpack(cls, data: bytes) -> tuple[FrameHeader, int]:
        """Return the header at the beginning of the bytes, and its length.

        Raises:
            BitstreamError: no frame begins with these bytes.
        """
        if len(data) < 2:
            raise BitstreamError(f"truncated: {len(data)} bytes are less than the header of a frame")
        mode, activity, distance = Mode(data[0] >> 6), data[0] >> 3 & 7, data[0] & 7
        number, has_level, length = data[1] >> 1, data[1] & 1, 2
        if mode is Mode.INTRA and (data[0] or not has_level):
            raise BitstreamError(f"damaged: no frame begins with {data[:2].hex(' ')}")
        if mode is Mode.UNCHANGED and (activity or has_level):
            raise BitstreamError(f"damaged: no frame begins with {data[:2].hex(' ')}")
        if mode is not Mode.INTRA and not distance:
            distance, length = (data[2] if len(data) > 2 else 0), 3
            if not _SHORT_DISTANCES <= distance <= MOST_DISTANCE:
                raise BitstreamError(f"damaged: a reference at a distance of {distance} frames")
        if has_level and len(data) <= length:
            raise BitstreamError("truncated: a frame ends before its level")
        level = data[length] if has_level else None
        return cls(number, mode, level, distance, activity), length + has_level


def pack_slices(payloads: Sequence[bytes]) -> bytes:
    """Return the joined payloads of slices; each but the last is preceded by its length in 3 bytes."""
    return b"".join(len(part).to_bytes(SLICE_LENGTH_BYTES, "big") + part for part in payloads[:-1]) + payloads[-1]


def unpack_slices(data: bytes, count: int) -> list[bytes]:
    """Return the payloads of `count` slices.

    Raises:
        BitstreamError: the bytes end before the last slice.
    """
    parts = []
    for _ in range(count - 1):
        end = SLICE_LENGTH_BYTES + int.from_bytes(data[:SLICE_LENGTH_BYTES], "big")
        if len(data) < end:
            raise BitstreamError("truncated: a frame ends inside one of its slices")
        parts.append(data[SLICE_LENGTH_BYTES:end])
        data = data[end:]
    return [*parts, data]


def part_seed(reference: int, index: int) -> int:
    """Return the value that takes the place of the reference's checksum in the checksum of a part.

    Args:
        reference: checksum of the reference; 0 for an intra frame.
        index: number of the slice, from 0.
    """
    return zlib.crc32(bytes([index]), reference)


def checksum(data: bytes, reference: int) -> bytes:
    """Return the checksum of a frame, 2 bytes: the low half of the CRC-32 of its bytes, continued from a value.

    Args:
        data: bytes of the frame before the checksum.
        reference: checksum of the reference, 0 for an intra frame; `part_seed` for a part.
    """
    return (zlib.crc32(data, reference) & 0xFFFF).to_bytes(CHECK_BYTES, "big")
