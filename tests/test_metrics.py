from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from gosvae.errors import ConfigError, DatasetError, ShapeError
from gosvae.metrics import ConfusionMatrix, mean_squared_error, zero_order_bits
from gosvae.units import psnr_db


def random_maps(seed: int, classes: int, images: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(seed)
    maps = []
    for _ in range(images):
        shape = tuple(generator.integers(5, 12, 2))
        labels = generator.integers(0, classes, shape).astype(np.uint8)
        predicted = np.where(generator.random(shape) < 0.6, labels, generator.integers(0, classes, shape))
        labels[generator.random(shape) < 0.1] = 255
        maps.append((predicted, labels))
    return maps


def test_confusion_matrix_agrees_with_torchmetrics() -> None:
    from torchmetrics.functional.classification import (  # takes seconds
        multiclass_accuracy,
        multiclass_confusion_matrix,
        multiclass_jaccard_index,
    )

    maps = random_maps(0, classes=4)
    matrix = ConfusionMatrix(6)  # two classes never occur
    for predicted, labels in maps:
        matrix.update(torch.from_numpy(predicted), labels)
    predicted = torch.from_numpy(np.concatenate([p.ravel() for p, _ in maps]))
    labels = torch.from_numpy(np.concatenate([t.ravel() for _, t in maps])).long()
    counts = multiclass_confusion_matrix(predicted, labels, 6, ignore_index=255)
    np.testing.assert_array_equal(matrix.counts_mm, counts.numpy())
    iou = multiclass_jaccard_index(predicted, labels, 6, average="none", ignore_index=255)
    assert matrix.per_class_iou()[:4] == pytest.approx(iou[:4].tolist())
    assert matrix.per_class_iou()[4:] == (None, None)
    mean = matrix.mean_iou()
    assert mean is not None
    assert mean.value == pytest.approx(float(iou[:4].mean()))
    assert mean.class_count == 4
    accuracy = multiclass_accuracy(predicted, labels, 6, average="micro", ignore_index=255)
    assert matrix.pixel_accuracy() == pytest.approx(float(accuracy))


def test_mean_iou_is_of_the_data_set_and_not_a_mean_over_images() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([[0, 0]]), np.array([[0, 1]]))
    matrix.update(np.array([[1, 1, 1, 1]]), np.array([[1, 1, 1, 1]]))
    mean = matrix.mean_iou()
    assert mean is not None
    assert mean.value == pytest.approx((1 / 2 + 4 / 5) / 2)


def test_merging_equals_counting_in_one() -> None:
    maps = random_maps(1, classes=3)
    whole, first, second = (ConfusionMatrix(3) for _ in range(3))
    for number, (predicted, labels) in enumerate(maps):
        whole.update(predicted, labels)
        (first if number == 0 else second).update(predicted, labels)
    first.merge(second)
    np.testing.assert_array_equal(first.counts_mm, whole.counts_mm)
    with pytest.raises(ConfigError, match="4 classes"):
        first.merge(ConfusionMatrix(4))


def test_nothing_counted_has_no_mean() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(np.zeros((2, 2), dtype=int), np.full((2, 2), 255))
    assert matrix.mean_iou() is None
    assert matrix.pixel_accuracy() is None


def test_classes_and_shapes_that_do_not_fit_are_refused() -> None:
    matrix = ConfusionMatrix(3)
    with pytest.raises(DatasetError, match="label 7 found where classes 0 to 2"):
        matrix.update(np.zeros((1, 2), dtype=int), np.array([[0, 7]]))
    with pytest.raises(DatasetError, match="predicted class 3 found"):
        matrix.update(np.array([[0, 3]]), np.zeros((1, 2), dtype=int))
    with pytest.raises(ShapeError):
        matrix.update(np.zeros((2, 1), dtype=int), np.zeros((1, 2), dtype=int))
    with pytest.raises(ConfigError):
        ConfusionMatrix(0)
    assert matrix.counts_mm.sum() == 0


@given(npst.arrays(np.uint8, (3, 5, 3)), npst.arrays(np.uint8, (3, 5, 3)))
def test_squared_error_is_exact(image: np.ndarray, other: np.ndarray) -> None:
    expected = sum((int(a) - int(b)) ** 2 for a, b in zip(image.flat, other.flat, strict=True)) / 45 / 255**2
    assert mean_squared_error(image, other) == pytest.approx(expected)
    assert mean_squared_error(image, image) == 0.0


def test_psnr_of_the_largest_error_is_zero() -> None:
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert psnr_db(mean_squared_error(black, white)) == 0.0
    assert psnr_db(mean_squared_error(black, black)) == math.inf
    with pytest.raises(ShapeError):
        mean_squared_error(black, white[:1])


@given(st.lists(st.integers(0, 2**40), max_size=50))
def test_zero_order_bits_are_those_of_the_histogram(values: list[int]) -> None:
    expected = -sum(math.log2(values.count(value) / len(values)) for value in values)
    assert zero_order_bits(torch.tensor(values, dtype=torch.int64)) == pytest.approx(expected, abs=1e-9)
