"""Trains an expert on labelled images and writes it as a folder that `load_expert` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save
from torch import nn

from gosvae.checkpoint import half_weights
from gosvae.config import Config, parse, to_tree
from gosvae.datasets.base import Dataset
from gosvae.datasets.loader import TrainingBatches
from gosvae.errors import DatasetError
from gosvae.experts.compact import CompactConfig, balanced_class_weights
from gosvae.experts.dense import DenseConfig
from gosvae.experts.trained import ExpertCard, NetworkConfig, build_network
from gosvae.experts.unet import UNetConfig
from gosvae.files import json_bytes, write_together
from gosvae.seeding import seed_everything
from gosvae.training.config import RunConfig, StageConfig, Stages
from gosvae.training.expert_task import ExpertTask, label_counts
from gosvae.training.loop import Outcome, Trainer
from gosvae.training.provenance import provenance


class ExpertRecipe(Config):
    """How an expert is trained.

    Attributes:
        architecture: of the network; `widths` and `blocks` are those of its configuration.
    """

    kind: Literal["expert"] = "expert"
    name: str
    description: str
    architecture: Literal["compact", "unet", "dense"] = "compact"
    widths: tuple[int, int, int, int] = (32, 64, 96, 128)
    blocks: tuple[int, int, int] = (2, 2, 3)
    stages: Stages

    def network(self, class_count: int) -> NetworkConfig:
        """The configuration of the network for so many classes.

        Raises:
            ConfigError: a size that the architecture cannot have.
        """
        tree = {"widths": self.widths, "blocks": self.blocks, "class_count": class_count}
        match self.architecture:
            case "compact":
                return parse(CompactConfig, tree, source=f"recipe {self.name!r}")
            case "unet":
                return parse(UNetConfig, tree, source=f"recipe {self.name!r}")
            case "dense":
                return parse(DenseConfig, tree, source=f"recipe {self.name!r}")


def train_expert(
    recipe: ExpertRecipe,
    seen: Dataset,
    input_size: tuple[int, int],
    run: RunConfig,
    folder: Path,
    *,
    max_minutes: float | None = None,
    progress: bool = True,
) -> Outcome:
    """Train, then write `config.json`, `weights.safetensors` (float16) and `provenance.json` to `folder`.

    Args:
        seen: labelled images; crops are drawn from them.
        input_size: height and width that the expert is used at, for its card.

    Raises:
        DatasetError: the dataset has no labels.
        TrainingError, CheckpointError, WriteError: as `Trainer.train`.
    """
    if not seen.has_labels:
        raise DatasetError(f"dataset {seen.name!r} has no labels: training an expert needs them")
    config = recipe.network(len(seen.class_names))
    class_weights_m = balanced_class_weights(label_counts(seen))

    def batches(stage: StageConfig, rank: int, world_size: int) -> TrainingBatches:
        return TrainingBatches(
            seen,
            **to_tree(stage.batches),
            seed=run.seed,
            workers=run.workers,
            rank=rank,
            world_size=world_size,
        )

    def keep(stage: StageConfig, network: nn.Module, minutes: float) -> None:
        card = ExpertCard(
            name=recipe.name,
            class_names=seen.class_names,
            input_height=input_size[0],
            input_width=input_size[1],
            network=config,
        )
        halves = half_weights(network.state_dict())
        notes = provenance(seen, recipe=to_tree(recipe), seed=run.seed, stage=stage.name, minutes=round(minutes, 2))
        write_together(
            {
                folder / "provenance.json": json_bytes(notes),
                folder / "config.json": json_bytes(to_tree(card)),
                folder / "weights.safetensors": save(halves),
            }
        )

    with torch.random.fork_rng(devices=[]):
        seed_everything(run.seed)
        task = ExpertTask(build_network(config), class_weights_m)
        trainer = Trainer(task, recipe.stages, run, folder, inputs=f"{seen.name} {len(seen)}")
        return trainer.train(batches, keep, max_minutes=max_minutes, progress=progress)
