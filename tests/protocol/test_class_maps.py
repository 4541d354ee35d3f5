"""Class maps in answers: there and back, and nothing else is taken for one."""

from __future__ import annotations

import contextlib
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gosvae.errors import LinkError
from gosvae.protocol.class_maps import ClassArray, ClassMapCoding, decode_class_map, encode_class_map

MAPS = st.tuples(st.integers(1, 9), st.integers(1, 300)).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 255), fill=st.integers(0, 3))
)


@pytest.mark.parametrize("coding", ["png", "run-length"])
@given(classes_HW=MAPS)
def test_there_and_back(coding: ClassMapCoding, classes_HW: ClassArray) -> None:
    data = encode_class_map(classes_HW, coding)
    np.testing.assert_array_equal(decode_class_map(data, coding, *classes_HW.shape), classes_HW)


def test_runs_are_written_as_documented() -> None:
    classes_HW = np.array([[5] * 300 + [0], [0] * 301], np.uint8)
    assert encode_class_map(classes_HW, "run-length") == bytes([5, 0xAC, 0x02, 0, 0xAE, 0x02])


def test_no_map_is_no_bytes() -> None:
    assert encode_class_map(np.zeros((2, 3), np.uint8), "none") == b""
    with pytest.raises(LinkError, match="no class map"):
        decode_class_map(b"", "none", 2, 3)


RUNS = (b"", b"\x05", b"\x05\x80", b"\x05\x05", b"\x05\x07", b"\x05\x00\x05\x06", b"\x05" + b"\xff" * 20)


@pytest.mark.parametrize("data", RUNS)
def test_runs_that_do_not_fill_the_map_are_refused(data: bytes) -> None:
    with pytest.raises(LinkError):
        decode_class_map(data, "run-length", 2, 3)


def test_pngs_of_another_size_mode_or_with_damage_are_refused() -> None:
    png = encode_class_map(np.zeros((20, 30), np.uint8), "png")
    bomb = bytearray(png)
    bomb[16:24] = struct.pack(">II", 30000, 30000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    for data in (b"", png[:10], png[:40], bytes(bomb), b"GIF89a" + png):
        with pytest.raises(LinkError):
            decode_class_map(data, "png", 20, 30)
    with pytest.raises(LinkError, match="20x30"):
        decode_class_map(png, "png", 30, 20)


@given(data=st.binary(max_size=200), coding=st.sampled_from(["png", "run-length"]))
def test_noise_is_refused_or_a_map_of_the_size(data: bytes, coding: ClassMapCoding) -> None:
    with contextlib.suppress(LinkError):
        assert decode_class_map(data, coding, 3, 4).shape == (3, 4)
