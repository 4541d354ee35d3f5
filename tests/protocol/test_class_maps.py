"""Class maps in answers: there and back, and nothing else is taken for one."""

from __future__ import annotations

import contextlib
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gosvae.errors import LinkError
from gosvae.protocol.class_maps import MAX_PIXELS, ClassArray, decode_class_map, encode_class_map

MAPS = st.tuples(st.integers(1, 9), st.integers(1, 300)).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 255), fill=st.integers(0, 3))
)


@given(classes_HW=MAPS)
def test_there_and_back(classes_HW: ClassArray) -> None:
    data = encode_class_map(classes_HW, "zlib")
    decoded_HW = decode_class_map(data, "zlib", *classes_HW.shape)
    np.testing.assert_array_equal(decoded_HW, classes_HW)
    assert decoded_HW.dtype == np.uint8
    decoded_HW[0, 0] = 7  # the caller's own


def test_a_map_is_written_as_documented() -> None:
    classes_HW = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert zlib.decompress(encode_class_map(classes_HW, "zlib")) == bytes(range(6))
    np.testing.assert_array_equal(decode_class_map(zlib.compress(bytes(range(6)), 0), "zlib", 2, 3), classes_HW)


def test_views_are_coded_in_reading_order() -> None:
    classes_HW = np.arange(24, dtype=np.uint8).reshape(4, 6)[::2, ::-1].T
    np.testing.assert_array_equal(decode_class_map(encode_class_map(classes_HW, "zlib"), "zlib", 6, 2), classes_HW)


def test_no_map_is_no_bytes() -> None:
    assert encode_class_map(np.zeros((2, 3), np.uint8), "none") == b""
    with pytest.raises(LinkError, match="no class map: ask for zlib"):
        decode_class_map(b"", "none", 2, 3)


GOOD = encode_class_map(np.arange(6, dtype=np.uint8).reshape(2, 3), "zlib")
BAD = {
    "empty": b"",
    "cut": GOOD[:-1],
    "longer": GOOD + b"\0",
    "twice": GOOD + GOOD,
    "checksum": GOOD[:-1] + bytes((GOOD[-1] ^ 1,)),
    "a pixel fewer": zlib.compress(bytes(5)),
    "a pixel more": zlib.compress(bytes(7)),
    "gzip": zlib.compress(bytes(6), wbits=31),
    "raw deflate": zlib.compress(bytes(6), wbits=-15),
    "a dictionary": b"\x78\xbb\x00\x00\x00\x01",
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(LinkError):
        decode_class_map(data, "zlib", 2, 3)


def test_another_size_is_refused() -> None:
    for height, width in ((0, 6), (6, 0), (0, 0), (3, 3), (1, 5), (1, MAX_PIXELS + 1), (2**32 - 1, 2**32 - 1)):
        with pytest.raises(LinkError, match=f"{width}x{height} pixels"):
            decode_class_map(GOOD, "zlib", height, width)


def test_a_bomb_takes_no_more_memory_than_the_map() -> None:
    bomb = zlib.compress(bytes(2**26), 9)
    tracemalloc.start()
    try:
        with pytest.raises(LinkError, match="256x256"):
            decode_class_map(bomb, "zlib", 256, 256)
        with pytest.raises(LinkError):  # a true zlib stream, and a size that no stream of these bytes has
            decode_class_map(GOOD, "zlib", 2**14, 2**14)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@given(data=st.binary(max_size=200))
def test_noise_is_refused_or_a_map_of_the_size(data: bytes) -> None:
    with contextlib.suppress(LinkError):
        assert decode_class_map(data, "zlib", 3, 4).shape == (3, 4)
