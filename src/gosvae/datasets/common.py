"""Classes that street data sets share: label maps of one data set in the classes of another.

IDD-Lite's seven classes are the coarsest, so they serve as the common ones: every class of CamVid and Cityscapes is a
part of one of them. A class that is a part of two, such as CamVid's bicyclist (a rider with the bicycle), goes where
most of its pixels belong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from gosvae.datasets.base import IGNORE_INDEX, Dataset, DatasetView, Sample
from gosvae.datasets.camvid import CAMVID_CLASSES
from gosvae.datasets.cityscapes import CITYSCAPES_CLASSES
from gosvae.datasets.idd_lite import IDD_LITE_CLASSES
from gosvae.errors import DatasetError

COMMON_CLASSES = IDD_LITE_CLASSES
"""Names of the common classes, in the order of their numbers."""

_PARTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "drivable": ("road",),
        "other ground": ("pavement", "sidewalk", "terrain"),
        "living thing": ("pedestrian", "bicyclist", "person", "rider"),
        "vehicle": ("car", "truck", "bus", "train", "motorcycle", "bicycle"),
        "roadside object": ("pole", "sign", "fence", "wall", "traffic light", "traffic sign"),
        "far object": ("building", "tree", "vegetation"),
        "sky": ("sky",),
    }
)
"""Classes of CamVid and Cityscapes that make up each common class."""


def common_class_of_each(class_names: Sequence[str]) -> tuple[int, ...] | None:
    """Number of the common class that each class belongs to; None where the classes are of no known data set."""
    if tuple(class_names) == COMMON_CLASSES:
        return tuple(range(len(COMMON_CLASSES)))
    if tuple(class_names) not in (CAMVID_CLASSES, CITYSCAPES_CLASSES):
        return None
    return tuple(next(i for i, parts in enumerate(_PARTS.values()) if name in parts) for name in class_names)


class InCommonClasses(DatasetView):
    """A data set whose label maps are in the common classes.

    Raises:
        DatasetError: its own classes are of no known data set.
    """

    class_names = COMMON_CLASSES

    def __init__(self, dataset: Dataset) -> None:
        numbers = common_class_of_each(dataset.class_names)
        if numbers is None:
            known = "CamVid, Cityscapes and IDD-Lite"
            raise DatasetError(f"{dataset.name!r} has classes of its own: common classes are known for {known}")
        super().__init__(dataset)
        self._table_256 = np.full(256, IGNORE_INDEX, np.uint8)
        self._table_256[: len(numbers)] = numbers

    def __getitem__(self, index: int) -> Sample:
        sample = self._dataset[index]
        labels = sample.labels_uint8_HW
        return Sample(sample.image_uint8_HW3, None if labels is None else self._table_256[labels], sample.name)


def in_classes(dataset: Dataset, class_names: Sequence[str]) -> Dataset:
    """The data set with label maps in the common classes, if these are the classes that are asked for.

    Any other data set is returned as it is; whoever needs equal classes compares them afterwards.
    """
    if dataset.class_names == tuple(class_names) or tuple(class_names) != COMMON_CLASSES:
        return dataset
    return dataset if common_class_of_each(dataset.class_names) is None else InCommonClasses(dataset)
