"""Check of an expert on a data set before hours are spent on it: answers, gradient, class shares, a picture.

Axis legend: H and W pixels, m classes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gosvae.datasets.base import Dataset
from gosvae.datasets.palettes import class_palette
from gosvae.errors import ConfigError, ExpertError
from gosvae.evaluation.fitting import check_classes
from gosvae.experts.base import Expert
from gosvae.metrics import ConfusionMatrix
from gosvae.tensors import ImageArray, image_to_tensor

_DOMINANT = 0.98
"""Share of the pixels above which one class fills the maps, which is most often a fault of the normalisation."""
_FEWEST = 0.2
"""Mean IoU with the labels below which the classes are most often in another order than those of the labels."""


@dataclass(frozen=True)
class ExpertCheck:
    """Result of the check of an expert.

    Attributes:
        class_names: classes of the expert.
        shares: share of the pixels of each class in the expert's maps, in the order of the classes.
        miou: mean IoU of the expert's maps with the labels; None without labels.
        gradient: mean absolute gradient at the pixels.
        forward_ms: time of one image, in milliseconds.
        image_count: number of images.
        problems: sentences on what is wrong; empty if nothing was found.
        picture_uint8_HW3: images and the expert's maps of them in colours, side by side.
    """

    class_names: tuple[str, ...]
    shares: tuple[float, ...]
    miou: float | None
    gradient: float
    forward_ms: float
    image_count: int
    problems: tuple[str, ...]
    picture_uint8_HW3: ImageArray

    def __repr__(self) -> str:
        return f"ExpertCheck({self.image_count} images, {len(self.problems)} problems)"


def check_expert(expert: Expert, dataset: Dataset, *, images: int = 4) -> ExpertCheck:
    """Apply an expert to a few evenly spaced images of a data set, and take one gradient.

    Args:
        expert: expert to check, on any device.
        dataset: images, with or without labels.
        images: number of images.

    Raises:
        ConfigError: fewer than 1 image.
        ExpertError: the expert cannot take an image.
        GosvaeError: an image cannot be read.
    """
    count = min(images, len(dataset))
    if count < 1:
        raise ConfigError(f"a check needs at least 1 image, got {count}")
    device = next(iter(expert.buffers()), next(iter(expert.parameters()), torch.empty(0))).device
    class_count = len(expert.info.class_names)
    pixels_m, labelled = np.zeros(class_count, np.int64), ConfusionMatrix(class_count)
    same_classes = _class_problem(dataset, expert)
    seconds, pictures = [], []
    palette_m3 = class_palette(expert.info.class_names)
    gradient = 0.0
    for number in range(count):
        sample = dataset[number * len(dataset) // count]
        x_B3HW = image_to_tensor(sample.image_uint8_HW3).to(device)
        started = time.perf_counter()
        map_HW = expert.class_map(x_B3HW)[0].cpu().numpy()
        seconds.append(time.perf_counter() - started)
        pixels_m += np.bincount(map_HW.ravel(), minlength=class_count)
        if sample.labels_uint8_HW is not None and same_classes is None:
            labelled.update(map_HW.astype(np.int16), sample.labels_uint8_HW)
        pictures.append(np.concatenate([sample.image_uint8_HW3, palette_m3[map_HW]], axis=1))
        if number == 0:
            gradient = _gradient(expert, x_B3HW)
    shares_m = pixels_m / pixels_m.sum()
    miou = labelled.mean_iou()
    problems = [
        *([] if same_classes is None else [same_classes]),
        *_problems(expert, shares_m, gradient, None if miou is None else miou.value),
    ]
    return ExpertCheck(
        expert.info.class_names,
        tuple(float(share) for share in shares_m),
        None if miou is None else miou.value,
        gradient,
        1000.0 * min(seconds),
        count,
        tuple(problems),
        _stacked(pictures),
    )


def _class_problem(dataset: Dataset, expert: Expert) -> str | None:
    """Return why the labels cannot be compared with the expert's classes; None if they can, or without labels."""
    if not dataset.has_labels:
        return None
    try:
        check_classes(dataset, expert)
    except ConfigError as error:
        return str(error)
    return None


def _gradient(expert: Expert, x_B3HW: torch.Tensor) -> float:
    """Return the mean absolute gradient of the classes' total evidence at the pixels; 0 if none arrives."""
    x = x_B3HW.detach().clone().requires_grad_()
    try:
        expert(x).float().logsumexp(dim=1).mean().backward()
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ExpertError(f"expert {expert.info.name!r} cannot take a gradient: {str(error).splitlines()[0]}") from None
    return 0.0 if x.grad is None else float(x.grad.abs().mean())


def _problems(expert: Expert, shares_m: np.ndarray, gradient: float, miou: float | None) -> list[str]:
    """Return what is wrong, in sentences that say what to do."""
    problems = []
    if not np.isfinite(gradient):
        problems.append("The gradient at the pixels is not finite: a training would stop at its first step.")
    elif gradient == 0:
        problems.append(
            "No gradient reaches the pixels, so that no codec can learn from this expert: export the network without "
            "torch.no_grad, rounding or argmax."
        )
    first = int(shares_m.argmax())
    if len(shares_m) > 1 and shares_m[first] > _DOMINANT:
        problems.append(
            f"{100 * shares_m[first]:.0f} % of the pixels are {expert.info.class_names[first]!r}: check mean and std, "
            "and whether the network takes BGR."
        )
    if miou is not None and miou < _FEWEST:
        problems.append(
            f"The mIoU with the labels is {miou:.3f}: check the order of the class names, mean and std, and whether "
            "the network takes BGR."
        )
    return problems


def _stacked(pictures: Sequence[ImageArray]) -> ImageArray:
    """Return pictures below each other; narrower ones are filled with white."""
    width = max(picture.shape[1] for picture in pictures)
    return np.concatenate([np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in pictures])
