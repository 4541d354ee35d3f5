"""IDD-Lite, the small release of the India Driving Dataset (Varma et al. 2019): 320x227 JPEG, 7 classes and void."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gosvae.datasets.base import IGNORE_INDEX, Dataset, Sample
from gosvae.datasets.layout import check_labelled, label_path_of_each, labelled_sample, list_files, read_label_map
from gosvae.errors import DatasetError, unknown_name
from gosvae.images import read_image

IDD_LITE_CLASSES = (
    "drivable",
    "other ground",
    "living thing",
    "vehicle",
    "roadside object",
    "far object",
    "sky",
)
SPLITS = ("train", "seen", "unseen", "val")
KEPT_OUT_EVERY = 7
"""Every seventh image of `train`, in the order of the names and beginning with the first, belongs to `unseen`."""


class IddLite(Dataset):
    """Images from `ROOT/SPLIT/*.jpg` with label maps of the same names in `ROOT/SPLIT_labels/*.png`.

    The folder `train` is also two splits: `unseen` is every seventh image, which no training of this package uses
    beside `@train` itself, and `seen` is the rest.

    Raises:
        DatasetError: an unknown split, or folders that are not laid out so.
    """

    name = "idd-lite"
    class_names = IDD_LITE_CLASSES

    def __init__(self, root: Path, split: str) -> None:
        if split not in SPLITS:
            raise DatasetError(unknown_name("split of idd-lite", split, SPLITS))
        folder = "val" if split == "val" else "train"
        images = list_files(root / folder, "*.jpg", "IDD-Lite")
        if split in ("seen", "unseen"):
            images = [path for i, path in enumerate(images) if (i % KEPT_OUT_EVERY == 0) == (split == "unseen")]
        self._images = images
        self._annotations = label_path_of_each(images, lambda image: root / f"{folder}_labels" / f"{image.stem}.png")

    def __len__(self) -> int:
        return len(self._images)

    def shot(self, index: int) -> str:
        """Return the number of the drive, which is the first part of the file's name."""
        return self._images[index].stem.split("_")[0]

    def check(self, index: int) -> tuple[int, int] | None:
        return check_labelled(self._images[index], self._annotations[index])

    def __getitem__(self, index: int) -> Sample:
        annotation = self._annotations[index]
        labels = read_label_map(annotation)
        wrong = labels[(labels >= len(IDD_LITE_CLASSES)) & (labels != IGNORE_INDEX)]
        if wrong.size:
            raise DatasetError(f"{annotation}: label {wrong.max()} found, IDD-Lite has 0 to 6 and 255 (void)")
        return labelled_sample(read_image(self._images[index]), np.asarray(labels), annotation.stem)
