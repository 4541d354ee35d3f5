"""Boxes of detectors: non-maximum suppression and average precision.

Axis legend: N boxes, m classes, four coordinates (left, top, right, bottom) as shares of width and height.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gosvae.extras import needs
from gosvae.tasks.base import Meter

FloatArray = npt.NDArray[np.float64]
LEAST_SCORE = 0.05
"""Score below which a box is not kept."""
CERTAIN_SCORE = 0.5
"""Score from which a box on an original counts as an object."""
SAME_BOX = 0.45
"""Overlap (intersection over union) from which the weaker of two boxes of one class is a duplicate."""
MOST_BOXES = 300
"""Number of boxes of an image that are kept."""
COCO_OVERLAPS = tuple(0.5 + 0.05 * i for i in range(10))


@dataclass(frozen=True)
class Boxes:
    """Detections of one image, the surest first.

    Attributes:
        corners_N4: left, top, right and bottom as shares of width and height.
        scores_N: from 0 to 1.
        classes_N: numbers of the detector's classes.
    """

    corners_N4: FloatArray
    scores_N: FloatArray
    classes_N: npt.NDArray[np.int64]

    def above(self, score: float) -> Boxes:
        """Return the boxes of at least this score."""
        kept = self.scores_N >= score
        return Boxes(self.corners_N4[kept], self.scores_N[kept], self.classes_N[kept])


def without_duplicates(
    corners_N4: FloatArray, scores_N: FloatArray, classes_N: npt.NDArray[np.int64], *, same: float = SAME_BOX
) -> Boxes:
    """Return the boxes of at least `LEAST_SCORE`, the surest first, after non-maximum suppression class by class."""
    kept: list[int] = []
    for i in np.argsort(-scores_N, kind="stable"):
        if scores_N[i] < LEAST_SCORE or len(kept) == MOST_BOXES:
            break
        rivals = [j for j in kept if classes_N[j] == classes_N[i]]
        if not rivals or overlaps(corners_N4[i], corners_N4[rivals]).max() < same:
            kept.append(int(i))
    return Boxes(corners_N4[kept], scores_N[kept], classes_N[kept].astype(np.int64))


def overlaps(corners_4: FloatArray, corners_N4: FloatArray) -> FloatArray:
    """Return the intersection over union (N,) of one box with others."""
    low_N2, high_N2 = np.maximum(corners_4[:2], corners_N4[:, :2]), np.minimum(corners_4[2:], corners_N4[:, 2:])
    shared_N = (high_N2 - low_N2).clip(0).prod(axis=1)
    own, areas_N = (corners_4[2:] - corners_4[:2]).prod(), (corners_N4[:, 2:] - corners_N4[:, :2]).prod(axis=1)
    ratio_N: FloatArray = shared_N / np.maximum(own + areas_N - shared_N, 1e-12)
    return ratio_N


class BoxMeter:
    """Average precision of boxes on reconstructions at one overlap, over a set of images and all classes together.

    The objects are the boxes on the originals of at least `CERTAIN_SCORE`. A box on the reconstruction finds an object
    of its class if they overlap by at least `overlap`; each object is found once, by the surest box.
    """

    def __init__(self, overlap: float = 0.5) -> None:
        self._overlap = overlap
        self._scores: list[float] = []
        self._hits: list[bool] = []
        self._objects = 0

    def update(self, original: Boxes, reconstruction: Boxes) -> None:
        """Count one image."""
        objects = original.above(CERTAIN_SCORE)
        self._objects += len(objects.scores_N)
        free_N = np.ones(len(objects.scores_N), bool)
        for corners_4, score, kind in zip(
            reconstruction.corners_N4, reconstruction.scores_N, reconstruction.classes_N, strict=True
        ):
            shares_N = overlaps(corners_4, objects.corners_N4) * (free_N & (objects.classes_N == kind))
            hit = bool(shares_N.size) and float(shares_N.max()) >= self._overlap
            if hit:
                free_N[shares_N.argmax()] = False
            self._scores.append(float(score))
            self._hits.append(hit)

    def value(self) -> float | None:
        """Return the area below the envelope of precision over recall, from 0 to 1; None without objects."""
        if self._objects == 0:
            return None
        hits = np.array(self._hits, float)[np.argsort(-np.array(self._scores), kind="stable")]
        found = hits.cumsum()
        precision = found / np.arange(1, len(hits) + 1)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        return float((envelope * hits).sum() / self._objects)


class DetectionMeter(Meter[Boxes]):
    """AP50, and AP50:95, the mean over the ten overlaps from 0.5 to 0.95; see `BoxMeter`."""

    def __init__(self) -> None:
        self._meters = [BoxMeter(overlap) for overlap in COCO_OVERLAPS]

    def update(self, reference: Boxes, seen: Boxes) -> None:
        for meter in self._meters:
            meter.update(reference, seen)

    def values(self) -> dict[str, float | None]:
        values = [meter.value() for meter in self._meters]
        known = [value for value in values if value is not None]
        return {"AP50": values[0], "AP50:95": float(np.mean(known)) if known else None}


def coco_average_precision(
    labels: Sequence[Boxes], found: Sequence[Boxes], sizes_hw: Sequence[tuple[int, int]]
) -> dict[str, float | None]:
    """Return the mean average precision over classes against labelled boxes, by COCO's own rules.

    Args:
        labels: true boxes of each image.
        found: detections of each image.
        sizes_hw: height and width of each image in pixels, on which COCO's largest number of boxes and areas depend.

    Returns:
        `mAP` (mean over the overlaps from 0.5 to 0.95), `mAP50` and `mAP75`; None where there is no labelled box.

    Raises:
        MissingDependencyError: `faster-coco-eval` is not installed.
    """
    with needs("coco", "COCO's average precision"):
        from faster_coco_eval import COCO, COCOeval_faster
    entries: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for number, (true, seen, (height, width)) in enumerate(zip(labels, found, sizes_hw, strict=True)):
        for box in _coco_boxes(true, number, height, width):
            area = box["bbox"][2] * box["bbox"][3]
            entries.append({**box, "id": len(entries) + 1, "area": area, "iscrowd": 0})
        results += _coco_boxes(seen, number, height, width)
    if not entries:
        return {"mAP": None, "mAP50": None, "mAP75": None}
    images = [{"id": number, "height": h, "width": w} for number, (h, w) in enumerate(sizes_hw)]
    kinds = sorted({entry["category_id"] for entry in [*entries, *results]})
    truth = COCO({"images": images, "annotations": entries, "categories": [{"id": k, "name": str(k)} for k in kinds]})
    if not results:
        return {"mAP": 0.0, "mAP50": 0.0, "mAP75": 0.0}
    evaluation = COCOeval_faster(truth, truth.loadRes(results), "bbox", print_function=lambda *_: None)
    evaluation.run()
    return {name: float(evaluation.stats[i]) for i, name in enumerate(("mAP", "mAP50", "mAP75"))}


def _coco_boxes(boxes: Boxes, image: int, height: int, width: int) -> list[dict[str, Any]]:
    scale_4 = np.array([width, height, width, height], float)
    entries = []
    for corners_4, score, kind in zip(boxes.corners_N4 * scale_4, boxes.scores_N, boxes.classes_N, strict=True):
        left, top, right, bottom = (float(side) for side in corners_4)
        box = [left, top, right - left, bottom - top]
        entries.append({"image_id": image, "category_id": int(kind) + 1, "bbox": box, "score": float(score)})
    return entries
