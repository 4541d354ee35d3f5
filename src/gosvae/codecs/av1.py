"""AV1 still pictures without their container: the frame of an AVIF file, and the file made of it again.

A file that Pillow writes has about 265 bytes of boxes and a sequence header around the frame. All of them follow from
the size of the picture and seven bits, so that a stream holds the frame alone. Decoding AV1 is exact: every decoder
makes the same picture of a frame.

Sources: AV1 Bitstream & Decoding Process Specification (2019), sections 5.3 to 5.5; AV1 Image File Format (AVIF) 1.1;
ISO/IEC 14496-12 (boxes) and 23008-12 (HEIF).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from gosvae.errors import BitstreamError, ImageError
from gosvae.fields import FieldReader, varint
from gosvae.tensors import ImageArray

MAX_SIDE = 32768
"""Largest height or width of an AV1 picture that Pillow's libraries take, in pixels."""
QUALITIES = range(1, 101)
"""Qualities of the encoder, as in `PIL.Image.Image.save`."""
MAX_TOOLS = 63
"""Largest value of `Av1Frame.tools`."""

Tuning = Literal["faithful", "machine"]
"""Names of the two readers of a picture, a network or people; see `encode_av1`."""
_SETTINGS: dict[Tuning, dict[str, Any]] = {
    "faithful": {"subsampling": "4:2:0"},
    "machine": {"subsampling": "4:4:4", "advanced": {"enable-cdef": "0", "loopfilter-control": "0"}},
}
"""Settings of Pillow's AVIF encoder, by the name of the tuning."""

_SEQUENCE_HEADER, _TEMPORAL_DELIMITER, _FRAME = 1, 2, 6
_PRIMARIES_TRANSFER_MATRIX = (1, 13, 6)
"""Colours of the files (BT.709, sRGB, BT.601 at full range), which a sequence header may repeat."""
_LEVEL = 31
"""Level of the sequence headers that are written: no limit, since the true one does not matter to decoders."""


@dataclass(frozen=True)
class Av1Frame:
    """A coded picture.

    Attributes:
        tools: six bits of the sequence header that the coded data depends on, 0..63: superblocks of 128, filter intra,
            intra edge filter, super-resolution, CDEF and loop restoration, the first one highest.
        data: contents of the frame's open bitstream unit (OBU).
        full_chroma: whether colours have the size of the picture (4:4:4) instead of half of it on each axis (4:2:0).
    """

    tools: int
    data: bytes
    full_chroma: bool = False


def encode_av1(image_uint8_HW3: ImageArray, quality: int, *, speed: int, tuning: Tuning = "faithful") -> Av1Frame:
    """Return the frame of a picture, uint8 (H, W, 3), with 8 bits.

    The bytes do not depend on the number of processors. The tuning for perception models codes colours at full size
    and turns off the filters behind the decoding of blocks, which cost such models more than they gain
    (`docs/rate-task.md`).

    Args:
        image_uint8_HW3: picture with sides of at most `MAX_SIDE`.
        quality: 1..100, as in `QUALITIES`; higher is better and takes more bytes.
        speed: 0 (slowest, fewest bytes) to 10.
        tuning: `faithful` for the least error, in 4:2:0, or `machine` for perception models.

    Raises:
        ImageError: a side is too long, or Pillow's encoder writes files of an unknown form.
    """
    height, width = image_uint8_HW3.shape[:2]
    if max(height, width) > MAX_SIDE:
        raise ImageError(f"AV1 holds at most {MAX_SIDE} pixels a side, got {height}x{width}: shrink the image")
    file = io.BytesIO()
    options = {"quality": quality, "speed": speed, "max_threads": 1, "range": "full", **_SETTINGS[tuning]}
    Image.fromarray(image_uint8_HW3).save(file, "AVIF", **options)
    return frame_of_avif(file.getvalue(), height, width)


def decode_av1(frame: Av1Frame, height: int, width: int) -> ImageArray:
    """Return the picture, uint8 (height, width, 3), of a frame.

    Raises:
        BitstreamError: the data is no frame of this size.
    """
    if not 0 <= frame.tools <= MAX_TOOLS or not 0 < max(height, width) <= MAX_SIDE:
        raise BitstreamError(f"AV1 picture of {height}x{width} pixels with tools {frame.tools}: damaged")
    try:
        with Image.open(io.BytesIO(avif_of_frame(frame, height, width)), formats=["AVIF"]) as image:
            picture = np.asarray(image.convert("RGB"))
    except Exception as error:  # decoders raise nearly any type on damaged bytes
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise BitstreamError(f"damaged: no AV1 picture in a payload of {len(frame.data)} bytes ({reason})") from None
    if picture.shape != (height, width, 3):
        raise BitstreamError(f"damaged: an AV1 picture of {picture.shape[:2]} pixels, expected {(height, width)}")
    return picture


def frame_of_avif(file: bytes, height: int, width: int) -> Av1Frame:
    """Return the frame of an AVIF file with one picture of height x width pixels.

    Raises:
        ImageError: the file holds something else than one frame after the usual sequence header.
    """
    units = [unit for unit in _units(_media_data(file)) if unit[0] != _TEMPORAL_DELIMITER]
    if [kind for kind, _ in units] == [_SEQUENCE_HEADER, _FRAME]:
        found = units[0][1]
        width_bits, height_bits = (width - 1).bit_length() or 1, (height - 1).bit_length() or 1
        left = 8 * len(found) - (18 + width_bits + height_bits)
        bits = int.from_bytes(found, "big")
        tools, level = bits >> (left - 6) & MAX_TOOLS if left >= 6 else 0, bits >> (8 * len(found) - 10) & 31
        frame = Av1Frame(tools, units[1][1], full_chroma=bits >> (8 * len(found) - 3) == 1)
        if any(_sequence_header(height, width, frame, level, described) == found for described in (False, True)):
            return frame
    raise ImageError(
        f"Pillow's AVIF encoder wrote units of the types {[kind for kind, _ in units]} in an unknown form: install a "
        "release of Pillow with libaom"
    )


def avif_of_frame(frame: Av1Frame, height: int, width: int) -> bytes:
    """Return the smallest AVIF file of a frame: the boxes that a decoder needs, a sequence header, the frame."""
    header = _sequence_header(height, width, frame, _LEVEL, described=False)
    media = _unit(_SEQUENCE_HEADER, header) + _unit(_FRAME, frame.data)
    # Version 1, the profile and the level, 8 bits, 4:4:4 or 4:2:0.
    configuration = bytes([0x81, frame.full_chroma << 5 | _LEVEL, 0 if frame.full_chroma else 0x0C, 0])
    colours = b"nclx" + b"".join(number.to_bytes(2, "big") for number in _PRIMARIES_TRANSFER_MATRIX) + b"\x80"
    properties = (
        _box("ispe", bytes(4) + width.to_bytes(4, "big") + height.to_bytes(4, "big"))
        + _box("pixi", bytes(4) + b"\x03\x08\x08\x08")
        + _box("av1C", configuration)
        + _box("colr", colours)
    )
    association = bytes(4) + (1).to_bytes(4, "big") + b"\x00\x01\x04\x01\x02\x83\x04"  # 83: av1C is essential
    item = _box("infe", b"\x02\0\0\0" + b"\x00\x01\x00\x00" + b"av01" + b"\0")

    def meta(offset: int) -> bytes:
        place = b"\x00\x01\x00\x00\x00\x01" + offset.to_bytes(4, "big") + len(media).to_bytes(4, "big")
        return _box(
            "meta",
            bytes(4)
            + _box("hdlr", bytes(8) + b"pict" + bytes(13))
            + _box("pitm", bytes(4) + b"\x00\x01")
            + _box("iloc", bytes(4) + b"\x44\x00" + b"\x00\x01" + place)
            + _box("iinf", bytes(4) + b"\x00\x01" + item)
            + _box("iprp", _box("ipco", properties) + _box("ipma", association)),
        )

    kind = _box("ftyp", b"avif" + bytes(4) + b"avifmif1miaf")
    return kind + meta(len(kind) + len(meta(0)) + 8) + _box("mdat", media)


def _box(kind: str, contents: bytes) -> bytes:
    return (8 + len(contents)).to_bytes(4, "big") + kind.encode() + contents


def _unit(kind: int, contents: bytes) -> bytes:
    """Return an open bitstream unit (OBU) with its length."""
    return bytes([kind << 3 | 2]) + varint(len(contents)) + contents


def _units(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and contents of every OBU.

    Raises:
        ImageError: a unit has no length, an extension, or more bytes than there are.
    """
    reader = FieldReader(data, 0)
    while reader.position < len(data):
        try:
            (first,) = reader.take(1)
            contents = reader.take(reader.varint("length", 2**32))
        except BitstreamError:
            first = 0
        if first & 0x86 != 2:
            raise ImageError(f"units of an unknown form in {len(data)} bytes of AV1: install a newer release of Pillow")
        yield first >> 3, contents


def _media_data(file: bytes) -> bytes:
    """Return the contents of the box `mdat`."""
    start = 0
    while start + 8 <= len(file):
        length, kind = int.from_bytes(file[start : start + 4], "big"), file[start + 4 : start + 8]
        if kind == b"mdat":
            return file[start + 8 : start + length]
        start += max(length, 8)
    return b""


def _sequence_header(height: int, width: int, frame: Av1Frame, level: int, described: bool) -> bytes:
    """Return the sequence header of a still picture with 8 bits (section 5.5).

    Args:
        height, width: size in pixels.
        frame: the frame; its data does not matter.
        level: level of the picture's size, 0..31.
        described: whether the header repeats the colours.
    """
    width_bits, height_bits = (width - 1).bit_length() or 1, (height - 1).bit_length() or 1
    fields = [
        (frame.full_chroma, 3), (0b11, 2),  # the profile, a still picture, the reduced header
        (level, 5), (width_bits - 1, 4), (height_bits - 1, 4), (width - 1, width_bits), (height - 1, height_bits),
        (frame.tools, 6),
        (0, 1), *([] if frame.full_chroma else [(0, 1)]),  # 8 bits, not monochrome
        (described, 1),
        *[(number, 8) for number in _PRIMARIES_TRANSFER_MATRIX if described],
        # Full range, position of chroma not known, one delta for U and V, no grain.
        (1, 1), *([] if frame.full_chroma else [(0, 2)]), (0, 1), (0, 1),
        (1, 1),  # the end, followed by zeros
    ]  # fmt: skip
    value, length = 0, 0
    for number, bits in fields:
        value, length = value << bits | number, length + bits
    n_bytes = -(-length // 8)
    return (value << (8 * n_bytes - length)).to_bytes(n_bytes, "big")
