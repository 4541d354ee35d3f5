"""Contract of a dataset: `dataset[i] -> Sample`, with one list of classes and one ignored label."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gosvae.errors import DatasetError
from gosvae.tensors import ImageArray, LabelArray

IGNORE_INDEX = 255

INSTANCE_STEP = 256
"""Factor of the number of an instance in an object map; the remainder is the class."""

IGNORED_OBJECT = "ignored"
"""Name of the last class of object maps that are made from labels, of pixels that are to be ignored there."""

ObjectArray = npt.NDArray[np.int32]
"""Class + `INSTANCE_STEP` * instance of every pixel, (H, W); see `gosvae.datasets.objects`."""


@dataclass(frozen=True)
class Sample:
    """One image with its labels.

    Attributes:
        image_uint8_HW3: RGB image, uint8, (H, W, 3).
        labels_uint8_HW: class of every pixel, 255 where it is to be ignored; None where there are no labels.
        name: name of the sample, unique in its dataset.
    """

    image_uint8_HW3: ImageArray
    labels_uint8_HW: LabelArray | None
    name: str


class Dataset(ABC):
    """A finite, ordered collection of samples."""

    name: str
    class_names: tuple[str, ...]
    """Names of the classes of the labels, in order; empty if there are no labels."""
    missing_labels: Path | None = None
    """Pattern of the label maps that the folder should have and does not; None if it has them, or never has any."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    def shot(self, index: int) -> str:
        """Return the name of the shot of a sample, such as the drive or the video that it is a frame of.

        Frames of one shot resemble each other: an evaluation resamples shots for its intervals. By default every sample
        is a shot of its own.
        """
        return str(index)

    def check(self, index: int) -> tuple[int, int] | None:
        """Check the files of a sample without decoding them; return height and width of the image, None if not known.

        Raises:
            ImageError, DatasetError: the sample cannot be read.
        """
        del index
        return None

    @property
    def object_names(self) -> tuple[str, ...]:
        """Names of the classes of object maps, in which no pixel is ignored; empty if there are no object maps.

        By default they are those of the labels and one for pixels that are ignored.
        """
        return (*self.class_names, IGNORED_OBJECT) if self.class_names else ()

    @property
    def has_instances(self) -> bool:
        """Whether object maps tell instances of one class apart."""
        return False

    def objects(self, index: int) -> ObjectArray:
        """Return the object map of a sample, int32 (H, W), made from its labels by default.

        Raises:
            DatasetError: the data set has no object maps, or the files of this one cannot be read.
        """
        labels_HW = self[index].labels_uint8_HW
        if labels_HW is None:
            raise DatasetError(f"{self.name!r} has no labels, of which a map of objects could be made")
        return np.where(labels_HW == IGNORE_INDEX, len(self.class_names), labels_HW).astype(np.int32)

    @property
    def has_labels(self) -> bool:
        """Whether samples carry label maps."""
        return bool(self.class_names)


class DatasetView(Dataset):
    """Another dataset with the same samples, shots and files, of which a subclass changes what a sample holds."""

    def __init__(self, dataset: Dataset) -> None:
        self.name, self._dataset = dataset.name, dataset
        self.missing_labels = dataset.missing_labels

    def __len__(self) -> int:
        return len(self._dataset)

    def shot(self, index: int) -> str:
        return self._dataset.shot(index)

    def check(self, index: int) -> tuple[int, int] | None:
        return self._dataset.check(index)
