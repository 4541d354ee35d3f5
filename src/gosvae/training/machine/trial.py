"""Trial of all stages before the first is trained, so that the last stage does not fail after hours."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from gosvae.datasets.loader import Batch
from gosvae.errors import DatasetError, GosvaeError, ImageError, TrainingError
from gosvae.training.machine.config import RunConfig, StageConfig
from gosvae.training.machine.stage import StageInProgress
from gosvae.training.machine.task import TrainingTask

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Batches(Protocol):
    """Batches of a stage that can start at any step, such as `TrainingBatches`."""

    def batch(self, step: int) -> Batch:
        """Return the batch of one step."""

    def stream(self, start_step: int) -> Iterator[Batch]:
        """Yield the batches of the steps `start_step`, `start_step + 1`, ... without end."""


BatchesOf = Callable[[StageConfig, int, int], Batches]
"""Function from (stage, rank, world size) to the batches of the stage."""

_LONG_SECONDS = 2.0
"""A first step of this length is not followed by a second, which only measures the time better."""


def try_stages(
    fabric: Fabric, task: TrainingTask, stages: Sequence[StageConfig], run: RunConfig, batches_of: BatchesOf
) -> dict[str, float]:
    """Take a step or two of every stage and undo them; return the seconds of a step by the name of its stage.

    The network, its gradients and the random numbers are afterwards as they were before. A term that is not finite is
    no fault here: later stages start from a trained network.

    Raises:
        GosvaeError: a stage cannot run; the message names it.
    """
    kept = {name: value.detach().clone() for name, value in task.network.state_dict().items()}
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    seconds: dict[str, float] = {}
    try:
        for stage in stages:
            with torch.random.fork_rng(devices=devices):
                seconds[stage.name] = _try(fabric, task, stage, run, batches_of)
            task.network.load_state_dict(kept)
    finally:
        task.network.load_state_dict(kept)
        task.network.zero_grad(set_to_none=True)
    return seconds


def _try(fabric: Fabric, task: TrainingTask, stage: StageConfig, run: RunConfig, batches_of: BatchesOf) -> float:
    """Return the seconds of a step of one stage."""
    joins = 0 if stage.adversary is None else stage.adversary.start_step
    took = 0.0
    try:
        batches = batches_of(stage, fabric.global_rank, fabric.world_size)
        current = StageInProgress(fabric, task, stage, run, Path(), None)
        for number in range(2):
            step = min(joins + number, stage.steps - 1)
            batch = batches.batch(step)
            started = time.perf_counter()
            float(current.step(batch, step)["total"])  # waits for the device
            took = time.perf_counter() - started
            if took > _LONG_SECONDS:
                break
    except TrainingError:
        return took
    except (DatasetError, ImageError):  # of the data, whatever the stage
        raise
    except GosvaeError as error:
        error.args = (f"stage {stage.name!r}, tried before the training begins: {error}", *error.args[1:])
        raise
    return took


def duration(seconds: float) -> str:
    """Return a duration in words, such as `1 h 20 min`."""
    minutes = round(seconds / 60.0)
    if minutes < 1:
        return f"{max(1, round(seconds))} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
