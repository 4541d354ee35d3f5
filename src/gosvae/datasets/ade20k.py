"""ADE20K as in the SceneParsing benchmark (ADEChallengeData2016), 150 classes; the full data set without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gosvae.datasets.base import IGNORE_INDEX, Dataset, ObjectArray, Sample
from gosvae.datasets.layout import (
    check_sample,
    label_path_of_each,
    labelled_sample,
    list_files,
    no_labels,
    read_label_map,
)
from gosvae.errors import DatasetError, unknown_name
from gosvae.images import read_image
from gosvae.tensors import LabelArray

# The first name of each line of the benchmark's objectInfo150.txt.
# fmt: off
ADE20K_CLASSES = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet",
    "sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water",
    "painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk",
    "rock", "wardrobe", "lamp", "bathtub", "railing", "cushion", "base", "box", "column", "signboard",
    "chest of drawers", "counter", "sand", "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path",
    "stairs", "runway", "case", "pool table", "pillow", "screen door", "stairway", "river", "bridge", "bookcase",
    "blind", "coffee table", "toilet", "flower", "book", "hill", "bench", "countertop", "stove", "palm",
    "kitchen island", "computer", "swivel chair", "boat", "bar", "arcade machine", "hovel", "bus", "towel", "light",
    "truck", "tower", "chandelier", "awning", "streetlight", "booth", "television", "airplane", "dirt track",
    "apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet", "poster", "stage", "van",
    "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything", "swimming pool", "stool", "barrel",
    "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball", "food", "step", "tank", "trade name",
    "microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen", "blanket", "sculpture", "hood", "sconce",
    "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen", "plate", "monitor", "bulletin board",
    "shower", "radiator", "glass", "clock", "flag",
)
# fmt: on
SPLIT_FOLDERS = {"train": "training", "val": "validation"}
BENCHMARK_FOLDER = "ADEChallengeData2016"
FULL_FOLDER = "ADE20K_2021_17_01"
"""Name of the folder of the full data set."""


class ADE20K(Dataset):
    """Images from `ROOT/images/{training,validation}/*.jpg`, label maps from `ROOT/annotations/...png`.

    Label 0 of the files (other objects) is ignored; label k is class k - 1. Without a folder of annotations the images
    have no labels, and a warning in the log says so. This is also the case for the full data set, whose images lie in
    folders of scenes (`ROOT/images/training/a/abbey/*.jpg`, `ROOT/images/ADE/training/...`): its label maps have other
    classes.

    Args:
        root: path of the folder `ADEChallengeData2016`, of the full data set, or of the folder around one of them.
        split: name of the split, `train` or `val`.

    Raises:
        DatasetError: an unknown split, or folders with another layout.
    """

    name = "ade20k"
    class_names: tuple[str, ...] = ADE20K_CLASSES

    def __init__(self, root: Path, split: str) -> None:
        if split not in SPLIT_FOLDERS:
            raise DatasetError(unknown_name("split of ade20k", split, SPLIT_FOLDERS))
        folder = SPLIT_FOLDERS[split]
        if not (root / "images").is_dir():
            root = next((root / name for name in (BENCHMARK_FOLDER, FULL_FOLDER) if (root / name).is_dir()), root)
        images, annotations = root / "images" / folder, root / "annotations" / folder
        if (root / "images" / "ADE").is_dir():
            images = root / "images" / "ADE" / folder
        is_full = images.is_dir() and next(images.glob("*.jpg"), None) is None
        self._images = list_files(images, "**/*.jpg" if is_full else "*.jpg", f"ADE20K ({BENCHMARK_FOLDER})")
        self._annotations: list[Path] | None = None
        if is_full or not annotations.is_dir():
            self.missing_labels = no_labels("ADE20K", annotations / "*.png")
            self.class_names = ()
        else:
            self._annotations = label_path_of_each(self._images, lambda image: annotations / f"{image.stem}.png")

    def __len__(self) -> int:
        return len(self._images)

    def check(self, index: int) -> tuple[int, int] | None:
        return check_sample(self._images[index], None if self._annotations is None else self._annotations[index])

    @property
    def object_names(self) -> tuple[str, ...]:
        """Labels 0 to 150 of the files: 0 is a class like the others."""
        return ("other objects", *ADE20K_CLASSES) if self._annotations is not None else ()

    def objects(self, index: int) -> ObjectArray:
        if self._annotations is None:
            raise DatasetError("ADE20K: these images have no labels, of which a map of objects could be made")
        return self._raw(self._annotations[index]).astype(np.int32)

    def _raw(self, annotation: Path) -> LabelArray:
        raw = read_label_map(annotation)
        if raw.max() > len(ADE20K_CLASSES):
            raise DatasetError(f"{annotation}: label {raw.max()} found, the SceneParsing benchmark has 0 to 150")
        return raw

    def __getitem__(self, index: int) -> Sample:
        if self._annotations is None:
            return Sample(read_image(self._images[index]), None, self._images[index].stem)
        annotation = self._annotations[index]
        raw = self._raw(annotation)
        labels = np.where(raw == 0, IGNORE_INDEX, raw - 1).astype(np.uint8)
        return labelled_sample(read_image(self._images[index]), labels, annotation.stem)
