"""Check of an expert of any task on a data set: what it sees, its gradient, and how far a blurred picture is.

Axis legend: B images, H and W pixels.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch.nn import functional as F

from gosvae.datasets.base import Dataset
from gosvae.errors import ConfigError, ExpertError
from gosvae.experts.base import DenseBoxes, TaskExpert
from gosvae.tasks.boxes import CERTAIN_SCORE, Boxes
from gosvae.tasks.registry import load_task
from gosvae.tensors import ImageArray, image_to_tensor

_REDUCTION = 8


@dataclass(frozen=True)
class TaskCheck:
    """Result of the check of an expert.

    Attributes:
        task: name of its task.
        distance: mean imitation distance of images from the same images at an eighth of their size, enlarged again.
        measures: agreement of the results on both, by the names of the task's measures.
        gradient: mean absolute gradient of the distance at the pixels of a blurred image; None if the network can judge
            only.
        forward_ms: time of one image, in milliseconds.
        image_count: number of images.
        problems: sentences on what is wrong; empty if nothing was found.
        picture_uint8_HW3: images and what the expert sees on them, side by side.
    """

    task: str
    distance: float
    measures: dict[str, float | None]
    gradient: float | None
    forward_ms: float
    image_count: int
    problems: tuple[str, ...]
    picture_uint8_HW3: ImageArray

    def __repr__(self) -> str:
        return f"TaskCheck({self.task!r}, {self.image_count} images, {len(self.problems)} problems)"


def check_task_expert(expert: TaskExpert, dataset: Dataset, *, images: int = 4) -> TaskCheck:
    """Apply an expert to a few evenly spaced images of a data set and to blurred ones, and take one gradient.

    Args:
        expert: expert of any task, on any device.
        dataset: images.
        images: number of images.

    Raises:
        ConfigError: fewer than 1 image.
        ExpertError: the expert cannot take an image.
        GosvaeError: an image cannot be read.
    """
    count = min(images, len(dataset))
    if count < 1:
        raise ConfigError(f"a check needs at least 1 image, got {count}")
    task = load_task(expert)
    device = next(chain(expert.parameters(), expert.buffers()), torch.empty(0)).device
    meter, seconds, distances, pictures, boxes = task.meter(), [], [], [], 0
    within = True
    gradient: float | None = None
    for number in range(count):
        image = dataset[number * len(dataset) // count].image_uint8_HW3
        x_B3HW = image_to_tensor(image).to(device)
        blurred_B3HW = _blurred(x_B3HW)
        with torch.inference_mode():
            started = time.perf_counter()
            output = expert(x_B3HW)
            seconds.append(time.perf_counter() - started)
            other = expert(blurred_B3HW)
            distances.append(float(task.distance(output, other)))
            (result,), (seen,) = task.results(output), task.results(other)
        within = within and (not isinstance(output, DenseBoxes) or _are_probabilities(output))
        meter.update(result, seen)
        boxes += len(result.above(CERTAIN_SCORE).scores_N) if isinstance(result, Boxes) else 1
        pictures.append(np.concatenate([image, task.draw(image, result)], axis=1))
        if number == 0:
            gradient = _gradient(expert, x_B3HW, blurred_B3HW)
    distance = float(np.mean(distances))
    width = max(picture.shape[1] for picture in pictures)
    padded = [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in pictures]
    return TaskCheck(
        task.name,
        distance,
        meter.values(),
        gradient,
        1000.0 * min(seconds),
        count,
        tuple(_problems(distance, gradient, boxes, within=within)),
        np.concatenate(padded),
    )


def _blurred(x_B3HW: torch.Tensor) -> torch.Tensor:
    size = (max(1, x_B3HW.shape[-2] // _REDUCTION), max(1, x_B3HW.shape[-1] // _REDUCTION))
    small = F.interpolate(x_B3HW, size, mode="area")
    return F.interpolate(small, x_B3HW.shape[-2:], mode="bilinear", align_corners=False)


def _gradient(expert: TaskExpert, x_B3HW: torch.Tensor, blurred_B3HW: torch.Tensor) -> float | None:
    """Return the mean absolute gradient of the distance at the blurred pixels; None if there can be none."""
    x = blurred_B3HW.detach().clone().requires_grad_()
    with torch.no_grad():
        original = expert(x_B3HW)
    try:
        distance = load_task(expert).distance(original, expert(x))
        distance.backward()  # type: ignore[no-untyped-call]
    except ExpertError:
        return None
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ExpertError(f"expert {expert.info.name!r} cannot take a gradient: {str(error).splitlines()[0]}") from None
    return 0.0 if x.grad is None else float(x.grad.abs().mean())


def _are_probabilities(boxes: DenseBoxes) -> bool:
    """Return whether objectness and class scores are in [0, 1]."""
    return all(bool(((values >= 0) & (values <= 1)).all()) for values in (boxes.objectness_BN, boxes.classes_BNm))


def _problems(distance: float, gradient: float | None, seen: int, *, within: bool = True) -> list[str]:
    """Return what is wrong, in sentences that say what to do."""
    problems = []
    if not within:
        problems.append("Scores are below 0 or above 1: export the network with its sigmoid.")
    if gradient is not None and not np.isfinite(gradient):
        problems.append("The gradient at the pixels is not finite: a training would stop at its first step.")
    elif gradient == 0:
        problems.append("No gradient reaches the pixels, so that no codec can learn from this expert.")
    if not distance > 0:
        problems.append("It sees the same on blurred images: check its input range and its outputs.")
    if not seen:
        problems.append(
            f"No box has a score of {CERTAIN_SCORE} or more: check mean, std, scale, the channel order, and whether "
            "the images show its classes."
        )
    return problems
