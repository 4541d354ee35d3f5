"""Steps that the layouts of data sets share: list files, find the label map of each image, read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from gosvae.datasets.base import Sample
from gosvae.errors import DatasetError
from gosvae.tensors import ImageArray, LabelArray


def list_files(folder: Path, pattern: str, dataset: str) -> list[Path]:
    """Return the files below a folder that match a glob pattern, sorted by path.

    Raises:
        DatasetError: no file matches; the message names the pattern and the folder.
    """
    paths = sorted(path for path in folder.glob(pattern) if path.is_file())
    if not paths:
        problem = "has no such files" if folder.is_dir() else "is not a folder"
        raise DatasetError(f"{dataset}: looked for {folder / pattern}, but {folder} {problem}: check the path given")
    return paths


def label_path_of_each(images: list[Path], label_path: Callable[[Path], Path]) -> list[Path]:
    """Return the path of the label map of each image.

    Raises:
        DatasetError: some do not exist; the message counts them and names the first.
    """
    paths = [label_path(image) for image in images]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise DatasetError(
            f"{len(missing)} of {len(images)} images in {images[0].parent} have no label map: "
            f"looked for one file for each image, first {missing[0]}"
        )
    return paths


def read_label_map(path: Path) -> LabelArray:
    """Return the raw class numbers, uint8 (H, W), of an 8-bit grey or palette image.

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
    """Return the sample of an image and its labels.

    Raises:
        DatasetError: their sizes differ.
    """
    if image.shape[:2] != labels.shape:
        raise DatasetError(
            f"{name}: the image is {image.shape[:2]} and its label map {labels.shape}, expected one size"
        )
    return Sample(image, labels, name)
