"""Cityscapes in its official folders: 19 classes, everything else ignored."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gosvae.datasets.base import IGNORE_INDEX, INSTANCE_STEP, Dataset, ObjectArray, Sample
from gosvae.datasets.layout import (
    check_sample,
    label_path_of_each,
    labelled_sample,
    list_files,
    no_labels,
    read_instance_map,
    read_label_map,
)
from gosvae.errors import DatasetError, unknown_name
from gosvae.images import read_image

# Label id of the files for each train id 0 to 18 (cityscapesScripts, helpers/labels.py).
CITYSCAPES_LABEL_IDS = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
CITYSCAPES_CLASSES = tuple(CITYSCAPES_LABEL_IDS)
CITYSCAPES_OBJECTS = (
    "unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road", "sidewalk",
    "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole", "polegroup",
    "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus",
    "caravan", "trailer", "train", "motorcycle", "bicycle", "license plate",
)  # fmt: skip
"""Names of the 35 labels: ids 0 to 33, then the licence plate, whose id is -1."""
SPLITS = ("train", "val", "test")

_TRAIN_ID_OF_LABEL_ID = np.full(256, IGNORE_INDEX, dtype=np.uint8)
_TRAIN_ID_OF_LABEL_ID[list(CITYSCAPES_LABEL_IDS.values())] = np.arange(len(CITYSCAPES_CLASSES))
_PLATE = len(CITYSCAPES_OBJECTS) - 1
_FIRST_INSTANCE = 1000
"""Least number in a file `instanceIds` of a pixel with an instance: 1000 times the label id, plus the instance."""
_KINDS = ("labelIds", "labelTrainIds")
"""Label maps in the order in which they are looked for."""


class Cityscapes(Dataset):
    """Images `ROOT/leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png` with `ROOT/gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png`.

    Object maps have all 35 labels, and instances from `ROOT/gtFine/SPLIT/CITY/NAME_gtFine_instanceIds.png`.

    Where a split has no `labelIds`, the files `labelTrainIds` are read; where it has neither, the images have no
    labels, and a warning in the log says so. The published label maps of `test` are empty: every pixel of them is
    ignored.

    Raises:
        DatasetError: an unknown split, or folders with another layout.
    """

    name = "cityscapes"
    class_names = CITYSCAPES_CLASSES

    def __init__(self, root: Path, split: str) -> None:
        if split not in SPLITS:
            raise DatasetError(unknown_name("split of cityscapes", split, SPLITS))
        self._images = list_files(root / "leftImg8bit" / split, "*/*_leftImg8bit.png", "Cityscapes")
        labels = root / "gtFine" / split
        found = (kind for kind in _KINDS if next(labels.glob(f"*/*_gtFine_{kind}.png"), None) is not None)
        self._kind = next(found, None)
        self._annotations: list[Path] | None = None
        if self._kind is None:
            self.missing_labels = no_labels("Cityscapes", labels / f"*/*_gtFine_{_KINDS[0]}.png")
            self.class_names = ()
        else:
            self._annotations = label_path_of_each(
                self._images, lambda image: labels / image.parent.name / f"{_frame(image)}_gtFine_{self._kind}.png"
            )

    def __len__(self) -> int:
        return len(self._images)

    def shot(self, index: int) -> str:
        """Return city and sequence, such as `aachen_000000`."""
        return _frame(self._images[index]).rpartition("_")[0]

    def check(self, index: int) -> tuple[int, int] | None:
        return check_sample(self._images[index], None if self._annotations is None else self._annotations[index])

    @property
    def object_names(self) -> tuple[str, ...]:
        """Names of all 35 labels; empty if the split has no `labelIds`."""
        return CITYSCAPES_OBJECTS if self._kind == "labelIds" else ()

    @property
    def has_instances(self) -> bool:
        return True

    def objects(self, index: int) -> ObjectArray:
        if self._annotations is None or self._kind != "labelIds":
            raise DatasetError("Cityscapes: a map of objects needs the files *_gtFine_labelIds.png, and there are none")
        path = self._annotations[index]
        labels = read_label_map(path).astype(np.int32)
        instances = read_instance_map(path.with_name(path.name.replace("_labelIds.png", "_instanceIds.png")))
        if labels.shape != instances.shape:
            raise DatasetError(f"{path}: the label map is {labels.shape} and its map of instances {instances.shape}")
        classes = np.where(labels < _PLATE, labels, _PLATE)
        # Parts of a group have no number of their own, and the first instance has the number 0.
        numbers = np.where(instances < _FIRST_INSTANCE, 0, instances % _FIRST_INSTANCE + 1)
        objects_HW: ObjectArray = (classes + INSTANCE_STEP * numbers).astype(np.int32)
        return objects_HW

    def __getitem__(self, index: int) -> Sample:
        image = self._images[index]
        if self._annotations is None:
            return Sample(read_image(image), None, _frame(image))
        labels = read_label_map(self._annotations[index])
        if self._kind == "labelIds":
            labels = _TRAIN_ID_OF_LABEL_ID[labels]
        elif (wrong := labels[(labels >= len(CITYSCAPES_CLASSES)) & (labels != IGNORE_INDEX)]).size:
            raise DatasetError(f"{self._annotations[index]}: label {wrong[0]} found, train ids are 0 to 18 and 255")
        return labelled_sample(read_image(image), labels, _frame(image))


def _frame(image: Path) -> str:
    """Return city, sequence and frame, such as `aachen_000000_000019`."""
    return image.name.removesuffix("_leftImg8bit.png")
