"""Training of experts: a segmentation network learns from labelled images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.codecs.checkpoint import half_weights
from gosvae.config import Config, Name, parse, to_tree
from gosvae.datasets.base import IGNORE_INDEX, Dataset
from gosvae.errors import DatasetError
from gosvae.experts.compact import CompactConfig, balanced_class_weights
from gosvae.experts.dense import DenseConfig
from gosvae.experts.trained import ExpertCard, NetworkConfig, build_network
from gosvae.experts.unet import UNetConfig
from gosvae.files import write_together
from gosvae.training.machine.config import RunConfig, StageConfig, Stages
from gosvae.training.machine.fit import StageResult, fit
from gosvae.training.machine.loop import Outcome
from gosvae.training.machine.provenance import provenance
from gosvae.training.machine.task import TrainingTask
from gosvae.weights import model_files


class ExpertRecipe(Config):
    """Recipe of an expert.

    Attributes:
        name: name of the recipe and of the expert.
        description: one line for `gosvae list`.
        architecture: architecture of the network, `CompactConfig` or `UNetConfig`.
        widths, blocks: sizes of the network, see its configuration.
        stages: stages of the training.
    """

    kind: Literal["expert"] = "expert"
    name: Name
    description: str
    architecture: Literal["compact", "unet", "dense"] = "compact"
    widths: tuple[int, int, int, int] = (32, 64, 96, 128)
    blocks: tuple[int, int, int] = (2, 2, 3)
    stages: Stages

    def network(self, class_count: int) -> NetworkConfig:
        """Return the configuration of the network for a number of classes.

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


class ExpertTask(TrainingTask):
    """Class-weighted cross-entropy between the network's logits and the labels (term `cross_entropy`)."""

    def __init__(self, network: nn.Module, class_weights_m: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("class_weights_m", class_weights_m)

    @property
    def known_terms(self) -> frozenset[str]:
        return frozenset({"cross_entropy"})

    def forward(self, x_B3HW: Tensor, labels_BHW: Tensor | None, wanted: frozenset[str]) -> dict[str, Tensor]:
        """Return `cross_entropy`, and `accuracy` (share of labelled pixels that are right), which is only logged."""
        del wanted
        if labels_BHW is None:
            raise DatasetError("training an expert needs labels: choose a dataset that has them")
        logits_BmHW = self.network(x_B3HW)
        loss = F.cross_entropy(
            logits_BmHW.float(), labels_BHW, weight=self.get_buffer("class_weights_m"), ignore_index=IGNORE_INDEX
        )
        with torch.no_grad():
            labelled = labels_BHW != IGNORE_INDEX
            hits = (logits_BmHW.argmax(1) == labels_BHW) & labelled
            accuracy = hits.sum() / labelled.sum().clamp_min(1)
        return {"cross_entropy": loss, "accuracy": accuracy}


def label_counts(dataset: Dataset, most: int = 200) -> Tensor:
    """Return the number of pixels of each class, (m,), over up to `most` evenly spaced samples.

    Raises:
        DatasetError: the dataset has no labels.
    """
    m = len(dataset.class_names)
    counts_m = torch.zeros(m, dtype=torch.int64)
    for i in range(0, len(dataset), max(1, -(-len(dataset) // most))):
        labels = dataset[i].labels_uint8_HW
        if labels is None:
            raise DatasetError(f"dataset {dataset.name!r} has no labels: training an expert needs them")
        counts_m += torch.bincount(torch.from_numpy(labels.copy()).reshape(-1).long(), minlength=256)[:m]
    return counts_m


@dataclass(frozen=True)
class ExpertTraining:
    """The training of an expert.

    Attributes:
        recipe: architecture and stages.
        seen: labelled images that crops are drawn from.
        input_size: height and width in pixels at which the expert is used; its card names them.
    """

    recipe: ExpertRecipe
    seen: Dataset
    input_size: tuple[int, int]

    @property
    def stages(self) -> tuple[StageConfig, ...]:
        return self.recipe.stages

    @property
    def _network(self) -> NetworkConfig:
        return self.recipe.network(len(self.seen.class_names))

    def task(self) -> TrainingTask:
        return ExpertTask(build_network(self._network), balanced_class_weights(label_counts(self.seen)))

    def inputs(self) -> str:
        return f"{self.seen.name} {len(self.seen)}"

    def origins(self) -> Mapping[str, Any]:
        return {"data": {"name": self.seen.name, "images": len(self.seen)}}

    def keep(self, result: StageResult) -> None:
        card = ExpertCard(
            name=self.recipe.name,
            class_names=self.seen.class_names,
            input_height=self.input_size[0],
            input_width=self.input_size[1],
            network=self._network,
        )
        notes = provenance(self.seen, recipe=to_tree(self.recipe), **result.notes)
        for folder in result.folders:
            save_expert(folder, card, result.network, notes)


def save_expert(folder: Path, card: ExpertCard, network: nn.Module, notes: dict[str, Any]) -> None:
    """Write an expert as `load_expert` reads it: `config.json`, `weights.safetensors` (float16), `provenance.json`.

    Raises:
        WriteError: no space or no permission; what was there before is intact.
    """
    write_together(model_files(folder, to_tree(card), half_weights(network.state_dict()), notes))


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
    """Train an expert; the result of each stage is in `folder/stages/NAME`, the last one in `folder` too.

    Args:
        recipe, seen, input_size: see `ExpertTraining`.
        run, folder, max_minutes, progress: see `fit`.

    Raises:
        DatasetError: the dataset has no labels.
        GosvaeError: as `fit`.
    """
    if not seen.has_labels:
        raise DatasetError(f"dataset {seen.name!r} has no labels: training an expert needs them")
    training = ExpertTraining(recipe, seen, input_size)
    return fit(training, run, folder, max_minutes=max_minutes, progress=progress)
