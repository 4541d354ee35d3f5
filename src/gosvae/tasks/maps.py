"""Tasks of maps over the image: depth, heat maps of keypoints, and binary maps such as lanes.

Axis legend: B images, K maps, h and w grid positions.
"""

from __future__ import annotations

from statistics import fmean
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from gosvae.datasets.palettes import class_palette
from gosvae.errors import ExpertError
from gosvae.tasks.base import Arrays, MeanOfImages, Meter, Task
from gosvae.tasks.bernoulli import bernoulli_divergence
from gosvae.tensors import ImageArray

Maps = npt.NDArray[np.float32]
_SMALLEST_SHARE = 1e-3
"""Depth below this share of the mean counts as this share, so that its logarithm is finite."""
_NEAR_TO_FAR = np.array([[253, 231, 37], [94, 201, 98], [33, 145, 140], [59, 82, 139], [68, 1, 84]], np.float32)
"""Colours of large to small values (viridis)."""
_NEAR = 0.05
"""Share of the diagonal within which a keypoint counts as found."""
_SEEN = 0.3
"""Share of the largest peak from which a heat map on the original shows a keypoint."""


class DepthMeter(Meter[Maps]):
    """Share of values within 25 % of the reference (delta 1.25), and absolute relative error (Eigen et al. 2014)."""

    def __init__(self) -> None:
        self._near: list[float] = []
        self._error: list[float] = []

    def update(self, reference: Maps, seen: Maps) -> None:
        if not reference.max() > 0:
            raise ExpertError("its depth is nowhere above 0: depth, or inverse depth, is positive")
        floor = max(_SMALLEST_SHARE * float(reference.mean()), 1e-12)
        a, b = np.maximum(reference, floor), np.maximum(seen, floor)
        self._near.append(float((np.maximum(a / b, b / a) < 1.25).mean()))
        self._error.append(float((np.abs(b - a) / a).mean()))

    def values(self) -> dict[str, float | None]:
        return {
            "delta 1.25": fmean(self._near) if self._near else None,
            "abs rel": fmean(self._error) if self._error else None,
        }


class Depth(MeanOfImages[Tensor, Maps]):
    """Task of positive maps (B, 1, h, w): depth, or inverse depth, whose logarithm differs by its sign alone.

    The distance is the scale-invariant logarithmic error of Eigen et al. 2014 with half weight of the mean, averaged
    over images: `mean(d^2) - mean(d)^2 / 2` of `d = log y_hat - log y`.
    """

    name = "depth"
    columns: ClassVar[tuple[str, ...]] = ("delta 1.25", "abs rel")

    def image_distances(self, original: Tensor, reconstruction: Tensor) -> Tensor:
        y = original.detach().float()
        floor = (_SMALLEST_SHARE * y.mean(dim=(1, 2, 3), keepdim=True)).clamp_min(1e-12)
        d = (reconstruction.float().clamp_min(floor).log() - y.clamp_min(floor).log()).flatten(1)
        return d.square().mean(dim=1) - 0.5 * d.mean(dim=1).square()

    def results(self, output: Tensor) -> list[Maps]:
        return [values.detach().cpu().numpy().astype(np.float32) for values in output[:, 0]]

    def arrays(self, result: Maps) -> Arrays:
        """Return `depth` (h, w), as the network gives it."""
        return {"depth": result}

    def describe(self, result: Maps) -> str:
        """Return the range of the values."""
        return f"{float(result.min()):.3g} to {float(result.max()):.3g}"

    def meter(self) -> DepthMeter:
        return DepthMeter()

    def draw(self, image_uint8_HW3: ImageArray, result: Maps) -> ImageArray:
        low, high = float(result.min()), float(result.max())
        share = (high - result) / max(high - low, 1e-12)
        stops = np.linspace(0.0, 1.0, len(_NEAR_TO_FAR))
        colours = np.stack([np.interp(share, stops, _NEAR_TO_FAR[:, c]) for c in range(3)], axis=-1)
        return _enlarged(colours.round().astype(np.uint8), image_uint8_HW3)


class KeypointMeter(Meter[Maps]):
    """Share of keypoints within 5 % of the diagonal of where they are on the original (PCK), and their mean offset."""

    def __init__(self) -> None:
        self._offsets: list[float] = []

    def update(self, reference: Maps, seen: Maps) -> None:
        least = _SEEN * float(reference.max())
        rows, columns = reference.shape[1:]
        for original, other in zip(reference, seen, strict=True):
            if float(original.max()) < least or original.max() <= 0:
                continue
            (y, x), (y_hat, x_hat) = (divmod(int(each.argmax()), columns) for each in (original, other))
            self._offsets.append(float(np.hypot(y - y_hat, x - x_hat) / np.hypot(rows, columns)))

    def values(self) -> dict[str, float | None]:
        if not self._offsets:
            return {"PCK": None, "offset": None}
        return {"PCK": fmean(offset < _NEAR for offset in self._offsets), "offset": fmean(self._offsets)}


class Keypoints(Task[Tensor, Maps]):
    """Task of heat maps (B, K, h, w), one for each keypoint; the distance is the squared one over their square."""

    name = "keypoints"
    columns: ClassVar[tuple[str, ...]] = ("PCK", "offset")

    def distance(self, original: Tensor, reconstruction: Tensor) -> Tensor:
        y = original.detach().float()
        return (reconstruction.float() - y).square().mean() / y.square().mean().clamp_min(1e-12)

    def results(self, output: Tensor) -> list[Maps]:
        return [values.detach().cpu().numpy().astype(np.float32) for values in output]

    def arrays(self, result: Maps) -> Arrays:
        """Return `heat_maps` (K, h, w)."""
        return {"heat_maps": result}

    def describe(self, result: Maps) -> str:
        """Return the number of keypoints that are seen."""
        seen = int((result.max(axis=(1, 2)) >= max(_SEEN * float(result.max()), 1e-12)).sum())
        return f"{seen} of {len(result)} keypoints"

    def meter(self) -> KeypointMeter:
        return KeypointMeter()

    def draw(self, image_uint8_HW3: ImageArray, result: Maps) -> ImageArray:
        """Return the image with a mark at the peak of every heat map that shows a keypoint."""
        picture = image_uint8_HW3.copy()
        height, width = picture.shape[:2]
        rows, columns = result.shape[1:]
        palette_K3 = class_palette(tuple(str(k) for k in range(len(result))))
        for values, colour in zip(result, palette_K3, strict=True):
            if float(values.max()) < _SEEN * float(result.max()):
                continue
            y, x = divmod(int(values.argmax()), columns)
            row, column = (2 * y + 1) * height // (2 * rows), (2 * x + 1) * width // (2 * columns)
            picture[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3] = colour
        return picture


class BinaryMeter(Meter[Maps]):
    """Intersection over union of binary maps over all images, and the F1 score that follows from it."""

    def __init__(self) -> None:
        self._shared = self._either = 0

    def update(self, reference: Maps, seen: Maps) -> None:
        self._shared += int(((reference > 0) & (seen > 0)).sum())
        self._either += int(((reference > 0) | (seen > 0)).sum())

    def values(self) -> dict[str, float | None]:
        if self._either == 0:
            return {"IoU": None, "F1": None}
        iou = self._shared / self._either
        return {"IoU": iou, "F1": 2 * iou / (1 + iou)}


class Lanes(MeanOfImages[Tensor, Maps]):
    """Task of binary maps (B, K, h, w), such as lanes or free space, from logits whose sigmoid is the probability.

    The distance is the mean Jensen-Shannon divergence of the probabilities, in nats.
    """

    name = "lanes"
    columns: ClassVar[tuple[str, ...]] = ("IoU", "F1")

    def image_distances(self, original: Tensor, reconstruction: Tensor) -> Tensor:
        return bernoulli_divergence(original.detach().sigmoid(), reconstruction.sigmoid()).flatten(1).mean(dim=1)

    def results(self, output: Tensor) -> list[Maps]:
        return [values.detach().cpu().numpy().astype(np.float32) for values in output]

    def arrays(self, result: Maps) -> Arrays:
        """Return `maps` (K, h, w): 1 where a map is on, 0 elsewhere."""
        return {"maps": (result > 0).astype(np.uint8)}

    def describe(self, result: Maps) -> str:
        """Return the share of places where any map is on."""
        return f"{100 * float((result > 0).any(axis=0).mean()):.1f} % of the picture"

    def meter(self) -> BinaryMeter:
        return BinaryMeter()

    def draw(self, image_uint8_HW3: ImageArray, result: Maps) -> ImageArray:
        """Return the image with the maps laid over it, half transparent."""
        picture = image_uint8_HW3.astype(np.float32)
        palette_K3 = class_palette(tuple(str(k) for k in range(len(result))))
        for values, colour in zip(result, palette_K3, strict=True):
            on = _enlarged(np.repeat((values > 0)[..., None].astype(np.uint8), 3, axis=2), image_uint8_HW3) > 0
            picture = np.where(on, (picture + colour) / 2, picture)
        return picture.round().astype(np.uint8)


def _enlarged(picture_hw3: ImageArray, image_uint8_HW3: ImageArray) -> ImageArray:
    height, width = image_uint8_HW3.shape[:2]
    return np.array(Image.fromarray(picture_hw3).resize((width, height), Image.Resampling.NEAREST))
