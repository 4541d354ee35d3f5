"""Detection: boxes with a class and a score.

Axis legend: B images, N candidates, m classes, H and W pixels.
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from gosvae.datasets.palettes import class_palette
from gosvae.experts.base import DenseBoxes
from gosvae.tasks.base import Arrays, MeanOfImages
from gosvae.tasks.bernoulli import bernoulli_divergence
from gosvae.tasks.boxes import CERTAIN_SCORE, Boxes, DetectionMeter, without_duplicates
from gosvae.tensors import ImageArray

_BOX_WEIGHT = 2.0
"""Weight of the distance of boxes beside the divergences, in nats for each box that is off by its own size."""


class Detection(MeanOfImages[DenseBoxes, Boxes]):
    """Task of boxes, compared before non-maximum suppression.

    The distance is the sum over candidates, a mean over images, of three parts: the Jensen-Shannon divergence of the
    objectness; that of the score of every class; and the distance of the corners relative to the size of the original's
    box, weighted by the best score of the original. A candidate that is sure of nothing on either picture adds nothing.
    """

    name = "detection"
    columns: ClassVar[tuple[str, ...]] = ("AP50", "AP50:95")

    def image_distances(self, original: DenseBoxes, reconstruction: DenseBoxes) -> Tensor:
        objectness_BN, classes_BNm, corners_BN4 = (values.detach() for values in original)
        scores_BNm, scores_hat_BNm = objectness_BN[..., None] * classes_BNm, _scores(reconstruction)
        there_BN = bernoulli_divergence(objectness_BN, reconstruction.objectness_BN)
        kind_BN = bernoulli_divergence(scores_BNm, scores_hat_BNm).sum(dim=-1)
        size_BN1 = (corners_BN4[..., 2:] - corners_BN4[..., :2]).mean(dim=-1, keepdim=True).clamp_min(0.01)
        off_BN = ((reconstruction.corners_BN4 - corners_BN4).abs() / size_BN1).mean(dim=-1)
        # Beyond one size the boxes no longer touch: the distance grows with its logarithm.
        box_BN = scores_BNm.amax(dim=-1) * torch.log1p(off_BN)
        return (there_BN + kind_BN + _BOX_WEIGHT * box_BN).sum(dim=1)

    def results(self, output: DenseBoxes) -> list[Boxes]:
        scores_BNm = _scores(output)
        best = scores_BNm.max(dim=-1)
        arrays = (output.corners_BN4.double(), best.values.double(), best.indices)
        rows = zip(*(values.detach().cpu().numpy() for values in arrays), strict=True)
        return [without_duplicates(*row) for row in rows]

    def arrays(self, result: Boxes) -> Arrays:
        """Return `corners` (N, 4) as shares of width and height, `scores` (N,) and `classes` (N,), the surest first."""
        return {
            "corners": result.corners_N4.astype(np.float32).reshape(-1, 4),
            "scores": result.scores_N.astype(np.float32),
            "classes": result.classes_N.astype(np.uint16),
        }

    def describe(self, result: Boxes) -> str:
        """Return the number of boxes of at least `CERTAIN_SCORE`, by class."""
        counts = Counter(self.info.class_names[kind] for kind in result.above(CERTAIN_SCORE).classes_N)
        of_each = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        return f"{counts.total()} boxes" + (f": {of_each}" if of_each else "")

    def meter(self) -> DetectionMeter:
        return DetectionMeter()

    def draw(self, image_uint8_HW3: ImageArray, result: Boxes) -> ImageArray:
        """Return the image with the boxes of at least `CERTAIN_SCORE`, in the colours and with the names of classes."""
        height, width = image_uint8_HW3.shape[:2]
        picture = Image.fromarray(image_uint8_HW3)
        pen = ImageDraw.Draw(picture)
        palette_m3 = class_palette(self.info.class_names)
        certain = result.above(CERTAIN_SCORE)
        for corners_4, score, kind in zip(certain.corners_N4, certain.scores_N, certain.classes_N, strict=True):
            left, top, right, bottom = _pixels(corners_4, height, width)
            colour = tuple(int(level) for level in palette_m3[kind])
            pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=colour, width=2)
            pen.text((left + 3, top + 1), f"{self.info.class_names[kind]} {score:.2f}", fill=colour)
        return np.array(picture)


def _pixels(corners_4: np.ndarray, height: int, width: int) -> tuple[int, int, int, int]:
    scaled = corners_4.clip(0, 1) * [width - 1, height - 1, width - 1, height - 1]
    left, top, right, bottom = (round(float(side)) for side in scaled)
    return left, top, right, bottom


def _scores(output: DenseBoxes) -> Tensor:
    """Return the scores (B, N, m) of all classes."""
    return output.objectness_BN[..., None] * output.classes_BNm
