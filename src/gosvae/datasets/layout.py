"""Steps that the layouts of data sets share: list files, find the label map of each image, read it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from gosvae.datasets.base import Sample
from gosvae.datasets.integrity import check_image_file
from gosvae.errors import DatasetError
from gosvae.images import GREY_STEPS, READ_FORMATS, pixels_of_png
from gosvae.tensors import ImageArray, LabelArray

log = logging.getLogger(__name__)


def list_files(folder: Path, pattern: str, dataset: str) -> list[Path]:
    """Return the files below a folder that match a glob pattern, sorted by path, without hidden files.

    Raises:
        DatasetError: no file matches; the message names the pattern and the folder.
    """
    paths = sorted(path for path in folder.glob(pattern) if path.is_file() and not path.name.startswith("."))
    if not paths:
        problem = "has no such files" if folder.is_dir() else "is not a folder"
        raise DatasetError(f"{dataset}: looked for {folder / pattern}, but {folder} {problem}: check the path given")
    return paths


def no_labels(dataset: str, looked_for: Path) -> Path:
    """Warn that a split comes without labels because the folder has none of its label maps; return `looked_for`."""
    log.warning("%s: no label maps, looked for %s: the images are read without labels", dataset, looked_for)
    return looked_for


def check_sample(image: Path, label_map: Path | None) -> tuple[int, int]:
    """Check the files of an image, with those of its label map if it has one; see `check_labelled`."""
    return check_image_file(image) if label_map is None else check_labelled(image, label_map)


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


def _label_values(stream: BinaryIO, path: Path) -> LabelArray:
    """Return the values as they are stored; Pillow spreads those of 2 and 4 bits over 8."""
    with Image.open(stream, formats=READ_FORMATS) as image:
        if image.mode not in ("L", "P"):
            raise DatasetError(f"{path}: a label map is an 8-bit grey or palette image, this is {image.mode}")
        scale = GREY_STEPS.get(image.tile[0].args, 1) if isinstance(image, PngImageFile) and image.tile else 1
        return np.array(image, dtype=np.uint8) // np.uint8(scale)


def read_label_map(path: Path) -> LabelArray:
    """Return the raw class numbers, uint8 (H, W), of a grey or palette image of at most 8 bits.

    Raises:
        DatasetError: the file is missing, damaged or not of that kind.
    """
    try:
        with path.open("rb") as stream:
            try:
                return _label_values(stream, path)
            except (OSError, SyntaxError, ValueError):
                without_metadata = pixels_of_png(stream)
                if without_metadata is None:
                    raise
                return _label_values(without_metadata, path)
    except UnidentifiedImageError:
        raise DatasetError(f"cannot read the label map {path}: it is not an image") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DatasetError(f"cannot read the label map {path}: {str(error).splitlines()[0]}") from None


def read_instance_map(path: Path) -> npt.NDArray[np.int32]:
    """Return the raw numbers, int32 (H, W), of a grey image of at most 16 bits.

    Raises:
        DatasetError: the file is missing, damaged or not of that kind.
    """
    try:
        with path.open("rb") as stream, Image.open(stream, formats=READ_FORMATS) as image:
            if image.mode not in ("L", "I", "I;16"):
                raise DatasetError(f"{path}: a map of instances is a grey image of 8 or 16 bits, this is {image.mode}")
            return np.array(image).astype(np.int32)
    except (OSError, SyntaxError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise DatasetError(f"cannot read the map of instances {path}: {reason}") from None


def check_labelled(image: Path, label_map: Path) -> tuple[int, int]:
    """Check the files of an image and of its label map without decoding them; return height and width.

    Raises:
        ImageError, DatasetError: one of them cannot be read, or their sizes differ.
    """
    size, other = check_image_file(image), check_image_file(label_map)
    if size != other:
        raise DatasetError(f"{image}: the image is {size} and its label map {other}, expected one size")
    return size


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
