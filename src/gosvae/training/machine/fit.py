"""Training of any `Trainable`: draw batches, run the stages, and keep the result of each stage.

Each module of `gosvae.training` beside this package describes one thing that can be trained, as a `Trainable`. All else
is the same for all of them and is here and in `gosvae.training.machine.loop`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from gosvae.config import to_tree
from gosvae.datasets.base import Dataset
from gosvae.datasets.loader import TrainingBatches
from gosvae.seeding import seed_everything
from gosvae.training.machine.config import RunConfig, StageConfig
from gosvae.training.machine.loop import Outcome, Trainer
from gosvae.training.machine.task import TrainingTask


@dataclass(frozen=True)
class StageResult:
    """Result of a stage: its network, and where to write it.

    Attributes:
        network: moving average of the weights, or the last weights where the stage keeps no average.
        stage: stage that has ended.
        run: options of the run.
        folders: folders to write the result to: `stages/NAME`, and after the last stage also the folder of the run.
        notes: part of the provenance that is the same for everything that is trained.
    """

    network: nn.Module
    stage: StageConfig
    run: RunConfig
    folders: tuple[Path, ...]
    notes: dict[str, Any]


class Trainable(Protocol):
    """Contract of a thing that can be trained: all that `fit` needs to know of it."""

    @property
    def stages(self) -> tuple[StageConfig, ...]:
        """Stages of the training, in order."""

    @property
    def seen(self) -> Dataset:
        """Data set that batches are drawn from."""

    def task(self) -> TrainingTask:
        """Return the task with a new network, whose weights come from PyTorch's global generator, seeded by `fit`."""

    def inputs(self) -> str:
        """Return a text that names the data, the frozen networks and the start; a run continues with the same only."""

    def keep(self, result: StageResult) -> None:
        """Write the result of a stage to its folders. Called on the first device only."""


def fit(
    what: Trainable, run: RunConfig, folder: Path, *, max_minutes: float | None = None, progress: bool = True
) -> Outcome:
    """Train; the same call continues a run that was stopped, and returns at once where the run is finished.

    Args:
        what: thing to train.
        run: seed, devices, precision and logs.
        folder: folder of the run; it holds logs, states to resume from, and the results.
        max_minutes: time after which the run stops cleanly and can be continued.
        progress: whether to show a progress bar.

    Raises:
        ConfigError: a stage weighs a term that the task does not have, or this machine lacks the devices.
        CheckpointError: the folder holds a run with other settings, or only damaged states.
        TrainingError: a loss term or a gradient is not finite; the last good state is kept.
        DatasetError: an image cannot be read, or is smaller than the crop.
        WriteError: no space or no permission; what was written before is intact.
    """

    def batches(stage: StageConfig, rank: int, world_size: int) -> TrainingBatches:
        options = to_tree(stage.batches)
        return TrainingBatches(
            what.seen, **options, seed=run.seed, workers=run.workers, rank=rank, world_size=world_size
        )

    def keep(stage: StageConfig, network: nn.Module, minutes: float) -> None:
        done = what.stages[: what.stages.index(stage) + 1]
        last = len(done) == len(what.stages)
        notes = {
            "stages": {each.name: each.steps for each in done},
            "run": to_tree(run),
            "minutes_of_stage": round(minutes, 2),
        }
        folders = (folder / "stages" / stage.name, *([folder] if last else []))
        what.keep(StageResult(network, stage, run, folders, notes))

    with torch.random.fork_rng(devices=[]):
        seed_everything(run.seed)
        trainer = Trainer(what.task(), what.stages, run, folder, inputs=what.inputs())
        return trainer.train(batches, keep, max_minutes=max_minutes, progress=progress)
