"""Contract of a task: the distance that a codec is trained with, results, their measures, and how they are drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gosvae.experts.base import ExpertInfo
from gosvae.tensors import ImageArray

Arrays = dict[str, npt.NDArray[np.generic]]
"""A result as arrays by name, for messages and files: unsigned integers of 8 or 16 bits, or floats of 32 bits."""

O = TypeVar("O")  # noqa: E741
R = TypeVar("R")


class Meter(ABC, Generic[R]):
    """Measures of results against reference results, over any number of images."""

    @abstractmethod
    def update(self, reference: R, seen: R) -> None:
        """Count one image.

        Args:
            reference: expected result: the expert's own result on the original, or the labels.
            seen: result on the reconstruction.
        """

    @abstractmethod
    def values(self) -> dict[str, float | None]:
        """Return the measures by the names in `Task.columns`; None where the images say nothing."""


class Task(ABC, Generic[O, R]):
    """A task of an expert, with the dense output `O` (see `TaskExpert`) and the result `R` of one image.

    Args:
        info: description of the expert, such as its class names.
    """

    name: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    """Names of the measures in tables. The first one is the task's own: 1 is best and 0 is worst."""

    def __init__(self, info: ExpertInfo) -> None:
        self.info = info

    @abstractmethod
    def distance(self, original: O, reconstruction: O) -> Tensor:
        """Return how far the output on reconstructions is from that on the originals, a scalar >= 0.

        It is dense and differentiable. Gradients go to `reconstruction` alone.
        """

    @abstractmethod
    def results(self, output: O) -> list[R]:
        """Return the results of all images of an output."""

    @abstractmethod
    def arrays(self, result: R) -> Arrays:
        """Return a result as arrays, such as `corners`, `scores` and `classes` of boxes."""

    @abstractmethod
    def describe(self, result: R) -> str:
        """Return a line on a result, such as "3 boxes: 2 car, 1 person"."""

    @abstractmethod
    def meter(self) -> Meter[R]:
        """Return a new meter of the agreement with the expert's own results on the originals."""

    @abstractmethod
    def draw(self, image_uint8_HW3: ImageArray, result: R) -> ImageArray:
        """Return a picture of the image's size that shows the result."""


class MeanOfImages(Task[O, R]):
    """A task whose distance is the mean of the distances of the images.

    A training computes the gradient of such a distance image by image without a further forward pass of the expert.
    """

    @abstractmethod
    def image_distances(self, original: O, reconstruction: O) -> Tensor:
        """Return the distance of each image, (B,), >= 0; see `distance`."""

    def distance(self, original: O, reconstruction: O) -> Tensor:
        return self.image_distances(original, reconstruction).mean()


AnyTask = Task[Any, Any]
