"""Class maps as answers hold them: a grey PNG, or runs. `proto/link.proto` names the codings."""

from __future__ import annotations

import struct
import warnings
from io import BytesIO
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from gosvae.errors import LinkError

ClassMapCoding = Literal["png", "run-length", "none"]
ClassArray = npt.NDArray[np.uint8]
"""Class of every pixel, uint8 (H, W)."""
_PNG_SIZE = struct.Struct(">II")


def encode_class_map(classes_uint8_HW: ClassArray, coding: ClassMapCoding) -> bytes:
    """The bytes of a class map; none for `none`."""
    if coding == "none":
        return b""
    if coding == "run-length":
        return _encode_runs(classes_uint8_HW)
    stream = BytesIO()
    Image.fromarray(classes_uint8_HW).save(stream, format="PNG", compress_level=4)
    return stream.getvalue()


def decode_class_map(data: bytes, coding: ClassMapCoding, height: int, width: int) -> ClassArray:
    """The class map, uint8 (height, width), of its bytes.

    Raises:
        LinkError: the bytes are no class map of this size, or the coding is `none`.
    """
    if coding == "run-length":
        return _decode_runs(data, height, width)
    if coding == "none":
        raise LinkError("the answer holds no class map: ask for png or run-length")
    # The size in a PNG's first chunk, so that no memory is taken for an untrue one.
    if data[:8] != b"\x89PNG\r\n\x1a\n" or len(data) < 24 or _PNG_SIZE.unpack(data[16:24]) != (width, height):
        raise LinkError(f"a class map of {len(data)} bytes is no PNG of {width}x{height} pixels")
    try:
        with warnings.catch_warnings(), Image.open(BytesIO(data), formats=["PNG"]) as image:
            warnings.simplefilter("ignore")
            if image.mode != "L":
                raise LinkError(f"a class map is a grey 8-bit PNG, got mode {image.mode}")
            return np.array(image)
    except (OSError, ValueError, SyntaxError) as error:
        raise LinkError(f"a class map of {len(data)} bytes is a damaged PNG: {error}") from None


def _encode_runs(classes_uint8_HW: ClassArray) -> bytes:
    flat_N = classes_uint8_HW.reshape(-1)
    starts = np.flatnonzero(np.concatenate([[True], flat_N[1:] != flat_N[:-1]]))
    lengths = np.diff(np.append(starts, flat_N.size))
    data = bytearray()
    for value, length in zip(flat_N[starts].tolist(), lengths.tolist(), strict=True):
        data.append(value)
        while length > 127:
            data.append(length & 127 | 128)
            length >>= 7
        data.append(length)
    return bytes(data)


def _decode_runs(data: bytes, height: int, width: int) -> ClassArray:
    values, lengths, position = [], [], 0
    while position < len(data):
        values.append(data[position])
        position, length, shift = position + 1, 0, 0
        while True:
            if position >= len(data) or shift > 56:
                raise LinkError("a class map in runs ends inside a run")
            byte = data[position]
            position, length, shift = position + 1, length | (byte & 127) << shift, shift + 7
            if byte < 128:
                break
        lengths.append(length)
    if sum(lengths) != height * width or 0 in lengths:
        raise LinkError(f"a class map in runs has {sum(lengths)} pixels where {width}x{height} are expected")
    return np.repeat(np.array(values, np.uint8), lengths).reshape(height, width)
