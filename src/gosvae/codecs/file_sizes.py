"""Size that a picture file announces, read from its headers alone; no other library sees the bytes.

Sources: AV1 Bitstream & Decoding Process Specification (2019), section 5.5; ISO/IEC 14496-12 (boxes) and 23008-12
(HEIF); ISO/IEC 18181-1 (JPEG XL), SizeHeader; RFC 9649 (WebP).
"""

from __future__ import annotations

from collections.abc import Iterator

_SEQUENCE_HEADER = 1
_MOST_ITEMS, _MOST_BOXES, _MOST_UNITS = 64, 1024, 1024
"""Largest numbers of pictures and boxes of an AVIF file, and of units of a picture; files with more are refused."""
_JXL_RATIOS = ((0, 1), (1, 1), (6, 5), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
"""Ratios of width to height by their numbers."""


class _Bits:
    """Reader of bits, the first one highest; it raises `ValueError` at the end of the data."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        """Return the next `count` bits as a number."""
        self._left -= count
        if self._left < 0:
            raise ValueError("the header ends early")
        return self._value >> self._left & ((1 << count) - 1)

    def take_long(self) -> int:
        """Return the next number in the variable code of AV1 (uvlc)."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + (self.take(zeros) if zeros < 32 else 0)


class _Cursor:
    """Reader of big-endian numbers; it raises `ValueError` at the end of the data."""

    def __init__(self, data: bytes, place: int = 0) -> None:
        self.data, self.place = data, place

    def take(self, n_bytes: int) -> int:
        """Return the next bytes as a number."""
        self.place += n_bytes
        if self.place > len(self.data):
            raise ValueError("the box ends early")
        return int.from_bytes(self.data[self.place - n_bytes : self.place], "big")


def avif_pixels(data: bytes) -> int:
    """Return an upper bound of the number of pixels of all pictures that are coded in an AVIF file.

    AV1 data have a size of their own, which decoders follow, whatever the boxes of the file say. Where a frame may have
    another size than its sequence header says, the bound is the largest size that a frame can have.

    Raises:
        ValueError: the file has another form than one that holds pictures as items.
    """
    metas = [contents for kind, contents in _boxes(data) if kind == b"meta"]
    if len(metas) != 1:
        raise ValueError("an AVIF file without a single box of items")
    inner = list(_boxes(metas[0][4:]))
    locations, contained = ([contents for kind, contents in inner if kind == name] for name in (b"iloc", b"idat"))
    if len(locations) != 1 or len(contained) > 1:
        raise ValueError("an AVIF file without a single table of its items")
    return sum(_av1_pixels(item) for item in _items(locations[0], data, b"".join(contained)))


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and contents of each box."""
    cursor = _Cursor(data)
    for _ in range(_MOST_BOXES):
        if cursor.place == len(data):
            return
        begin, length, kind = cursor.place, cursor.take(4), cursor.take(4).to_bytes(4, "big")
        if length == 1:
            length = cursor.take(8)
        end = len(data) if length == 0 else begin + length
        if not cursor.place <= end <= len(data):
            raise ValueError("a box of no valid length")
        yield kind, data[cursor.place : end]
        cursor.place = end
    raise ValueError("too many boxes")


def _items(table: bytes, file: bytes, contained: bytes) -> Iterator[bytes]:
    """Yield the bytes of each item that a table of locations names."""
    cursor = _Cursor(table)
    version = cursor.take(1)
    cursor.take(3)
    sizes = cursor.take(2)
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    count = cursor.take(4 if version == 2 else 2)
    if version > 2 or count > _MOST_ITEMS:
        raise ValueError("a table of locations of an unknown form")
    for _ in range(count):
        cursor.take(4 if version == 2 else 2)
        method = cursor.take(2) & 15 if version else 0
        cursor.take(2)
        base, parts = cursor.take(base_size), []
        if method > 1:
            raise ValueError("an item made of other items")
        source = contained if method else file
        for _ in range(cursor.take(2)):
            cursor.take(index_size)
            offset, length = cursor.take(offset_size), cursor.take(length_size)
            parts.append(source[base + offset : base + offset + length if length else len(source)])
            if sum(map(len, parts)) > len(source):
                raise ValueError("an item with more bytes than the file")
        yield b"".join(parts)


def _av1_pixels(data: bytes) -> int:
    """Return the largest number of pixels of a frame of AV1 data; 0 for data that are none."""
    cursor, pixels = _Cursor(data), 0
    try:
        for _ in range(_MOST_UNITS):
            if cursor.place >= len(data):
                return pixels
            first = cursor.take(1)
            cursor.take(first >> 2 & 1)
            length = _leb128(cursor) if first & 2 else len(data) - cursor.place
            if first >> 3 & 15 == _SEQUENCE_HEADER:
                pixels = max(pixels, _sequence_pixels(data[cursor.place : cursor.place + length]))
            cursor.place += length
    except ValueError:  # other data, such as remarks; decoders refuse units that are not complete
        return pixels
    raise ValueError("too many units of AV1")


def _leb128(cursor: _Cursor) -> int:
    value = 0
    for place in range(8):
        byte = cursor.take(1)
        value |= (byte & 127) << 7 * place
        if byte < 128:
            break
    return value


def _sequence_pixels(header: bytes) -> int:
    """Return the largest number of pixels of a frame after a sequence header (section 5.5.1)."""
    bits = _Bits(header[:1024])
    bits.take(4)  # profile, still picture
    reduced = bits.take(1)
    if reduced:
        bits.take(5)
    else:
        delay_bits = 0
        if bits.take(1):  # timing
            bits.take(64)
            if bits.take(1):
                bits.take_long()
            if bits.take(1):  # model of the decoder
                delay_bits = bits.take(5) + 1
                bits.take(42)
        has_delays = bits.take(1)
        for _ in range(bits.take(5) + 1):  # operating points
            bits.take(12)
            if bits.take(5) > 7:
                bits.take(1)
            if delay_bits and bits.take(1):
                bits.take(2 * delay_bits + 1)
            if has_delays and bits.take(1):
                bits.take(4)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    width, height = bits.take(width_bits) + 1, bits.take(height_bits) + 1
    return width * height if reduced else 1 << width_bits + height_bits


def webp_pixels(data: bytes) -> int:
    """Return the number of pixels of a WebP file; 0 if it does not begin as one."""
    kind, contents = data[12:16], data[20:30]
    if len(contents) < 10:
        return 0
    number = int.from_bytes(contents, "little")
    if kind == b"VP8X":
        return ((number >> 32 & 0xFFFFFF) + 1) * ((number >> 56) + 1)
    if kind == b"VP8L" and contents[0] == 0x2F:
        return ((number >> 8 & 0x3FFF) + 1) * ((number >> 22 & 0x3FFF) + 1)
    if kind == b"VP8 " and contents[3:6] == b"\x9d\x01\x2a":
        return (number >> 48 & 0x3FFF) * (number >> 64 & 0x3FFF)
    return 0


def jpegxl_pixels(codestream: bytes) -> int:
    """Return the number of pixels of a JPEG XL codestream; 0 if it is too short."""
    header = codestream[2:16]
    bits, position = int.from_bytes(header, "little"), 0

    def take(count: int) -> int:
        nonlocal position
        position += count
        return bits >> (position - count) & ((1 << count) - 1)

    small = take(1)

    def side() -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    height = side()
    ratio = take(3)
    width = side() if ratio == 0 else height * _JXL_RATIOS[ratio][0] // _JXL_RATIOS[ratio][1]
    return height * width if position <= 8 * (len(codestream) - 2) else 0
