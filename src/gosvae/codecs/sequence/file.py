"""File of a sequence (`.gosv`): session header, frames, and an index of the key frames at the end.

A truncated file can be read up to its last whole frame. `docs/bitstream.md` has the exact layout.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from gosvae.codecs.sequence.format import CHECK_BYTES, HEADER_BYTES, FrameHeader, Mode, SessionHeader, is_session
from gosvae.errors import BitstreamError

SUFFIX = ".gosv"
"""Ending of the names of files that hold a sequence."""
INDEX_MAGIC = b"GSVX"
"""Last bytes of a complete file."""
_END, _HOLD = b"\0", b"\1"
_ENTRY = struct.Struct(">IQ")
_FOOT = struct.Struct(">IIII4s")
_MOST_BYTES = 2**28


def _length_field(value: int) -> bytes:
    """Return a number as unsigned LEB128."""
    field = bytearray()
    while value > 127:
        field.append(value & 127 | 128)
        value >>= 7
    return bytes([*field, value])


class SequenceWriter:
    """Writer of a `.gosv` file; closing it writes the index.

    Args:
        stream: binary stream that the file is written to.

    Attributes:
        frames: number of frames so far, including those that were not sent.
        bytes_written: number of bytes so far.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._place = stream, 0
        self._keys: list[tuple[int, int]] = []
        self._header = b""
        self.frames = 0
        self.bytes_written = 0

    def write(self, data: bytes) -> None:
        """Write the bytes of the next frame, as `VideoEncoder.encode` returns them.

        Raises:
            BitstreamError: the first frame is not a key frame, or the session changes.
        """
        key = is_session(data)
        if key:
            header, data = data[:HEADER_BYTES], data[HEADER_BYTES:]
            if not self._header:
                self._header = header
                self._put(header)
            elif header != self._header:
                raise BitstreamError("a frame of another session: a file holds one session")
            self._keys.append((self.frames, self._place))
        elif not self._header:
            raise BitstreamError("the first frame of a file is a key frame, this one depends on another")
        self._put(_length_field(len(data) << 1 | key) + data)
        self.frames += 1

    def hold(self) -> None:
        """Write a mark for a frame that was not sent: the picture before it stays."""
        self._put(_HOLD)
        self.frames += 1

    def _put(self, data: bytes) -> None:
        self._stream.write(data)
        self._place += len(data)
        self.bytes_written = self._place

    def close(self) -> None:
        """Write the index; the stream stays open."""
        if not self._header:
            return
        table = b"".join(_ENTRY.pack(*key) for key in self._keys)
        foot = (len(self._keys), self.frames)
        body = table + struct.pack(">II", *foot)
        self._put(_END + table + _FOOT.pack(*foot, zlib.crc32(body), len(table), INDEX_MAGIC))

    def __enter__(self) -> SequenceWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()


@dataclass(frozen=True)
class _Record:
    """Place of a frame in a file: of its length, of its bytes up to their end, and whether it is a key frame."""

    place: int
    first: int
    last: int
    key: bool


class SequenceFile:
    """Reader of a `.gosv` file.

    Args:
        data: bytes of the file.

    Attributes:
        data: bytes of the file.
        header: session header.
        complete: whether the file ends with its index; a truncated file does not.

    Raises:
        BitstreamError: the bytes do not begin as a sequence does.
        ForeignStreamError: the sequence is of a newer version.
    """

    def __init__(self, data: bytes) -> None:
        self.header, _ = SessionHeader.unpack(data)
        self.data = data
        self._index = self._read_index()
        self.complete = self._index is not None
        self._records: list[_Record] | None = None

    @classmethod
    def read(cls, path: Path) -> SequenceFile:
        """Read a file.

        Raises:
            BitstreamError: the file cannot be read, or as in the constructor.
            ForeignStreamError: as in the constructor.
        """
        try:
            return cls(path.read_bytes())
        except OSError as error:
            raise BitstreamError(f"cannot read {path}: {error.strerror}") from None

    def __len__(self) -> int:
        """Return the number of frames."""
        return self._index[1] if self._index is not None else len(self._scanned())

    @property
    def keys(self) -> list[int]:
        """Numbers of the key frames, from 0."""
        if self._index is not None:
            return [number for number, _ in self._index[0]]
        return [number for number, _ in self._scanned_keys()]

    def frames(self, first: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield the number and the bytes of each frame, for a `VideoDecoder`, beginning with a key frame.

        The bytes of a frame that was not sent are empty.

        Args:
            first: number of a frame, from 0; the frames begin with the key frame at or before it.

        Raises:
            BitstreamError: there is no such frame, or the file is damaged.
        """
        keys = self._index[0] if self._index is not None else self._scanned_keys()
        if not 0 <= first < len(self):
            raise BitstreamError(f"frame {first}: the sequence has {len(self)}")
        if not keys or keys[0][0] > first:
            raise BitstreamError(f"damaged: there is no key frame at or before frame {first}")
        number, place = keys[bisect_right([key for key, _ in keys], first) - 1]
        for record in self._walk(place):
            data = self.data[record.first : record.last]
            if is_session(data):
                raise BitstreamError("damaged: a second session in the file of a sequence")
            yield number, (self.data[:HEADER_BYTES] + data if record.key else data)
            number += 1

    def headers(self) -> list[tuple[FrameHeader, int]]:
        """Return the header and the number of bytes of every frame that was sent."""
        sent = (self.data[record.first : record.last] for record in self._scanned() if record.last > record.first)
        return [(FrameHeader.unpack(data)[0], len(data)) for data in sent]

    def _scanned_keys(self) -> list[tuple[int, int]]:
        """Return frame numbers and places of the key frames of a file without an index."""
        return [(number, record.place) for number, record in enumerate(self._scanned()) if record.key]

    def _scanned(self) -> list[_Record]:
        """Return the records up to the end or to the cut."""
        if self._records is None:
            self._records = list(self._walk(HEADER_BYTES))
        return self._records

    def _walk(self, place: int) -> Iterator[_Record]:
        """Yield the records from a place on; the first that is not complete ends a file that was cut."""
        data = self.data
        while place < len(data):
            begin, field, shift = place, 0, 0
            while place < len(data):
                byte = data[place]
                field |= (byte & 127) << shift
                place, shift = place + 1, shift + 7
                if byte < 128:
                    break
                if shift > 28:
                    raise BitstreamError("damaged: the length of a frame is not valid")
            else:
                return
            length = field >> 1
            if field == 0 or place + length > len(data):
                return
            held = field == _HOLD[0]
            if not held and not CHECK_BYTES + 2 <= length < _MOST_BYTES:
                raise BitstreamError(f"damaged: a frame of {length} bytes")
            yield _Record(begin, place, place + length, bool(field & 1) and not held)
            place += length

    def _read_index(self) -> tuple[list[tuple[int, int]], int] | None:
        """Return frame numbers and places of the key frames, and the number of frames; None without an intact index."""
        data = self.data
        if len(data) < HEADER_BYTES + _FOOT.size or not data.endswith(INDEX_MAGIC):
            return None
        n_keys, n_frames, crc, length, _ = _FOOT.unpack(data[-_FOOT.size :])
        first = len(data) - _FOOT.size - length
        if length != n_keys * _ENTRY.size or first < HEADER_BYTES:
            return None
        table = data[first : first + length]
        if zlib.crc32(table + struct.pack(">II", n_keys, n_frames)) != crc:
            return None
        return [_ENTRY.unpack(table[i : i + _ENTRY.size]) for i in range(0, length, _ENTRY.size)], n_frames


def frame_modes(headers: list[tuple[FrameHeader, int]]) -> dict[str, int]:
    """Return the number of frames of each mode, by the name of the mode."""
    counts = {mode.name.lower(): 0 for mode in Mode}
    for header, _ in headers:
        counts[header.mode.name.lower()] += 1
    return counts
