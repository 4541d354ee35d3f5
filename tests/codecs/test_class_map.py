"""Class maps come back exactly, from bytes that nothing else makes."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from gosvae.codecs.class_map import decode_class_map, encode_class_map
from gosvae.datasets.streets import Streets
from gosvae.errors import BitstreamError, ShapeError
from gosvae.seeding import numpy_generator


def noise(height: int, width: int, class_count: int) -> np.ndarray:
    return numpy_generator(3, height, width).integers(0, class_count, (height, width)).astype(np.uint8)


def scene(height: int = 64, width: int = 96) -> np.ndarray:
    labels = Streets(1, seed=5, height=height, width=width)[0].labels_uint8_HW
    assert labels is not None
    return np.where(labels == 255, 11, labels).astype(np.uint8)


@pytest.mark.parametrize("class_count", [1, 2, 3, 12, 150, 256])
@pytest.mark.parametrize("size_hw", [(1, 1), (1, 2), (2, 1), (1, 700), (700, 1), (2, 2), (3, 5), (19, 23)])
def test_any_map_comes_back(size_hw: tuple[int, int], class_count: int) -> None:
    for class_map in (noise(*size_hw, class_count), np.full(size_hw, class_count - 1, np.uint8)):
        data = encode_class_map(class_map, class_count)
        decoded = decode_class_map(data, size_hw, class_count)
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded, class_map)
        assert encode_class_map(class_map.copy(), class_count) == data


def test_a_scene_takes_few_bytes() -> None:
    class_map = scene()
    data = encode_class_map(class_map, 12)
    np.testing.assert_array_equal(decode_class_map(data, class_map.shape, 12), class_map)
    assert len(data) < 200  # 6,144 pixels; lossless JPEG XL takes 323


def test_old_bytes_decode_for_ever() -> None:
    data = (Path(__file__).parents[1] / "golden" / "class_map_64x96_12.bin").read_bytes()
    class_map = decode_class_map(data, (64, 96), 12)
    digest = hashlib.sha256(class_map.tobytes()).hexdigest()
    assert digest == "7aefc0329308fb1ae46db8faa53422576ff6f9003dded30e07e15cac7cf71660"


def test_views_are_coded_like_copies() -> None:
    view = scene()[::-1, 3:50]
    assert encode_class_map(view, 12) == encode_class_map(view.copy(), 12)


def test_damage_is_refused() -> None:
    class_map = scene(16, 24)
    data = encode_class_map(class_map, 12)
    for length in range(len(data)):
        with pytest.raises(BitstreamError):
            decode_class_map(data[:length], class_map.shape, 12)
    for more in (b"\0", b"\xff", bytes(9)):
        with pytest.raises(BitstreamError):
            decode_class_map(data + more, class_map.shape, 12)


def test_other_arrays_are_refused() -> None:
    for wrong in (np.zeros((2, 2), np.int64), np.zeros((2, 2, 1), np.uint8), np.zeros((0, 2), np.uint8)):
        with pytest.raises(ShapeError, match="expected a uint8 class map"):
            encode_class_map(wrong, 3)
    with pytest.raises(BitstreamError, match=r"class 3 is outside \[0, 3\)"):
        encode_class_map(np.full((2, 2), 3, np.uint8), 3)
    for class_count in (0, 257):
        with pytest.raises(BitstreamError, match="class count"):
            encode_class_map(np.zeros((2, 2), np.uint8), class_count)


def test_large_maps_take_a_few_bytes_at_least() -> None:
    flat = np.zeros((600, 700), np.uint8)
    for class_count in (1, 12):
        data = encode_class_map(flat, class_count)
        assert len(data) == -(-(flat.size - 2**18) // 2**12)
        np.testing.assert_array_equal(decode_class_map(data, flat.shape, class_count), flat)
        for wrong in (data[:-1], data + b"\0"):
            with pytest.raises(BitstreamError):
                decode_class_map(wrong, flat.shape, class_count)
        tracemalloc.start()
        with pytest.raises(BitstreamError):
            decode_class_map(data, (16384, 16384), class_count)
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()
