"""Class maps come back exactly, from bytes that nothing else makes, in a time that their size bounds."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from gosvae.codecs import class_map_scan
from gosvae.codecs.class_map import ClassMapBytes, decode_class_map, encode_class_map
from gosvae.codecs.class_map_passes import decode_passes, encode_passes
from gosvae.codecs.class_map_scan import EffortError, decode_scan, encode_scan
from gosvae.datasets.streets import Streets
from gosvae.entropy.ids import EntropyModelId
from gosvae.errors import BitstreamError, ShapeError
from gosvae.seeding import numpy_generator

SCAN, PASSES = EntropyModelId.LABEL_MAP, EntropyModelId.CLASS_MAP_PASSES
GOLDEN = Path(__file__).parents[1] / "golden"


def noise(height: int, width: int, class_count: int) -> ClassMapBytes:
    return numpy_generator(3, height, width).integers(0, class_count, (height, width)).astype(np.uint8)


def scene(height: int = 64, width: int = 96) -> ClassMapBytes:
    labels = Streets(1, seed=5, height=height, width=width)[0].labels_uint8_HW
    assert labels is not None
    return np.where(labels == 255, 11, labels).astype(np.uint8)


def encode(class_map: ClassMapBytes, class_count: int) -> tuple[int, bytes]:
    return encode_class_map(class_map, class_count, SCAN)


@pytest.mark.parametrize("class_count", [1, 2, 3, 12, 150, 256])
@pytest.mark.parametrize("size_hw", [(1, 1), (1, 2), (2, 1), (1, 700), (700, 1), (2, 2), (3, 5), (19, 23), (64, 65)])
def test_any_map_comes_back(size_hw: tuple[int, int], class_count: int) -> None:
    for class_map in (noise(*size_hw, class_count), np.full(size_hw, class_count - 1, np.uint8)):
        model_id, data = encode(class_map, class_count)
        decoded = decode_class_map(model_id, data, size_hw, class_count)
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded, class_map)
        assert encode(class_map.copy(), class_count) == (model_id, data)
        if class_count > 1:
            passes = encode_passes(class_map, class_count)
            np.testing.assert_array_equal(decode_class_map(PASSES, passes, size_hw, class_count), class_map)


def test_a_scene_takes_few_bytes() -> None:
    class_map = scene()
    model_id, data = encode(class_map, 12)
    assert model_id == SCAN
    np.testing.assert_array_equal(decode_class_map(SCAN, data, class_map.shape, 12), class_map)
    assert len(data) < 200  # 6,144 pixels; lossless JPEG XL takes 323
    assert len(encode_passes(class_map, 12)) < 323


def test_old_bytes_decode_for_ever() -> None:
    for model_id, name, shape_hw, expected in (
        (SCAN, "class_map_64x96_12.bin", (64, 96), "7aefc0329308fb1ae46db8faa53422576ff6f9003dded30e07e15cac7cf71660"),
        (
            PASSES,
            "class_map_passes_45x67_9.bin",
            (45, 67),
            "b2634f074d4de6974ce90f39ce7c04b44edd0b51b37e44fff9809c0734426162",
        ),
        (  # its last pass has two chunks
            PASSES,
            "class_map_passes_96x128_3.bin",
            (96, 128),
            "48a56034a4d6f8cb6ee3c804af2fe0b92d66c01c9061228de7f7fe0bb29b472b",
        ),
    ):
        class_count = int(name.partition(".")[0].rpartition("_")[2])
        class_map = decode_class_map(model_id, (GOLDEN / name).read_bytes(), shape_hw, class_count)
        assert hashlib.sha256(class_map.tobytes()).hexdigest() == expected, name


def test_views_are_coded_like_copies() -> None:
    view = scene()[::-1, 3:50]
    assert encode(view, 12) == encode(view.copy(), 12)


def damaged(data: bytes) -> list[bytes]:
    """Bytes that are near, none of which an encoder makes."""
    return [data[:length] for length in range(len(data))] + [data + more for more in (b"\0", b"\xff", bytes(9))]


@pytest.mark.parametrize("model_id", [SCAN, PASSES])
def test_damage_is_refused(model_id: EntropyModelId) -> None:
    class_map = scene(16, 24)
    data = encode_scan(class_map, 12) if model_id == SCAN else encode_passes(class_map, 12)
    assert data is not None
    for other in damaged(data):
        with pytest.raises(BitstreamError):
            decode_class_map(model_id, other, class_map.shape, 12)


def test_random_bytes_are_refused_or_are_maps() -> None:
    generator = numpy_generator(0, "bytes")
    for _ in range(300):
        data = generator.bytes(int(generator.integers(1, 40)))
        shape_hw, class_count = (int(generator.integers(1, 30)), int(generator.integers(1, 30))), 5
        for decode in (decode_passes, decode_scan):
            found = decode(data, shape_hw, class_count)
            if found is not None and found[1] == data:
                other = encode_passes if decode is decode_passes else encode_scan
                assert other(found[0], class_count) == data


def test_other_arrays_are_refused() -> None:
    for wrong in (np.zeros((2, 2), np.int64), np.zeros((2, 2, 1), np.uint8), np.zeros((0, 2), np.uint8)):
        with pytest.raises(ShapeError, match="expected a uint8 class map"):
            encode(wrong, 3)  # type: ignore[arg-type]
    with pytest.raises(BitstreamError, match=r"class 3 is outside \[0, 3\)"):
        encode(np.full((2, 2), 3, np.uint8), 3)
    for class_count in (0, 257):
        with pytest.raises(BitstreamError, match="class count"):
            encode(np.zeros((2, 2), np.uint8), class_count)


def test_large_maps_take_a_few_bytes_at_least() -> None:
    flat = np.zeros((600, 700), np.uint8)
    for class_count in (1, 12):
        model_id, data = encode(flat, class_count)
        assert len(data) == -(-(flat.size - 2**18) // 2**12)
        np.testing.assert_array_equal(decode_class_map(model_id, data, flat.shape, class_count), flat)
        for wrong in (data[:-1], data + b"\0"):
            with pytest.raises(BitstreamError):
                decode_class_map(model_id, wrong, flat.shape, class_count)
        tracemalloc.start()
        with pytest.raises(BitstreamError):
            decode_class_map(model_id, data, (16384, 16384), class_count)
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()


@pytest.mark.parametrize("class_map", [noise(128, 200, 12), np.zeros((30_000, 1), np.uint8)], ids=["noise", "rows"])
def test_maps_that_scan_slowly_are_coded_in_passes(class_map: ClassMapBytes, monkeypatch: pytest.MonkeyPatch) -> None:
    model_id, data = encode(class_map, 12)
    assert model_id == PASSES
    np.testing.assert_array_equal(decode_class_map(PASSES, data, class_map.shape, 12), class_map)
    with monkeypatch.context() as patch:  # as versions up to 0.2 wrote them
        patch.setattr(class_map_scan, "_FREE_EFFORT", 10**9)
        old = encode_scan(class_map, 12)
    assert old is not None
    with pytest.raises(EffortError):
        decode_scan(old, class_map.shape, 12)
    with pytest.raises(BitstreamError, match="compress it again"):
        decode_class_map(SCAN, old, class_map.shape, 12)


def test_a_scan_ends_when_its_bytes_are_used_up() -> None:
    """Zeros follow the bytes without end: a reader must not go on in them for all the effort of a large map."""
    shape_hw = (2000, 2000)
    for data in (b"\x5a" * 400, b"\xff" * 400, bytes(range(256)) * 2):
        coder = class_map_scan._MapCoder(class_map_scan.SymbolReader(data), shape_hw, 12)
        whole = coder.left
        with pytest.raises(AssertionError):
            coder.run(None)
        assert whole - coder.left < 200 * len(data)
