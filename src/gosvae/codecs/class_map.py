"""Lossless coding of class maps: the label-map codec and codecs that send a semantic map beside their picture use it."""

from __future__ import annotations

import imagecodecs
import numpy as np
import numpy.typing as npt

from gosvae.errors import BitstreamError, ShapeError

ClassMapBytes = npt.NDArray[np.uint8]
"""Class of every pixel, uint8 (H, W)."""


def encode_class_map(map_uint8_HW: ClassMapBytes, class_count: int) -> bytes:
    """The map, uint8 (H, W) with values in [0, class_count), in as few bytes as we know how; deterministic.

    Size and class count are not in the bytes: `decode_class_map` takes them.

    Raises:
        ShapeError: the array is not a uint8 map with pixels.
        BitstreamError: a class outside [0, class_count), or a class count outside 1..256.
    """
    class_map = _checked(map_uint8_HW, class_count)
    if class_count == 1:
        return b""
    return bytes(imagecodecs.jpegxl_encode(class_map, lossless=True, effort=9, usecontainer=False, numthreads=1))


def decode_class_map(data: bytes, shape_hw: tuple[int, int], class_count: int) -> ClassMapBytes:
    """Inverse of `encode_class_map`: uint8 (H, W), every class in [0, class_count).

    Raises:
        BitstreamError: `encode_class_map` makes these bytes from no map of this shape and class count.
    """
    error = f"class map of {len(data)} bytes is not one of {shape_hw[0]}x{shape_hw[1]} pixels: damaged, or not a map"
    if class_count == 1:
        class_map: ClassMapBytes = np.zeros(shape_hw, np.uint8)
    else:
        try:
            class_map = np.asarray(imagecodecs.jpegxl_decode(data, numthreads=1))
        except Exception:  # libjxl's wrapper raises its own kinds
            raise BitstreamError(error) from None
        if class_map.dtype != np.uint8 or class_map.shape != tuple(shape_hw) or int(class_map.max()) >= class_count:
            raise BitstreamError(error)
    if encode_class_map(class_map, class_count) != data:  # missing, extra or changed bytes that still decode
        raise BitstreamError(error)
    return class_map


def _checked(map_uint8_HW: ClassMapBytes, class_count: int) -> ClassMapBytes:
    class_map = np.asarray(map_uint8_HW)
    if class_map.ndim != 2 or class_map.size == 0 or class_map.dtype != np.uint8:
        raise ShapeError(f"expected a uint8 class map (H, W), not empty, got {class_map.dtype}", class_map.shape)
    if not 1 <= class_count <= 256:
        raise BitstreamError(f"class count {class_count}: expected 1..256")
    if int(class_map.max()) >= class_count:
        raise BitstreamError(f"class {int(class_map.max())} is outside [0, {class_count}): give the true class count")
    return np.ascontiguousarray(class_map)
