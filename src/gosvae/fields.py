"""Fields of a container's header: varints, checksums, and a reader that takes one after the other."""

from __future__ import annotations

import struct

from gosvae.errors import BitstreamError

CRC = struct.Struct(">I")
"""Layout of a CRC-32."""


def varint(value: int) -> bytes:
    """Return a number as unsigned LEB128: seven bits in a byte, lowest first, the top bit set if more bytes follow."""
    field = bytearray()
    while value > 127:
        field.append(value & 127 | 128)
        value >>= 7
    field.append(value)
    return bytes(field)


class FieldReader:
    """Reader of the fields of a header, one after the other.

    Args:
        data: bytes of the stream.
        position: position of the first field.

    Raises (every method):
        BitstreamError: the data ends inside a field, or the field is not valid.
    """

    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.position = data, position

    def take(self, n_bytes: int) -> bytes:
        """Return the next bytes."""
        taken = self.data[self.position : self.position + n_bytes]
        if len(taken) < n_bytes:
            raise BitstreamError(f"truncated: {len(self.data)} bytes end inside the header of a gosvae stream")
        self.position += n_bytes
        return taken

    def varint(self, what: str, limit: int) -> int:
        """Return the next number, which must have its shortest form and be below `limit`."""
        value, shift = 0, 0
        while value < limit:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                if (byte > 0 or shift == 7) and value < limit:
                    return value
                break
            if shift > limit.bit_length():
                break
        raise BitstreamError(f"damaged: the {what} field is not valid")

    def crc(self) -> int:
        """Return the next checksum."""
        return int(CRC.unpack(self.take(CRC.size))[0])
