"""Arrays in messages: results come back as they were, and nothing false is decoded."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gosvae.errors import LinkError
from gosvae.protocol import arrays
from gosvae.protocol.arrays import CodedArray, Values, code_arrays


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.arange(6, dtype=np.uint8).reshape(2, 3), "uint8"),
        (np.array([0, 65535], np.uint16), "uint16"),
        (np.array([[0.5, -2.0]], np.float32), "float16"),
        (np.array([1e6, 0.25], np.float64), "float32"),
        (np.zeros((0, 4), np.float32), "float16"),
    ],
)
def test_an_array_comes_back(values: Values, kind: str) -> None:
    (coded,) = code_arrays("det", {"it": values})
    assert (coded.name, coded.shape, coded.kind) == ("it", values.shape, kind)
    back = coded.values()
    assert back.dtype == (np.float32 if kind.startswith("float") else values.dtype)
    np.testing.assert_array_equal(back, values)


def test_arrays_that_no_message_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LinkError, match="'it' is of int64: messages hold uint8, uint16 and floats"):
        code_arrays("det", {"it": np.arange(3)})
    monkeypatch.setattr(arrays, "MAX_RESULT_BYTES", 8)
    with pytest.raises(
        LinkError, match=r"the result of 'det' has \d+ bytes: messages hold 8; let it have fewer outputs"
    ):
        code_arrays("det", {"it": np.arange(200, dtype=np.uint8)})


def test_a_false_shape_costs_no_memory() -> None:
    (coded,) = code_arrays("det", {"it": np.zeros(4, np.uint8)})
    for shape in ((2**20, 2**20), (1,) * 9, (5,), (3,)):
        with pytest.raises(LinkError, match="shape"):
            replace(coded, shape=shape).values()
    bomb = CodedArray("it", (4,), "uint8", zlib.compress(bytes(2**22)))
    with pytest.raises(LinkError, match="are not an array"):
        bomb.values()


@given(st.binary(max_size=64), st.lists(st.integers(0, 5), max_size=3))
def test_any_bytes_are_an_array_or_an_error(data: bytes, shape: list[int]) -> None:
    try:
        values = CodedArray("it", tuple(shape), "uint16", data).values()
    except LinkError:
        return
    assert values.shape == tuple(shape)
