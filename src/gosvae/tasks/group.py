"""Several experts of any tasks as one: their distances are brought to one scale, weighted and added.

Axis legend: B images, H and W pixels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.datasets.base import Dataset
from gosvae.datasets.subset import EvenlySpaced
from gosvae.errors import ConfigError, ExpertError
from gosvae.experts.base import ExpertInfo, TaskExpert
from gosvae.tasks.base import AnyTask
from gosvae.tasks.registry import load_task
from gosvae.tensors import ImageArray, image_to_tensor

GROUP = "several"
"""Name of the task of a group."""
_REDUCTION = 8
"""Factor by which pictures are reduced and enlarged again, to see how an expert's distance grows."""
_BALANCE_IMAGES = 8
"""Number of images on which the distances of several experts are balanced."""
_REFERENCE = 0.1
"""Weighted distance that every expert has on such pictures; the Jensen-Shannon divergence of a segmenter is near it."""


@dataclass(frozen=True)
class NamedExpert:
    """Name, source and weight of one of several experts, from text such as `det=boxes.onnx:0.5`."""

    name: str
    spec: str
    weight: float


def parse_experts(texts: Sequence[str], *, weighted: bool = True) -> list[NamedExpert]:
    """Return the experts that texts name: `SPEC`, `NAME=SPEC`, `SPEC:WEIGHT` or `NAME=SPEC:WEIGHT`.

    The name is by default what stands behind the last slash of the source, without its ending; the weight is 1. Without
    `weighted`, a number at the end belongs to the source.

    Raises:
        ConfigError: a weight is not above 0, or two experts have one name.
    """
    found: list[NamedExpert] = []
    for text in texts:
        weight_of = r"(?::(\d+(?:\.\d+)?))?" if weighted else "()"
        named = re.fullmatch(r"(?:([A-Za-z][\w-]*)=)?(.+?)" + weight_of, text)
        if named is None:
            raise ConfigError(f"expert {text!r}: expected SOURCE, or NAME=SOURCE:WEIGHT for one of several")
        spec, weight = named[2], float(named[3] or 1.0)
        plain = re.sub(r"\?short=\d+$", "", spec).rstrip("/").rpartition("/")[2]
        name = named[1] or re.sub(r"\.\w+$", "", plain).removeprefix("hf:")
        if weight <= 0:
            raise ConfigError(f"expert {text!r}: expected a weight above 0")
        if name in [each.name for each in found]:
            raise ConfigError(f"two experts have the name {name!r}: give each its own, as in NAME={spec}")
        found.append(NamedExpert(name, spec, weight))
    return found


class ExpertGroup(TaskExpert):
    """Experts that are imitated together.

    Args:
        experts: experts with their names and weights.

    Attributes:
        names: names of the experts.
        tasks: task of each.
        factors: factor of each one's distance: its share of the weights, brought to the common scale by `balance`.
    """

    weights_E: Tensor

    def __init__(self, experts: Sequence[tuple[str, TaskExpert, float]]) -> None:
        first = experts[0][1].info
        super().__init__(
            ExpertInfo("+".join(name for name, _, _ in experts), (), first.input_height, first.input_width)
        )
        self.task = GROUP
        self.names = tuple(name for name, _, _ in experts)
        self.members = nn.ModuleList(expert for _, expert, _ in experts)
        self.register_buffer("weights_E", torch.tensor([weight for _, _, weight in experts]))
        self.tasks: tuple[AnyTask, ...] = tuple(load_task(expert) for expert in self.experts())
        total = float(self.weights_E.sum())
        self.factors = tuple(weight / total for weight in self.weights_E.tolist())
        self.freeze()

    def experts(self) -> list[TaskExpert]:
        """Return the experts."""
        return [cast(TaskExpert, each) for each in self.members]

    def dense(self, x_B3HW: Tensor) -> Any:
        """Return the outputs of all experts."""
        return tuple(expert(x_B3HW) for expert in self.experts())

    def perceive(self, x_B3HW: Tensor) -> Any:
        """Return the outputs of all experts; each checks its own."""
        return self.dense(x_B3HW)

    @torch.inference_mode()
    def balance(self, images: Iterable[ImageArray]) -> dict[str, float]:
        """Set the factors so that all distances are of one size where a training begins; return the scales by name.

        The scale of an expert is the mean distance between its outputs on images and on the same images at an eighth of
        their size, enlarged again.

        Raises:
            ExpertError: an expert gives the same output on both, so that no codec can learn from it.
        """
        sums, count = [0.0] * len(self.names), 0
        for image in images:
            x = image_to_tensor(image).to(self.weights_E.device)
            size = (max(1, x.shape[-2] // _REDUCTION), max(1, x.shape[-1] // _REDUCTION))
            small = F.interpolate(x, size, mode="area")
            blurred = F.interpolate(small, x.shape[-2:], mode="bilinear", align_corners=False)
            for i, (expert, task) in enumerate(zip(self.experts(), self.tasks, strict=True)):
                sums[i] += float(task.distance(expert(x), expert(blurred)))
            count += 1
        scales = [total / max(count, 1) for total in sums]
        for name, scale in zip(self.names, scales, strict=True):
            if not scale > 0:
                raise ExpertError(
                    f"expert {name!r} answers the same on images and on the same images at an eighth of their size: "
                    "no codec can learn from it"
                )
        total = float(self.weights_E.sum())
        self.factors = tuple(
            weight / total * _REFERENCE / scale for weight, scale in zip(self.weights_E.tolist(), scales, strict=True)
        )
        return dict(zip(self.names, scales, strict=True))


def balance(group: ExpertGroup, dataset: Dataset) -> dict[str, float]:
    """Balance a group on a few evenly spaced images of a data set; see `ExpertGroup.balance`."""
    some = EvenlySpaced(dataset, _BALANCE_IMAGES)
    return group.balance(some[i].image_uint8_HW3 for i in range(len(some)))
