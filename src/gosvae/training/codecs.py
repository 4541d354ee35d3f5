"""Training of codecs: the base of the recipes of all kinds, and the training itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from gosvae.codecs.checkpoint import CodecCheckpoint, load_codec_checkpoint, load_weights, save_codec
from gosvae.config import Config, Name, to_tree
from gosvae.datasets.base import Dataset
from gosvae.errors import ConfigError
from gosvae.experts.base import TaskExpert
from gosvae.losses.perceptual import PerceptualLoss
from gosvae.tensors import ImageArray
from gosvae.training.imitation import FEATURES, IMITATION
from gosvae.training.machine.config import RunConfig, StageConfig, Stages
from gosvae.training.machine.fit import StageResult, fit
from gosvae.training.machine.loop import Outcome
from gosvae.training.machine.provenance import earlier_runs, provenance
from gosvae.training.machine.task import TrainingTask

_SNAPSHOT_PIXELS = 2_000_000
"""Number of pixels on which the table of an unfinished codec is counted."""
_START_PIXELS = 2_000_000
"""Number of pixels of the images that a recipe sees when it starts from the weights of another codec."""


class TrainableRecipe(Config, ABC):
    """Recipe of a codec: a model and the stages of its training. A subclass holds all that is special to a kind.

    Attributes:
        kind: kind of codec.
        name: name of the recipe and of the codec.
        description: one line for `gosvae list`.
        reference: row of the paper's tables that the recipe stands for, or None.
        model: configuration of the network.
        stages: stages of the training.
    """

    kind: str
    name: Name
    description: str
    reference: str | None = None
    model: Config
    stages: Stages

    @property
    def wanted_terms(self) -> frozenset[str]:
        """Names of the loss terms of all stages."""
        return frozenset(name for stage in self.stages for name in stage.weights)

    @property
    def needs_expert(self) -> bool:
        """Whether the training needs an expert."""
        return bool(self.wanted_terms & {*IMITATION, FEATURES})

    @property
    def needs_objects(self) -> bool:
        """Whether the training needs images with object maps as labels, see `ObjectsAsLabels`."""
        return False

    def for_data(self, seen: Dataset) -> TrainableRecipe:
        """Return the recipe with values that its model takes from the training images."""
        del seen
        return self

    def for_expert(self, expert: TaskExpert | None) -> TrainableRecipe:
        """Return the recipe with values that its model takes from the expert, such as the number of classes."""
        del expert
        return self

    def can_start_from(self, model: Config) -> bool:
        """Return whether `initialise` can use the weights of a codec of this model."""
        return model == self.model

    def initialise(self, network: nn.Module, source: CodecCheckpoint, images: Iterator[ImageArray]) -> None:
        """Give the network the weights of a finished codec whose model `can_start_from` allows.

        Args:
            network: network that `network` returned.
            source: finished codec.
            images: some of the images that the network will be trained with.

        Raises:
            CheckpointError: the weights do not fit.
        """
        del images
        load_weights(network, source)

    @abstractmethod
    def network(self) -> nn.Module:
        """Return the network to train, newly initialised from PyTorch's global generator."""

    @abstractmethod
    def task(self, network: nn.Module, expert: TaskExpert | None, perceptual: PerceptualLoss | None) -> TrainingTask:
        """Return the task of a network that `network` returned."""

    @abstractmethod
    def finished(self, name: str, network: nn.Module, used: Dataset, most_pixels: int) -> CodecCheckpoint:
        """Return the codec of a trained network, with the symbol counts of `spaced_images` and without provenance."""


def spaced_images(dataset: Dataset, most_pixels: int = 60_000_000) -> Iterator[ImageArray]:
    """Yield evenly spaced images of the dataset, of about `most_pixels` pixels together at most."""
    pixels = dataset[0].image_uint8_HW3[..., 0].size
    every = -(-len(dataset) * pixels // most_pixels)
    return (dataset[i].image_uint8_HW3 for i in range(0, len(dataset), every))


@dataclass(frozen=True)
class CodecTraining:
    """The training of a codec.

    Attributes:
        recipe: model and stages, already fitted to the expert (see `TrainableRecipe.for_expert`).
        seen: data set that training draws its crops from, such as whole frames.
        used: the same images at the size at which the codec is used; frequency tables are counted on these.
        expert: frozen expert, or None where no term needs one.
        perceptual: perceptual distance of the term `lpips`, or None.
        init: checkpoint folder of a codec to start from, or None.
        earlier_runs: runs that made that codec; see the function of this name.
    """

    recipe: TrainableRecipe
    seen: Dataset
    used: Dataset
    expert: TaskExpert | None
    perceptual: PerceptualLoss | None
    init: Path | None
    earlier_runs: Sequence[Mapping[str, Any]] = ()

    @property
    def stages(self) -> tuple[StageConfig, ...]:
        return self.recipe.stages

    def task(self) -> TrainingTask:
        network = self.recipe.network()
        if self.init is not None:
            source = load_codec_checkpoint(self.init)
            if source.card.kind != self.recipe.kind or not self.recipe.can_start_from(source.card.model):
                raise ConfigError(
                    f"cannot start from {self.init}: its model is not the recipe's; train with the same model settings",
                    argument="init",
                )
            self.recipe.initialise(network, source, spaced_images(self.used, _START_PIXELS))
        return self.recipe.task(network, self.expert, self.perceptual)

    def inputs(self) -> str:
        judges = [self.expert and self.expert.fingerprint(), self.perceptual and self.perceptual.name]
        start = None if self.init is None else load_codec_checkpoint(self.init).fingerprint().hex()
        return str([self.seen.name, len(self.seen), *judges, start, to_tree(self.recipe.model)])

    def origins(self) -> Mapping[str, Any]:
        start = None if self.init is None else load_codec_checkpoint(self.init)
        return {
            "data": {"name": self.seen.name, "images": len(self.seen)},
            "expert": self.expert and f"{self.expert.info.name} {self.expert.fingerprint()[:16]}",
            "perceptual distance": self.perceptual and self.perceptual.name,
            "codec to start from": start and f"{start.card.name} {start.fingerprint().hex()[:16]}",
            "model": to_tree(self.recipe.model),
        }

    def keep(self, result: StageResult) -> None:
        last = result.stage is self.recipe.stages[-1]
        name = self.recipe.name if last else f"{self.recipe.name}-{result.stage.name}"
        self._write(result, name, result.run.histogram_pixels)

    def snapshot(self, result: StageResult) -> None:
        """Write the codec of an unfinished run; its name ends in `-unfinished`, its table is counted on few images."""
        pixels = min(result.run.histogram_pixels, _SNAPSHOT_PIXELS)
        self._write(result, f"{self.recipe.name}-unfinished", pixels)

    def _write(self, result: StageResult, name: str, most_pixels: int) -> None:
        """Write a codec to the folders of a result."""
        recipe, expert = self.recipe, self.expert
        finished = recipe.finished(name, result.network, self.used, most_pixels)
        notes = provenance(
            self.used,
            recipe=to_tree(recipe),
            **result.notes,
            expert=None if expert is None else {"name": expert.info.name, "fingerprint": expert.fingerprint()},
            perceptual=None if self.perceptual is None else self.perceptual.name,
            init=None if self.init is None else self.init.name,
            earlier_runs=self.earlier_runs,
        )
        for folder in result.folders:
            save_codec(folder, replace(finished, provenance=notes))


def train_codec(
    recipe: TrainableRecipe,
    seen: Dataset,
    used: Dataset,
    expert: TaskExpert | None,
    perceptual: PerceptualLoss | None,
    run: RunConfig,
    folder: Path,
    *,
    init: Path | None = None,
    max_minutes: float | None = None,
    progress: bool = True,
    tell: Callable[[str], None] | None = None,
) -> Outcome:
    """Train the recipe's stages; the codec of each stage is in `folder/stages/NAME`, the last one in `folder` too.

    Args:
        recipe: model and stages.
        seen, used, expert, perceptual, init: see `CodecTraining`. The terms `jsd`, `kld`, `ce` and `features` need an
            expert, and `lpips` needs a perceptual distance.
        run, folder, max_minutes, progress, tell: see `fit`.

    Raises:
        ConfigError: a term lacks the network that it needs, or the model of `init` does not fit.
        GosvaeError: as `fit`.
    """
    if recipe.needs_expert and expert is None:
        raise ConfigError(f"recipe {recipe.name!r} needs an expert: give one", argument="expert")
    if "lpips" in recipe.wanted_terms and perceptual is None:
        raise ConfigError(
            f"recipe {recipe.name!r} has an LPIPS term: give a perceptual distance and the folder of its weights",
            argument="weights",
        )
    runs = [] if init is None else earlier_runs(load_codec_checkpoint(init).provenance)
    training = CodecTraining(recipe.for_data(seen).for_expert(expert), seen, used, expert, perceptual, init, runs)
    return fit(training, run, folder, max_minutes=max_minutes, progress=progress, tell=tell)
