"""Contract of a dataset: `dataset[i] -> Sample`, with one list of classes and one ignored label."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from gosvae.tensors import ImageArray, LabelArray

IGNORE_INDEX = 255


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
    def has_labels(self) -> bool:
        """Whether samples carry label maps."""
        return bool(self.class_names)
