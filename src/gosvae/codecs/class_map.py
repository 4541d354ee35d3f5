"""Lossless coding of class maps, for the label-map codec and for codecs that send a semantic map.

There are two codings. `class_map_scan` takes the fewest bytes, in a time that depends on the map; `class_map_passes`
takes a time in proportion to the pixels. The *effort* of a scan counts its steps. A map of more effort than its size
allows is coded in passes, and a scan of more effort is refused.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gosvae.codecs.class_map_passes import decode_passes, encode_passes
from gosvae.codecs.class_map_scan import EffortError, decode_scan, encode_scan
from gosvae.entropy.ids import EntropyModelId
from gosvae.errors import BitstreamError, ShapeError

ClassMapBytes = npt.NDArray[np.uint8]
"""Class of every pixel, uint8 (H, W)."""

_FREE_PIXELS = 2**18
"""Number of pixels of a map that may take no bytes at all."""
_PIXELS_PER_BYTE = 2**12
"""Number of further pixels for each byte, so that a reader spends memory and time in proportion to the bytes it got."""


def encode_class_map(
    map_uint8_HW: ClassMapBytes, class_count: int, scan_id: EntropyModelId
) -> tuple[EntropyModelId, bytes]:
    """Return the coding and the bytes of a map, uint8 (H, W) with values in [0, class_count), at least one pixel.

    The same map always gives the same bytes. The bytes of large maps are padded with zeros to one byte for each 4096
    pixels beyond 2**18. They do not contain size and class count, which `decode_class_map` takes as arguments.

    Args:
        map_uint8_HW: the map.
        class_count: number of classes.
        scan_id: id that a scan has in the streams of the codec. A map in passes has the id `CLASS_MAP_PASSES`.

    Raises:
        ShapeError: the array is not a uint8 map with pixels.
        BitstreamError: a class outside [0, class_count), or a class count outside 1..256.
    """
    class_map = np.asarray(map_uint8_HW)
    if class_map.ndim != 2 or class_map.size == 0 or class_map.dtype != np.uint8:
        raise ShapeError(f"expected a uint8 class map (H, W), not empty, got {class_map.dtype}", class_map.shape)
    _check_class_count(class_count)
    if int(class_map.max()) >= class_count:
        raise BitstreamError(f"class {int(class_map.max())} is outside [0, {class_count}): give the true class count")
    model_id, data = scan_id, b"" if class_count == 1 else encode_scan(class_map, class_count)
    if data is None:
        model_id, data = EntropyModelId.CLASS_MAP_PASSES, encode_passes(class_map, class_count)
    return model_id, padded(data, class_map.size)


def padded(data: bytes, n_pixels: int) -> bytes:
    """Return the bytes of a map of so many pixels, filled up with zeros, which change nothing after the end."""
    return data.ljust(_least_bytes(n_pixels), b"\0")


def _least_bytes(n_pixels: int) -> int:
    return -(-max(0, n_pixels - _FREE_PIXELS) // _PIXELS_PER_BYTE)


def decode_class_map(model_id: int, data: bytes, shape_hw: tuple[int, int], class_count: int) -> ClassMapBytes:
    """Return the map, uint8 (H, W) with values in [0, class_count), of the bytes of `encode_class_map`.

    Args:
        model_id: `CLASS_MAP_PASSES`, or any other id for a scan.
        data: the bytes.
        shape_hw: height and width of the map.
        class_count: number of classes.

    Raises:
        ShapeError: a side of the shape is not positive.
        BitstreamError: these bytes are no map of this shape and class count, or they are a scan of more effort than the
            shape allows. Versions up to 0.2 made such scans of maps like noise.
    """
    _check_class_count(class_count)
    if len(shape_hw) != 2 or min(shape_hw) < 1:
        raise ShapeError("expected the shape (H, W) of a class map with positive sides", shape_hw)
    n_pixels = shape_hw[0] * shape_hw[1]
    if len(data) < _least_bytes(n_pixels):  # checked before memory is taken
        raise BitstreamError(_not_a_map(data, shape_hw))
    decode = decode_passes if model_id == EntropyModelId.CLASS_MAP_PASSES else decode_scan
    try:
        found = (np.zeros(shape_hw, np.uint8), b"") if class_count == 1 else decode(data, shape_hw, class_count)
    except EffortError:
        raise BitstreamError(
            f"a class map of {shape_hw[0]}x{shape_hw[1]} pixels with more edges than can be decoded in the time "
            "allowed: compress it again with this version, which codes such maps in another way"
        ) from None
    # Missing, extra or changed bytes that still decode: only the bytes that an encoder makes are a map.
    if found is None or padded(found[1], n_pixels) != data:
        raise BitstreamError(_not_a_map(data, shape_hw))
    return found[0]


def _not_a_map(data: bytes, shape_hw: tuple[int, int]) -> str:
    return f"{len(data)} bytes are not a class map of {shape_hw[0]}x{shape_hw[1]} pixels: damaged, or of other classes"


def _check_class_count(class_count: int) -> None:
    if not 1 <= class_count <= 256:
        raise BitstreamError(f"class count {class_count}: expected 1..256")
