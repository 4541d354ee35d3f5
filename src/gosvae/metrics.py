"""Metrics of task, distortion and rate. Counts are summed over a whole data set, never averaged over images.

Axis legend: H and W pixels, m classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gosvae.datasets.base import IGNORE_INDEX
from gosvae.errors import ConfigError, DatasetError, ShapeError
from gosvae.quantizers.base import codebook_usage
from gosvae.tensors import ImageArray

ClassMap = Tensor | npt.NDArray[np.integer[Any]]
"""Class of every pixel, integers of shape (H, W)."""


class PerceptualMetric(Protocol):
    """A perceptual distance such as LPIPS, with the name of the network behind it."""

    @property
    def name(self) -> str: ...

    def __call__(self, x_B3HW: Tensor, x_hat_B3HW: Tensor) -> Tensor:
        """Return the distances (B,) between images in [0, 1]."""


@dataclass(frozen=True)
class MeanIou:
    """Mean intersection over union, in [0, 1], and the number of classes that it is the mean of."""

    value: float
    class_count: int


def _flat(class_map: ClassMap) -> npt.NDArray[np.int64]:
    array = class_map.detach().cpu().numpy() if isinstance(class_map, Tensor) else class_map
    return array.reshape(-1).astype(np.int64)


class ConfusionMatrix:
    """Integer pixel counts of (label, prediction) over any number of images of any size.

    Attributes:
        counts_mm: pixel counts, int64 (m, m), with a row for each label and a column for each prediction.
    """

    def __init__(self, class_count: int, ignore_index: int = IGNORE_INDEX) -> None:
        if class_count < 1:
            raise ConfigError(f"a confusion matrix needs at least one class, got {class_count}")
        self.class_count = class_count
        self.ignore_index = ignore_index
        self.counts_mm: npt.NDArray[np.int64] = np.zeros((class_count, class_count), dtype=np.int64)

    def update(self, predicted_HW: ClassMap, labels_HW: ClassMap) -> None:
        """Count the pixels of one image; those whose label is the ignore index do not count.

        Raises:
            ShapeError: the two maps differ in shape.
            DatasetError: a class is outside [0, m) and is not the ignore index.
        """
        if tuple(predicted_HW.shape) != tuple(labels_HW.shape):
            raise ShapeError(f"expected a prediction of the labels' shape {tuple(labels_HW.shape)}", predicted_HW.shape)
        labels, predicted = _flat(labels_HW), _flat(predicted_HW)
        counted = labels != self.ignore_index
        labels, predicted = labels[counted], predicted[counted]
        for kind, values in (("label", labels), ("predicted class", predicted)):
            wrong = values[(values < 0) | (values >= self.class_count)]
            if wrong.size:
                raise DatasetError(
                    f"{kind} {wrong[0]} found where classes 0 to {self.class_count - 1} were expected (as a label also "
                    f"{self.ignore_index}, ignored): check that data set and expert have the same class map"
                )
        cells = np.bincount(labels * self.class_count + predicted, minlength=self.class_count**2)
        self.counts_mm += cells.reshape(self.class_count, self.class_count)

    def merge(self, other: ConfusionMatrix) -> None:
        """Add the counts of another matrix, as if its images had been counted here.

        Raises:
            ConfigError: the other matrix has other classes.
        """
        if (other.class_count, other.ignore_index) != (self.class_count, self.ignore_index):
            raise ConfigError(
                f"cannot merge a confusion matrix of {other.class_count} classes (ignore index {other.ignore_index}) "
                f"into one of {self.class_count} (ignore index {self.ignore_index})"
            )
        self.counts_mm += other.counts_mm

    def per_class_iou(self) -> tuple[float | None, ...]:
        """Return the intersection over union of every class; None for a class in neither labels nor predictions."""
        intersections_m = self.counts_mm.diagonal()
        unions_m = self.counts_mm.sum(axis=0) + self.counts_mm.sum(axis=1) - intersections_m
        return tuple(float(i / u) if u else None for i, u in zip(intersections_m, unions_m, strict=True))

    def mean_iou(self) -> MeanIou | None:
        """Return the mean over the classes that occur in labels or predictions; None before the first counted pixel."""
        present = [iou for iou in self.per_class_iou() if iou is not None]
        return MeanIou(float(np.mean(present)), len(present)) if present else None

    def pixel_accuracy(self) -> float | None:
        """Return the share of counted pixels with the right class; None before the first counted pixel."""
        total = int(self.counts_mm.sum())
        return int(self.counts_mm.trace()) / total if total else None


def mean_squared_error(image_uint8_HW3: ImageArray, other_uint8_HW3: ImageArray) -> float:
    """Return the mean squared error of two 8-bit images on the [0, 1] scale; `units.psnr_db` converts it to a PSNR.

    Raises:
        ShapeError: the images differ in size.
    """
    if image_uint8_HW3.shape != other_uint8_HW3.shape:
        raise ShapeError(f"expected an image of shape {image_uint8_HW3.shape}", other_uint8_HW3.shape)
    difference = image_uint8_HW3.astype(np.int32) - other_uint8_HW3
    return float(np.mean(difference**2)) / 255.0**2


def frechet_distance(features_ND: npt.NDArray[Any], other_MD: npt.NDArray[Any]) -> float:
    """Return the Fréchet distance of two Gaussians with the means and (unbiased) covariances of two sets of features.

    The distance is `|mean - other mean|^2 + Tr(C + C' - 2 (C C')^(1/2))` (Dowson and Landau 1982), as in the FID
    (Heusel et al. 2017). With few images (N or M not far above D) it is too large: compare only values of the same
    number of images.

    Args:
        features_ND, other_MD: D features in one row for each image; N and M are at least 2.

    Raises:
        ShapeError: a set has fewer than two images, or the sets have different numbers of features.
        ConfigError: a feature is not a finite number.
    """
    for features in (features_ND, other_MD):
        if features.ndim != 2 or len(features) < 2 or features.shape[1] != features_ND.shape[1]:
            raise ShapeError(
                f"expected features (N, {features_ND.shape[-1]}) of at least two images in each set", features.shape
            )
        if not np.isfinite(features).all():
            raise ConfigError("a feature for the Fréchet distance is not finite: check the feature network")
    means_D: list[npt.NDArray[np.float64]] = []
    factors: list[npt.NDArray[np.float64]] = []
    for features in (features_ND, other_MD):
        values = features.astype(np.float64)
        means_D.append(values.mean(axis=0))
        # F with F^T F = C: the centred features, or their triangular factor where there are more images than features.
        factor: npt.NDArray[np.float64] = (values - means_D[-1]) / np.sqrt(len(values) - 1)
        factors.append(np.linalg.qr(factor)[1] if len(factor) > factor.shape[1] else factor)
    # C C' = F^T F G^T G has the eigenvalues of (F G^T)(F G^T)^T: the trace of its root is the sum of the singular
    # values of F G^T. So no root of a matrix is needed; it would fail where N < D makes C singular.
    root_trace = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    spread = sum(float((factor**2).sum()) for factor in factors)
    distance = float(((means_D[0] - means_D[1]) ** 2).sum()) + spread - 2.0 * float(root_trace)
    return max(distance, 0.0)  # equal sets: rounding leaves about 1e-15 of the spread, of either sign


def zero_order_bits(indices: Tensor) -> float:
    """Return the bits that integer `indices` (any shape) take at the entropy of their own histogram.

    This is a lower bound for coders without context that know the histogram. It is an estimate, which counts neither
    the cost of the histogram nor any header. With one call for each image every image has its own histogram.
    """
    if indices.numel() == 0:
        return 0.0
    compact = torch.unique(indices, return_inverse=True)[1]
    return codebook_usage(compact, int(compact.max()) + 1).entropy_bits * indices.numel()
