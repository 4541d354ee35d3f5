"""Experts of any task that look at pictures beside the segmentation expert of an evaluation or a receiver.

Axis legend: B images, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from gosvae.experts.base import TaskExpert
from gosvae.tasks.base import AnyTask, Arrays
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

    def see(self, x_B3HW: Tensor) -> Results:
        """Return what each judge sees on one picture (1, 3, H, W)."""
        return self.see_all(x_B3HW)[0]

    @torch.inference_mode()
    def see_all(self, x_B3HW: Tensor) -> list[Results]:
        """Return what each judge sees on each of several pictures."""
        seen: list[Results] = [{} for _ in range(len(x_B3HW))]
        for name, expert in self.experts.items():
            for results, result in zip(
                seen, self.tasks[name].results(expert(x_B3HW.to(device_of(expert)))), strict=True
            ):
                results[name] = result
        return seen

    def arrays(self, results: Results) -> dict[str, Arrays]:
        """Return each judge's result as arrays, see `Task.arrays`."""
        return {name: self.tasks[name].arrays(result) for name, result in results.items()}

    def draw(self, image_uint8_HW3: ImageArray, results: Results) -> dict[str, ImageArray]:
        """Return a picture of each judge's result."""
        return {name: self.tasks[name].draw(image_uint8_HW3, result) for name, result in results.items()}


def device_of(expert: TaskExpert) -> torch.device:
    """Return the device that an expert is on."""
    return next(chain(expert.parameters(), expert.buffers()), torch.empty(0)).device
