"""Image files that tests make by hand, as the specifications lay them out."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def encode(image: Image.Image, image_format: str = "PNG", **options: object) -> io.BytesIO:
    stream = io.BytesIO()
    image.save(stream, format=image_format, **options)
    return stream


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


PNG_BEGINS = b"\x89PNG\r\n\x1a\n"
PNG_END = chunk(b"IEND", b"")


def png_of_size(width: int, height: int) -> io.BytesIO:
    """A PNG file that claims a size and holds no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return io.BytesIO(PNG_BEGINS + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + PNG_END)


def packed(values: np.ndarray, bits: int) -> bytes:
    """Rows of whole numbers as bit fields, the first in the highest bits, each row on a byte's border."""
    fields = (values.reshape(len(values), -1)[..., None] >> np.arange(bits)[::-1]) & 1
    return np.packbits(fields.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def png_of_values(values: np.ndarray, bits: int, colour_type: int, *chunks: bytes) -> io.BytesIO:
    """A PNG as the specification lays it out; values are (H, W) or (H, W, channels)."""
    height, width = values.shape[:2]
    rows = [b"\0" + packed(row[None], bits) for row in values]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
    return io.BytesIO(PNG_BEGINS + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(b"".join(rows))) + PNG_END)


def tiff_of_values(
    values: np.ndarray,
    bits: int,
    photometric: int,
    order: str = "<",
    sample_format: int = 1,
    extra_samples: int | None = None,
    orientation: int = 1,
) -> io.BytesIO:
    """An uncompressed TIFF as the specification lays it out; of 16 bits and more in the given byte order."""
    height, width = values.shape[:2]
    samples = 1 if values.ndim == 2 else values.shape[2]
    data = values.astype(f"{order}i{bits // 8}").tobytes() if bits >= 16 else packed(values, bits)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (274, orientation)]
    tags += [(277, samples), (278, height), (279, len(data))]
    tags += [(338, extra_samples)] if extra_samples is not None else []
    tags += [(339, sample_format)]
    at_end = 8 + len(data)
    directory, extra = struct.pack(f"{order}H", len(tags)), b""
    for tag, value in tags:
        repeated = samples if tag in (258, 339) else 1
        if repeated > 2:
            extra_at = at_end + 2 + 12 * len(tags) + 4 + len(extra)
            extra += struct.pack(f"{order}{repeated}H", *[value] * repeated)
            directory += struct.pack(f"{order}HHII", tag, 3, repeated, extra_at)
        else:
            directory += struct.pack(f"{order}HHII", tag, 4, 1, value)
    head = mark + struct.pack(f"{order}I", at_end)
    return io.BytesIO(head + data + directory + bytes(4) + extra)


def stored_as(orientation: int, upright: np.ndarray) -> np.ndarray:
    """Rows and columns as a camera stores an upright scene (EXIF 2.3, tag 0x0112: where row 0 and column 0 lie)."""
    return {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
