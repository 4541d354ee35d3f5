"""Lossless coding of the class maps in answers: a zlib stream (RFC 1950) of the map's bytes.

Each byte is the class of one pixel, row by row. The table compares codings of maps of 256x512 pixels with 12 classes,
for ten drawn scenes and for noise; times are processor times in milliseconds (`scripts/answer_maps.py`):

| coding | bytes | code | decode | noise: bytes | code | decode |
|---|--:|--:|--:|--:|--:|--:|
| this one, level 7 | 2,752 | 1.51 | 0.18 | 67,237 | 7.01 | 0.64 |
| grey PNG | 3,434 | 1.83 | 0.56 | 71,064 | 9.93 | 0.99 |
| `codecs.class_map` | 800 | 178.01 | 200.20 | 66,481 | 633.78 | 82.65 |

`codecs.class_map` is for streams, where bytes matter more than time: the label-map codec and GESCO use it. It is too
slow for answers, because the next batch waits while an answer is coded.
"""

from __future__ import annotations

import zlib
from typing import Literal

import numpy as np
import numpy.typing as npt

from gosvae.errors import LinkError

ClassMapCoding = Literal["zlib", "none"]
"""Coding of the class map in an answer; with `none` the answer has statistics only."""
ClassArray = npt.NDArray[np.uint8]
"""Class of every pixel, uint8 (H, W)."""
MAX_PIXELS = 2**28
"""Largest number of pixels of a class map that is decoded; it bounds the memory that a false size can take."""
_LEVEL = 7
"""Level of zlib: lower levels take more bytes in nearly the same time, and the highest level takes far longer."""


def encode_class_map(classes_uint8_HW: ClassArray, coding: ClassMapCoding) -> bytes:
    """Return the bytes of a class map, uint8 (H, W); they are empty with the coding `none`."""
    return b"" if coding == "none" else zlib.compress(classes_uint8_HW.tobytes(), _LEVEL)


def decode_class_map(data: bytes, coding: ClassMapCoding, height: int, width: int) -> ClassArray:
    """Return the class map, uint8 (height, width), of bytes that `encode_class_map` made.

    The size of the map bounds memory and time, whatever bytes are given.

    Raises:
        LinkError: the bytes are not a class map of this size, or the coding is `none`.
    """
    if coding == "none":
        raise LinkError("the answer holds no class map: ask for zlib")
    n_pixels = height * width
    if not 0 < n_pixels <= MAX_PIXELS:
        raise LinkError(f"a class map of {width}x{height} pixels: expected 1 to {MAX_PIXELS} pixels")
    decoder = zlib.decompressobj()
    try:
        classes = decoder.decompress(data, n_pixels + 1)  # one more, to see that the stream ends where the map does
    except zlib.error as error:
        raise LinkError(f"a class map of {len(data)} bytes is a damaged zlib stream: {error}") from None
    if len(classes) != n_pixels or not decoder.eof or decoder.unused_data:
        raise LinkError(f"{len(data)} bytes are not a class map of {width}x{height} pixels")
    return np.frombuffer(bytearray(classes), np.uint8).reshape(height, width)
