"""Resize, centre crop and the memory cache."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gosvae.config import parse, to_tree
from gosvae.datasets.base import Dataset, Sample
from gosvae.datasets.geometry import GeometryConfig, Prepared, prepare
from gosvae.errors import ConfigError, DatasetError


def sample_of(height: int, width: int) -> Sample:
    """Red rises with the row and green with the column; the label is the quarter of the image."""
    rows, columns = np.mgrid[0:height, 0:width]
    image = np.stack([rows * 255 // height, columns * 255 // width, rows * 0], axis=-1).astype(np.uint8)
    quarter = (rows >= height / 2) * 2 + (columns >= width / 2)
    return Sample(image, quarter.astype(np.uint8), "sample")


class Counting(Dataset):
    """Counts how often each sample is decoded."""

    name = "counting"
    class_names = ("a", "b", "c", "d")

    def __init__(self, count: int) -> None:
        self.decoded = [0] * count

    def __len__(self) -> int:
        return len(self.decoded)

    def __getitem__(self, index: int) -> Sample:
        self.decoded[index] += 1
        return sample_of(8, 10)


def test_nothing_to_do_changes_nothing() -> None:
    sample = sample_of(7, 9)
    prepared = prepare(sample, GeometryConfig())
    assert np.array_equal(prepared.image_uint8_HW3, sample.image_uint8_HW3)
    assert np.array_equal(prepared.labels_uint8_HW, sample.labels_uint8_HW)


@given(
    height=st.integers(4, 20), width=st.integers(4, 20), crop_height=st.integers(1, 20), crop_width=st.integers(1, 20)
)
def test_the_crop_is_the_centre_of_image_and_labels(height: int, width: int, crop_height: int, crop_width: int) -> None:
    sample = sample_of(height, width)
    geometry = GeometryConfig(crop_height=crop_height, crop_width=crop_width)
    if crop_height > height or crop_width > width:
        with pytest.raises(DatasetError, match=f"{crop_height}x{crop_width}.*{height}x{width}"):
            prepare(sample, geometry)
        return
    prepared = prepare(sample, geometry)
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    window = np.s_[top : top + crop_height, left : left + crop_width]
    assert np.array_equal(prepared.image_uint8_HW3, sample.image_uint8_HW3[window])
    assert np.array_equal(prepared.labels_uint8_HW, sample.labels_uint8_HW[window])


@pytest.mark.parametrize(("height", "width"), [(32, 16), (8, 40), (16, 24)])
def test_resize_moves_image_and_labels_together(height: int, width: int) -> None:
    prepared = prepare(sample_of(16, 24), GeometryConfig(resize_height=height, resize_width=width))
    expected = sample_of(height, width)
    assert prepared.image_uint8_HW3.shape == (height, width, 3)
    assert np.array_equal(prepared.labels_uint8_HW, expected.labels_uint8_HW)
    difference = prepared.image_uint8_HW3.astype(int) - expected.image_uint8_HW3
    assert np.abs(difference).max() <= 255 / 8


def test_scaling_down_does_not_alias() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::2] = 255
    small = prepare(Sample(stripes, None, "stripes"), GeometryConfig(resize_height=16, resize_width=16))
    assert np.abs(small.image_uint8_HW3[2:-2].astype(int) - 127).max() <= 4


def test_labels_keep_their_values() -> None:
    labels = np.where(np.mgrid[0:31, 0:29].sum(axis=0) % 2, 255, 3).astype(np.uint8)
    sample = Sample(np.zeros((31, 29, 3), np.uint8), labels, "chess")
    prepared = prepare(sample, GeometryConfig(resize_height=11, resize_width=50))
    assert set(np.unique(prepared.labels_uint8_HW)) == {3, 255}


@pytest.mark.parametrize("tree", [{"crop_height": 4}, {"resize_width": 4}, {"crop_height": 0, "crop_width": 4}])
def test_impossible_geometry_is_a_config_error(tree: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        parse(GeometryConfig, tree)


def test_geometry_survives_the_configuration_file() -> None:
    geometry = GeometryConfig(resize_height=384, resize_width=512, crop_height=256, crop_width=512)
    assert parse(GeometryConfig, to_tree(geometry)) == geometry


def test_the_cache_keeps_what_fits_and_decodes_the_rest() -> None:
    source = Counting(4)
    geometry = GeometryConfig(crop_height=4, crop_width=5)
    prepared = Prepared(source, geometry, cache_bytes=2 * 4 * 5 * 4)
    first = [prepared[i] for i in range(4)]
    second = [prepared[i] for i in range(4)]
    assert source.decoded == [1, 1, 2, 2]
    assert all(np.array_equal(a.image_uint8_HW3, b.image_uint8_HW3) for a, b in zip(first, second, strict=True))
    assert (len(prepared), prepared.name, prepared.class_names) == (4, "counting", source.class_names)


def test_without_a_budget_nothing_is_kept() -> None:
    source = Counting(1)
    prepared = Prepared(source, GeometryConfig())
    assert prepared[0].name == prepared[0].name
    assert source.decoded == [2]
