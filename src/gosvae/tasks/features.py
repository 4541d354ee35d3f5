"""Features: any tensors of a network, such as an embedding, the maps of a backbone or the actions of a policy.

Axis legend: B images.
"""

from __future__ import annotations

from statistics import fmean
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from gosvae.tasks.base import Arrays, MeanOfImages, Meter
from gosvae.tensors import ImageArray

_POSITIVE, _NEGATIVE = (13, 148, 136), (217, 119, 6)
"""Colours of the bars of positive and negative values."""
Vectors = tuple[npt.NDArray[np.float32], ...]


class FeatureMeter(Meter[Vectors]):
    """Mean cosine of the vectors of both pictures, and their squared distance relative to the original's square."""

    def __init__(self) -> None:
        self._cosines: list[float] = []
        self._distances: list[float] = []

    def update(self, reference: Vectors, seen: Vectors) -> None:
        for a, b in zip(reference, seen, strict=True):
            scale = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
            self._cosines.append(float(a @ b) / max(scale, 1e-12))
            self._distances.append(float(((a - b) ** 2).sum()) / max(float((a**2).sum()), 1e-12))

    def values(self) -> dict[str, float | None]:
        return {
            "cosine": fmean(self._cosines) if self._cosines else None,
            "relative distance": fmean(self._distances) if self._distances else None,
        }


class Features(MeanOfImages[tuple[Tensor, ...], Vectors]):
    """Task of tensors of any shape, images first.

    The distance is the mean over tensors and images of `1 - cosine` and of the squared distance relative to the square
    of the original's tensor.
    """

    name = "features"
    columns: ClassVar[tuple[str, ...]] = ("cosine", "relative distance")

    def image_distances(self, original: tuple[Tensor, ...], reconstruction: tuple[Tensor, ...]) -> Tensor:
        parts = []
        for y, y_hat in zip(original, reconstruction, strict=True):
            a, b = y.detach().float().flatten(1), y_hat.float().flatten(1)
            turned = 1.0 - F.cosine_similarity(a, b, dim=1, eps=1e-6)
            off = (b - a).square().sum(dim=1) / a.square().sum(dim=1).clamp_min(1e-12)
            parts.append(turned + off)
        return torch.stack(parts).mean(dim=0)

    def results(self, output: tuple[Tensor, ...]) -> list[Vectors]:
        arrays = [values.detach().float().flatten(1).cpu().numpy() for values in output]
        return [tuple(row) for row in zip(*arrays, strict=True)]

    def arrays(self, result: Vectors) -> Arrays:
        """Return the vector of each tensor, `features_0`, `features_1` and so on."""
        return {f"features_{number}": values for number, values in enumerate(result)}

    def describe(self, result: Vectors) -> str:
        """Return the number of values."""
        return f"{sum(values.size for values in result):,} values"

    def meter(self) -> FeatureMeter:
        return FeatureMeter()

    def draw(self, image_uint8_HW3: ImageArray, result: Vectors) -> ImageArray:
        """Return the image with the values as bars over its lower third; of many values, each bar is a mean."""
        height, width = image_uint8_HW3.shape[:2]
        values = np.concatenate(result)
        means = np.array([part.mean() for part in np.array_split(values, min(len(values), max(1, width // 4)))])
        heights = np.abs(means) / max(float(np.abs(means).max()), 1e-12) * (height // 3)
        bars_W = heights[np.arange(width) * len(means) // width]
        on_HW = np.arange(height)[::-1, None] < bars_W
        colours_W3 = np.where((means >= 0)[np.arange(width) * len(means) // width][:, None], _POSITIVE, _NEGATIVE)
        picture: ImageArray = np.where(on_HW[..., None], colours_W3, image_uint8_HW3 // 2 + 96).astype(np.uint8)
        return picture
