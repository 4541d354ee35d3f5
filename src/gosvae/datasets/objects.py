"""Maps of objects: class and instance of every pixel, as semantic image synthesis draws pictures from.

An object map is int32 (H, W): the number of the class plus `INSTANCE_STEP` times that of the instance, which is 0 where
a class has no instances. Codecs send it as symbols: the class, and a flag at the edges between instances of one class.
Edges between classes follow from the classes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gosvae.datasets.base import INSTANCE_STEP, Dataset, DatasetView, ObjectArray, Sample
from gosvae.errors import DatasetError
from gosvae.tensors import LabelArray

SYMBOL_LIMIT = 256


def object_symbols(objects_int32_HW: ObjectArray, class_count: int, *, instances: bool) -> LabelArray:
    """Return the symbols of an object map, uint8 (H, W): class + class_count * edge.

    The edge is 1 where one of the four neighbours is another instance of the same class. The receiver takes the edges
    between classes from the classes, so that all edges between objects are known to it.

    Args:
        objects_int32_HW: the map.
        class_count: number of classes; twice that many with instances, but at most 256.
        instances: whether edges between instances are wanted.

    Raises:
        DatasetError: a class outside [0, class_count).
    """
    classes_HW = objects_int32_HW % INSTANCE_STEP
    if int(classes_HW.max()) >= class_count or class_count * (1 + instances) > SYMBOL_LIMIT:
        raise DatasetError(
            f"a map of objects has the class {int(classes_HW.max())}, expected at most {class_count} classes, and "
            f"{SYMBOL_LIMIT // 2} with edges between instances"
        )
    if not instances:
        return classes_HW.astype(np.uint8)
    return (classes_HW + class_count * _instance_edges(objects_int32_HW, classes_HW)).astype(np.uint8)


def _instance_edges(objects_HW: ObjectArray, classes_HW: ObjectArray) -> npt.NDArray[np.bool_]:
    """Return where a neighbour is another instance of the same class."""
    edges_HW = np.zeros(objects_HW.shape, np.bool_)
    for before, after in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        differs = (objects_HW[before] != objects_HW[after]) & (classes_HW[before] == classes_HW[after])
        edges_HW[before] |= differs
        edges_HW[after] |= differs
    return edges_HW


class ObjectsAsLabels(DatasetView):
    """Images whose label maps are the symbols of their object maps.

    Attributes:
        class_names: classes of the object maps.
        instances: whether the symbols have the edges between instances.

    Raises:
        DatasetError: the data set has no object maps.
    """

    def __init__(self, dataset: Dataset, *, instances: bool = True) -> None:
        super().__init__(dataset)
        self.class_names = dataset.object_names
        self.instances = instances and dataset.has_instances
        if not self.class_names:
            raise DatasetError(f"{dataset.name!r} has no maps of objects: it has no labels, or not all of their files")

    def __getitem__(self, index: int) -> Sample:
        sample, objects_HW = self._dataset[index], self._dataset.objects(index)
        symbols_HW = object_symbols(objects_HW, len(self.class_names), instances=self.instances)
        return Sample(sample.image_uint8_HW3, symbols_HW, sample.name)
