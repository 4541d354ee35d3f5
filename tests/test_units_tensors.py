"""Units and array layouts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gosvae.errors import ConfigError, ShapeError
from gosvae.tensors import check_layout, image_to_tensor, pad_to_multiple, tensor_to_image
from gosvae.units import bytes_from_kib, kib, psnr_db, rate_bpp


def test_units() -> None:
    assert kib(2048) == 2.0
    assert bytes_from_kib(0.9999) == 1023  # never above the budget
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(ConfigError, match="expected a finite number"):
            bytes_from_kib(value)
    assert rate_bpp(8192, 256, 512) == 0.5
    assert psnr_db(0.01) == pytest.approx(20.0)
    assert psnr_db(0.0) == math.inf


def test_every_level_survives_the_tensor() -> None:
    image = np.arange(256 * 3, dtype=np.uint64).reshape(16, 16, 3).astype(np.uint8)
    x_B3HW = image_to_tensor(image)
    assert x_B3HW.shape == (1, 3, 16, 16)
    assert float(x_B3HW.max()) == 1.0
    np.testing.assert_array_equal(tensor_to_image(x_B3HW), image)
    np.testing.assert_array_equal(tensor_to_image(x_B3HW.bfloat16() * 0 + 2.0), np.full((16, 16, 3), 255))


def test_other_layouts_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"float64, got shape \(2, 2, 3\)"):
        image_to_tensor(np.zeros((2, 2, 3)))  # type: ignore[arg-type]
    with pytest.raises(ShapeError):
        tensor_to_image(torch.zeros(3, 4, 4))
    with pytest.raises(ShapeError, match=r"expected \(B, D, h, w\) with 4 channels, got shape \(1, 3, 4, 4\)"):
        check_layout(torch.zeros(1, 3, 4, 4), "(B, D, h, w)", axis_1=4)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([2, 4, 8, 16, 32]))
def test_padding_reaches_the_next_multiple_and_repeats_the_edge(height: int, width: int, multiple: int) -> None:
    x = torch.arange(height * width).reshape(1, 1, height, width).float()
    padded = pad_to_multiple(x, multiple)
    assert padded.shape[-2:] == (math.ceil(height / multiple) * multiple, math.ceil(width / multiple) * multiple)
    assert torch.equal(padded[..., :height, :width], x)
    assert torch.equal(padded[..., -1, -1], x[..., -1, -1])
