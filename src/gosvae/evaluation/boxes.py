"""What a detector finds on reconstructions, measured against what it finds on the originals.

The detector is FastestDet (github.com/dog-qiuqiu/FastestDet) as an ONNX file, run by ONNX Runtime: an anchor-free
network for COCO's 80 classes that looks at pictures of 352x352. No codec of this package is trained with it.

Axis legend: N boxes, K cells of the grid, four coordinates (left, top, right, bottom) as shares of width and height.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from gosvae.errors import ExpertError
from gosvae.tensors import ImageArray, check_image

FloatArray = npt.NDArray[np.float64]
SIDE = 352
"""Height and width of the pictures that the detector takes."""
LEAST_SCORE = 0.05
"""Score below which a box is not kept."""
CERTAIN_SCORE = 0.5
"""Score from which a box on an original counts as an object."""
SAME_BOX = 0.45
"""Overlap (intersection over union) from which the weaker of two boxes of one class is a duplicate."""


@dataclass(frozen=True)
class Boxes:
    """Detections of one image, the surest first.

    Attributes:
        corners_N4: left, top, right and bottom as shares of width and height.
        scores_N: from 0 to 1. classes_N: numbers of COCO's classes.
    """

    corners_N4: FloatArray
    scores_N: FloatArray
    classes_N: npt.NDArray[np.int64]

    def above(self, score: float) -> Boxes:
        """The boxes of at least this score."""
        kept = self.scores_N >= score
        return Boxes(self.corners_N4[kept], self.scores_N[kept], self.classes_N[kept])


class FastestDet:
    """A detector from an ONNX file.

    Raises:
        ExpertError: the file is missing or cannot be read, or ONNX Runtime is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime  # type: ignore[import-untyped]
        except ImportError:
            raise ExpertError("a detector needs ONNX Runtime: pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ExpertError(f"cannot read the detector {path}: {str(error).splitlines()[0]}") from None
        self._input = self._session.get_inputs()[0].name

    def __call__(self, image_uint8_HW3: ImageArray) -> Boxes:
        """The boxes on an image."""
        small = Image.fromarray(check_image(image_uint8_HW3)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        bgr_3HW = np.asarray(small, np.float32)[..., ::-1].transpose(2, 0, 1) / 255.0
        (output,) = self._session.run(None, {self._input: np.ascontiguousarray(bgr_3HW[None])})
        return boxes_of(np.asarray(output[0], np.float64))


def boxes_of(output_Chw: FloatArray) -> Boxes:
    """Boxes of the detector's output, (85, h, w): objectness, four box terms and 80 class probabilities for each cell.

    Duplicates are left out (non-maximum suppression, class by class).
    """
    h, w = output_Chw.shape[1:]
    cells_CK = output_Chw.reshape(len(output_Chw), -1)
    probabilities_K, classes_K = cells_CK[5:].max(axis=0), cells_CK[5:].argmax(axis=0)
    scores_K = cells_CK[0].clip(0, 1) ** 0.6 * probabilities_K.clip(0, 1) ** 0.4
    rows_K, columns_K = (places.reshape(-1) for places in np.mgrid[:h, :w])
    x_K, y_K = (columns_K + np.tanh(cells_CK[1])) / w, (rows_K + np.tanh(cells_CK[2])) / h
    half_width_K, half_height_K = (1.0 / (1.0 + np.exp(-cells_CK[i])) / 2.0 for i in (3, 4))
    corners_K4 = np.stack([x_K - half_width_K, y_K - half_height_K, x_K + half_width_K, y_K + half_height_K], axis=1)
    kept: list[int] = []
    for i in np.argsort(-scores_K, kind="stable"):
        if scores_K[i] < LEAST_SCORE:
            break
        rivals = [j for j in kept if classes_K[j] == classes_K[i]]
        if not rivals or overlaps(corners_K4[i], corners_K4[rivals]).max() < SAME_BOX:
            kept.append(int(i))
    return Boxes(corners_K4[kept], scores_K[kept], classes_K[kept].astype(np.int64))


def overlaps(corners_4: FloatArray, corners_N4: FloatArray) -> FloatArray:
    """Intersection over union (N,) of one box with others."""
    low_N2, high_N2 = np.maximum(corners_4[:2], corners_N4[:, :2]), np.minimum(corners_4[2:], corners_N4[:, 2:])
    shared_N = (high_N2 - low_N2).clip(0).prod(axis=1)
    own, areas_N = (corners_4[2:] - corners_4[:2]).prod(), (corners_N4[:, 2:] - corners_N4[:, :2]).prod(axis=1)
    ratio_N: FloatArray = shared_N / np.maximum(own + areas_N - shared_N, 1e-12)
    return ratio_N


class BoxMeter:
    """Average precision of boxes on reconstructions, over a set of images and all classes together.

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
        """Area below the envelope of precision over recall, from 0 to 1; None without objects."""
        if self._objects == 0:
            return None
        hits = np.array(self._hits, float)[np.argsort(-np.array(self._scores), kind="stable")]
        found = hits.cumsum()
        precision = found / np.arange(1, len(hits) + 1)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        return float((envelope * hits).sum() / self._objects)
