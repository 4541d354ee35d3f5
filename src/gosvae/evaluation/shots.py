"""Task quality of a codec with confidence intervals, by resampling the shots that the images belong to.

Frames of one shot resemble each other, so that resampling frames would give intervals that are too narrow.

Axis legend: R resamples, S shots, H and W pixels, m classes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gosvae.metrics import ClassMap, ConfusionMatrix

RESAMPLES = 1000
"""Number of resamples behind an interval."""
COVERAGE = 0.95
"""Share of the resamples inside an interval."""
FEWEST_SHOTS = 3
"""Smallest number of shots that an interval is given for."""


class Interval(NamedTuple):
    """Interval of a value, from the percentiles of its resamples."""

    low: float
    high: float


class ShotResamples:
    """Resamples of shots with replacement; a resample has as many shots as the data.

    Args:
        shots: names of the shots.
        generator: random numbers; the state that it is in decides the resamples.
        count: number of resamples.
    """

    def __init__(self, shots: Collection[str], generator: np.random.Generator, count: int = RESAMPLES) -> None:
        shot_count = len(shots)
        self.weights_RS: npt.NDArray[np.float64] | None = None
        """Number of times that each shot is in each resample; None if there are too few shots."""
        if shot_count >= FEWEST_SHOTS:
            weights = generator.multinomial(shot_count, np.full(shot_count, 1 / shot_count), size=count)
            self.weights_RS = weights.astype(np.float64)

    def mean_iou_interval(self, counts_S3m: npt.NDArray[np.int64]) -> Interval | None:
        """Return the interval of the mIoU, the mean over the classes that occur in a resample.

        Args:
            counts_S3m: pixels of every shot and class: correct ones, labelled ones, predicted ones.

        Returns:
            None if there are fewer than `FEWEST_SHOTS` shots, or no pixel counts in them.
        """
        if self.weights_RS is None or not counts_S3m.any():
            return None
        shot_count = len(counts_S3m)
        summed = self.weights_RS @ counts_S3m.reshape(shot_count, -1).astype(np.float64)
        correct, labelled, predicted = np.split(summed, 3, axis=1)
        union_Rm = labelled + predicted - correct
        present_Rm = union_Rm > 0
        iou_Rm = np.divide(correct, union_Rm, out=np.zeros_like(correct), where=present_Rm)
        some_R = present_Rm.any(axis=1)  # a resample without any counted pixel has no mIoU
        values = iou_Rm[some_R].sum(axis=1) / present_Rm[some_R].sum(axis=1)
        outside = (1 - COVERAGE) / 2
        low, high = np.quantile(values, [outside, 1 - outside])
        return Interval(float(low), float(high))


class _Counts:
    """Confusion matrix over all images, and its margins for every shot."""

    def __init__(self, class_count: int) -> None:
        self.whole = ConfusionMatrix(class_count)
        self.of_shot: dict[str, npt.NDArray[np.int64]] = {}

    def update(self, shot: str, predicted_HW: ClassMap, labels_HW: ClassMap | None) -> ConfusionMatrix:
        image = ConfusionMatrix(self.whole.class_count)
        if labels_HW is not None:
            image.update(predicted_HW, labels_HW)
        self.whole.merge(image)
        counts_mm = image.counts_mm
        margins_3m = np.stack([counts_mm.diagonal(), counts_mm.sum(axis=1), counts_mm.sum(axis=0)])
        self.of_shot[shot] = self.of_shot.get(shot, 0) + margins_3m
        return image

    def interval(self, resamples: ShotResamples) -> Interval | None:
        return resamples.mean_iou_interval(np.stack(list(self.of_shot.values()))) if self.of_shot else None


class TaskCounts:
    """Pixel counts of one codec: against the labels, and against the expert's maps of the originals."""

    def __init__(self, class_count: int) -> None:
        self._labels = _Counts(class_count)
        self._agreement = _Counts(class_count)

    def update(
        self, shot: str, class_map_HW: ClassMap, original_HW: ClassMap, labels_HW: ClassMap | None
    ) -> ConfusionMatrix:
        """Count the pixels of one image, and return those of this image against the expert's map.

        Args:
            shot: name of the shot of the image.
            class_map_HW: map of the image that the receiver has.
            original_HW: the expert's map of the original.
            labels_HW: labels, if there are any.
        """
        self._labels.update(shot, class_map_HW, labels_HW)
        return self._agreement.update(shot, class_map_HW, original_HW)

    @property
    def shots(self) -> tuple[str, ...]:
        """Names of the shots, in the order of their first images."""
        return tuple(self._agreement.of_shot)

    def values(self, resamples: ShotResamples) -> dict[str, Any]:
        """Return the values of the task for a `Row`."""
        labels, agreed = self._labels.whole, self._agreement.whole
        miou, agreement = labels.mean_iou(), agreed.mean_iou()
        of_labels, of_agreement = self._labels.interval(resamples), self._agreement.interval(resamples)
        return {
            "miou": miou and miou.value,
            "miou_low": of_labels and of_labels.low,
            "miou_high": of_labels and of_labels.high,
            "miou_classes": miou and miou.class_count,
            "class_iou": labels.per_class_iou() if miou else None,
            "pixel_accuracy": labels.pixel_accuracy(),
            "agreement_miou": agreement and agreement.value,
            "agreement_low": of_agreement and of_agreement.low,
            "agreement_high": of_agreement and of_agreement.high,
            "agreement_classes": agreement and agreement.class_count,
            "agreement_accuracy": agreed.pixel_accuracy(),
        }
