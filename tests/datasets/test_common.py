"""Label maps in the classes that street data sets share."""

from __future__ import annotations

import numpy as np
import pytest

from gosvae.datasets.base import Dataset, Sample
from gosvae.datasets.camvid import CAMVID_CLASSES
from gosvae.datasets.cityscapes import CITYSCAPES_CLASSES
from gosvae.datasets.common import COMMON_CLASSES, InCommonClasses, common_class_of_each, in_classes
from gosvae.datasets.idd_lite import IDD_LITE_CLASSES
from gosvae.datasets.mixture import Mixture
from gosvae.datasets.subset import WithoutLabels
from gosvae.errors import DatasetError
from tiny import streets


class Plain(Dataset):
    """One image whose label map is given."""

    name = "plain"

    def __init__(self, class_names: tuple[str, ...], labels: list[int]) -> None:
        self.class_names = class_names
        self._labels = np.array([labels], np.uint8)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        return Sample(np.zeros((1, self._labels.shape[1], 3), np.uint8), self._labels, f"plain {index}")


def labels_of(dataset: Dataset) -> list[int]:
    labels = dataset[0].labels_uint8_HW
    assert labels is not None
    result: list[int] = labels[0].tolist()
    return result


def test_every_class_of_camvid_and_cityscapes_has_a_common_one() -> None:
    assert common_class_of_each(CAMVID_CLASSES) == (6, 5, 4, 0, 1, 5, 4, 4, 3, 2, 2)
    assert common_class_of_each(CITYSCAPES_CLASSES) == (0, 1, 5, 4, 4, 4, 4, 4, 5, 1, 6, 2, 2, 3, 3, 3, 3, 3, 3)
    assert common_class_of_each(IDD_LITE_CLASSES) == tuple(range(7))
    assert common_class_of_each(("cat", "dog")) is None


def test_labels_are_translated_and_void_stays_void() -> None:
    dataset = InCommonClasses(Plain(CAMVID_CLASSES, [0, 8, 10, 255]))
    assert dataset.class_names == COMMON_CLASSES
    assert labels_of(dataset) == [6, 3, 2, 255]
    assert dataset[0].name == "plain 0"
    with pytest.raises(DatasetError, match="'plain' has classes of its own"):
        InCommonClasses(Plain(("cat", "dog"), [0, 1]))


def test_a_data_set_comes_in_the_classes_of_an_expert_where_they_are_the_common_ones() -> None:
    camvid = Plain(CAMVID_CLASSES, [3])
    assert in_classes(camvid, CAMVID_CLASSES) is camvid
    assert labels_of(in_classes(camvid, COMMON_CLASSES)) == [0]
    assert in_classes(camvid, CITYSCAPES_CLASSES) is camvid
    cats = Plain(("cat", "dog"), [1])
    assert in_classes(cats, COMMON_CLASSES) is cats


def test_data_sets_of_other_classes_are_mixed_in_the_common_ones() -> None:
    mixture = Mixture([Plain(CAMVID_CLASSES, [8]), Plain(IDD_LITE_CLASSES, [3])])
    assert mixture.class_names == COMMON_CLASSES
    assert labels_of(mixture) == [3]
    second = mixture[1].labels_uint8_HW
    assert second is not None
    assert second[0].tolist() == [3]
    assert Mixture([Plain(CAMVID_CLASSES, [8])] * 2).class_names == CAMVID_CLASSES


def test_a_mixture_with_a_part_without_labels_has_none() -> None:
    mixture = Mixture([Plain(CAMVID_CLASSES, [8]), WithoutLabels(streets())])
    assert not mixture.has_labels
    assert [mixture[i].labels_uint8_HW for i in range(2)] == [None, None]
    assert mixture[1].image_uint8_HW3.shape == streets()[0].image_uint8_HW3.shape
