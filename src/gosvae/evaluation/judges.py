"""Experts of any task that judge reconstructions beside the segmentation expert of an evaluation.

Axis legend: B images, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from gosvae.experts.base import TaskExpert
from gosvae.tasks.base import AnyTask, Meter
from gosvae.tasks.registry import load_task
from gosvae.tensors import ImageArray

Results = dict[str, Any]
"""Result of each judge on one picture, by the name of the judge."""


class Judges:
    """Experts by name, with the task of each.

    Raises:
        ConfigError: an expert has an unknown task.
    """

    def __init__(self, experts: Mapping[str, TaskExpert]) -> None:
        self.experts = dict(experts)
        self.tasks: dict[str, AnyTask] = {name: load_task(expert) for name, expert in experts.items()}

    @torch.inference_mode()
    def see(self, x_B3HW: Tensor) -> Results:
        """Return what each judge sees on one picture (1, 3, H, W)."""
        return {
            name: self.tasks[name].results(expert(x_B3HW.to(device_of(expert))))[0]
            for name, expert in self.experts.items()
        }

    def draw(self, image_uint8_HW3: ImageArray, results: Results) -> dict[str, ImageArray]:
        """Return a picture of each judge's result."""
        return {name: self.tasks[name].draw(image_uint8_HW3, result) for name, result in results.items()}


class Verdicts:
    """Agreement of all judges' results on the reconstructions of one codec with those on the originals."""

    def __init__(self, judges: Judges) -> None:
        self._meters: dict[str, Meter[Any]] = {name: task.meter() for name, task in judges.tasks.items()}

    def update(self, original: Results, seen: Results) -> None:
        """Count one image."""
        for name, meter in self._meters.items():
            meter.update(original[name], seen[name])

    def values(self) -> dict[str, float | None]:
        """Return the measures by the names of the judge and of the measure, such as `boxes AP50`."""
        return {
            f"{name} {column}": value
            for name, meter in self._meters.items()
            for column, value in meter.values().items()
        }


def device_of(expert: TaskExpert) -> torch.device:
    """Return the device that an expert is on."""
    return next(chain(expert.parameters(), expert.buffers()), torch.empty(0)).device
