"""Segmentation: a class for every pixel.

Axis legend: B images, m classes, H and W pixels.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gosvae.datasets.palettes import class_palette
from gosvae.experts.base import ExpertInfo
from gosvae.losses.divergence import jensen_shannon
from gosvae.metrics import ConfusionMatrix
from gosvae.tasks.base import Arrays, Meter, Task
from gosvae.tensors import ImageArray

ClassMap = npt.NDArray[np.int16]


class SegmentationMeter(Meter[ClassMap]):
    """Mean intersection over union and pixel accuracy, from one confusion matrix over all images."""

    def __init__(self, class_count: int) -> None:
        self._counts = ConfusionMatrix(class_count)

    def update(self, reference: ClassMap, seen: ClassMap) -> None:
        self._counts.update(seen, reference)

    def values(self) -> dict[str, float | None]:
        miou = self._counts.mean_iou()
        return {"mIoU": None if miou is None else miou.value, "pixel accuracy": self._counts.pixel_accuracy()}


class Segmentation(Task[Tensor, ClassMap]):
    """Task of class logits (B, m, H, W); the distance is the Jensen-Shannon divergence of Eq. 5, in nats."""

    name = "segmentation"
    columns: ClassVar[tuple[str, ...]] = ("mIoU", "pixel accuracy")

    def __init__(self, info: ExpertInfo) -> None:
        super().__init__(info)
        self._palette_m3 = class_palette(info.class_names)

    def distance(self, original: Tensor, reconstruction: Tensor) -> Tensor:
        return jensen_shannon(original, reconstruction)

    def results(self, output: Tensor) -> list[ClassMap]:
        return [map_HW.cpu().numpy().astype(np.int16) for map_HW in output.argmax(dim=1)]

    def arrays(self, result: ClassMap) -> Arrays:
        """Return the class of every pixel, `classes` (H, W)."""
        return {"classes": result.astype(np.uint8 if len(self.info.class_names) <= 256 else np.uint16)}

    def describe(self, result: ClassMap) -> str:
        """Return the share of the most frequent classes."""
        counts_m = np.bincount(result.reshape(-1), minlength=len(self.info.class_names))
        most = [int(k) for k in np.argsort(-counts_m, kind="stable")[:3] if counts_m[k]]
        return ", ".join(f"{self.info.class_names[k]} {100 * counts_m[k] / result.size:.0f} %" for k in most)

    def meter(self) -> SegmentationMeter:
        return SegmentationMeter(len(self.info.class_names))

    def draw(self, image_uint8_HW3: ImageArray, result: ClassMap) -> ImageArray:
        del image_uint8_HW3
        picture: ImageArray = self._palette_m3[result]
        return picture
