"""Trains a codec against an expert and writes a checkpoint folder at the end of every stage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from gosvae.checkpoint import (
    CodecCard,
    CodecCheckpoint,
    half_weights,
    load_codec_checkpoint,
    load_weights,
    save_codec,
)
from gosvae.codecs.learned import LearnedCodec
from gosvae.codecs.model import ModelConfig, VqAutoencoder
from gosvae.config import Config, to_tree
from gosvae.datasets.base import Dataset
from gosvae.datasets.loader import TrainingBatches
from gosvae.entropy.static import StaticHistogram
from gosvae.errors import ConfigError
from gosvae.experts.base import Expert
from gosvae.losses.perceptual import PerceptualLoss
from gosvae.quantizers import VectorQuantizer, VqConfig
from gosvae.quantizers.kmeans import kmeans
from gosvae.quantizers.vq import to_vectors
from gosvae.seeding import seed_everything
from gosvae.tensors import ImageArray, image_to_tensor, pad_to_multiple
from gosvae.training.codec_task import CodecTask
from gosvae.training.config import RunConfig, StageConfig, Stages
from gosvae.training.judges import FEATURES, IMITATION
from gosvae.training.loop import Outcome, Trainer
from gosvae.training.provenance import provenance
from gosvae.training.task import TrainingTask

_PIXELS_TO_LOOK_AT = 2_000_000
"""Of images that a recipe sees when it takes over the weights of another codec."""
_KMEANS_ITERATIONS = 20


class TrainableRecipe(Config, ABC):
    """How a codec is trained: a model and the stages of its training. All that depends on its kind is here.

    Attributes:
        name: of the recipe and of the codec that it makes.
        description: one line for `gosvae list`.
        reference: the row of the paper that it stands for, or None.
    """

    kind: str
    name: str
    description: str
    reference: str | None = None
    model: Config
    stages: Stages

    @property
    def wanted_terms(self) -> frozenset[str]:
        """Loss terms of all stages."""
        return frozenset(name for stage in self.stages for name in stage.weights)

    @property
    def needs_expert(self) -> bool:
        """Whether training takes an expert."""
        return bool(self.wanted_terms & {*IMITATION, FEATURES})

    def for_expert(self, expert: Expert | None) -> TrainableRecipe:
        """The recipe with what its model takes from the expert, such as the number of classes: nothing, for most."""
        del expert
        return self

    def can_start_from(self, model: Config) -> bool:
        """Whether `initialise` can take the weights of a codec of this model."""
        return model == self.model

    def initialise(self, network: nn.Module, source: CodecCheckpoint, images: Iterator[ImageArray]) -> None:
        """Give the network the weights of a finished codec of a model that `can_start_from` allows.

        `images` are some of those that it will be trained with.

        Raises:
            CheckpointError: they do not fit.
        """
        del images
        load_weights(network, source)

    @abstractmethod
    def network(self) -> nn.Module:
        """The network that is trained, newly initialised from PyTorch's global generator."""

    @abstractmethod
    def task(self, network: nn.Module, expert: Expert | None, perceptual: PerceptualLoss | None) -> TrainingTask:
        """The loss terms of what `network` returned."""

    @abstractmethod
    def finished(self, name: str, network: nn.Module, used: Dataset, most_pixels: int) -> CodecCheckpoint:
        """The codec of a trained network, with the symbol counts of `spaced_images` and no provenance yet."""


class CodecRecipe(TrainableRecipe):
    """A VQ autoencoder."""

    kind: Literal["codec"] = "codec"
    model: ModelConfig

    def network(self) -> VqAutoencoder:
        return VqAutoencoder(self.model)

    def can_start_from(self, model: Config) -> bool:
        """The same model, or one of another `codebook_size`."""
        if not (isinstance(model, ModelConfig) and isinstance(self.model.quantizer, VqConfig)):
            return model == self.model
        size = {"codebook_size": self.model.quantizer.codebook_size}
        return self.model == model.model_copy(update={"quantizer": model.quantizer.model_copy(update=size)})

    def initialise(self, network: nn.Module, source: CodecCheckpoint, images: Iterator[ImageArray]) -> None:
        """As they are; a codebook of another size begins as the k-means of what the encoder makes of the images."""
        assert isinstance(source.card, CodecCard)
        if source.card.model == self.model:
            load_weights(network, source)
            return
        donor = VqAutoencoder(source.card.model)
        load_weights(donor, source)
        assert isinstance(network, VqAutoencoder)
        network.encoder.load_state_dict(donor.encoder.state_dict())
        network.decoder.load_state_dict(donor.decoder.state_dict())
        quantizer = network.quantizer
        assert isinstance(quantizer, VectorQuantizer)
        z_ND = torch.cat([to_vectors(_latent(network, image)) for image in images])
        centres_KD, _ = kmeans(z_ND, quantizer.codebook_size, _KMEANS_ITERATIONS, quantizer.seed, "k-means")
        with torch.no_grad():
            quantizer.codebook_KD.copy_(centres_KD)

    def task(self, network: nn.Module, expert: Expert | None, perceptual: PerceptualLoss | None) -> TrainingTask:
        assert isinstance(network, VqAutoencoder)
        return CodecTask(network, expert, perceptual)

    def finished(self, name: str, network: nn.Module, used: Dataset, most_pixels: int) -> CodecCheckpoint:
        assert isinstance(network, VqAutoencoder)
        card = CodecCard(name=name, recipe=self.name, model=self.model)
        blank = torch.ones(network.quantizer.codebook_size, dtype=torch.int64)
        uncounted = CodecCheckpoint(card, half_weights(network.state_dict()), blank, {})
        return replace(uncounted, counts=count_indices(LearnedCodec(uncounted), used, most_pixels))


@torch.no_grad()
def _latent(network: VqAutoencoder, image: ImageArray) -> torch.Tensor:
    z_1Dhw: torch.Tensor = network.encoder(pad_to_multiple(image_to_tensor(image), network.stride))
    return z_1Dhw


def spaced_images(dataset: Dataset, most_pixels: int = 60_000_000) -> Iterator[ImageArray]:
    """Images evenly spaced over the dataset, as many of the size of the first as `most_pixels` hold."""
    pixels = dataset[0].image_uint8_HW3[..., 0].size
    every = -(-len(dataset) * pixels // most_pixels)
    return (dataset[i].image_uint8_HW3 for i in range(0, len(dataset), every))


def count_indices(codec: LearnedCodec, dataset: Dataset, most_pixels: int = 60_000_000) -> torch.Tensor:
    """Index counts (K,), int64 and at least 1, of `spaced_images`: the static histogram."""
    indices = (codec.indices(image) for image in spaced_images(dataset, most_pixels))
    histogram = StaticHistogram.fit(indices, codec.model.quantizer.codebook_size)
    return torch.from_numpy(np.asarray(histogram.counts_K))


def _initialise(network: nn.Module, recipe: TrainableRecipe, folder: Path, used: Dataset) -> None:
    """Start from the weights of a finished codec of the same shape."""
    source = load_codec_checkpoint(folder)
    if source.card.kind != recipe.kind or not recipe.can_start_from(source.card.model):
        raise ConfigError(
            f"cannot start from {folder}: its model is not the recipe's; train with the same model settings",
            argument="init",
        )
    recipe.initialise(network, source, spaced_images(used, _PIXELS_TO_LOOK_AT))


def train_codec(
    recipe: TrainableRecipe,
    seen: Dataset,
    used: Dataset,
    expert: Expert | None,
    perceptual: PerceptualLoss | None,
    run: RunConfig,
    folder: Path,
    *,
    init: Path | None = None,
    max_minutes: float | None = None,
    progress: bool = True,
) -> Outcome:
    """Train the recipe's stages; the codec of every stage is in `folder/stages/NAME`, the last one in `folder` too.

    Args:
        seen: what training draws its crops from, such as whole frames.
        used: the same images at the size at which the codec is used; frequency tables are counted there.
        expert, perceptual: needed by the terms `jsd`, `kld`, `ce` and by `lpips`.
        init: checkpoint folder of a codec with the same model to start from.

    Raises:
        ConfigError: a term without the network that it needs, or an `init` of another model.
        TrainingError, CheckpointError, WriteError, DatasetError: as `Trainer.train`.
    """
    if recipe.needs_expert and expert is None:
        raise ConfigError(f"recipe {recipe.name!r} needs an expert: give one", argument="expert")
    if "lpips" in recipe.wanted_terms and perceptual is None:
        raise ConfigError(
            f"recipe {recipe.name!r} has an LPIPS term: give a perceptual distance and the folder of its weights",
            argument="weights",
        )
    recipe = recipe.for_expert(expert)

    def batches(stage: StageConfig, rank: int, world_size: int) -> TrainingBatches:
        options = to_tree(stage.batches)
        return TrainingBatches(seen, **options, seed=run.seed, workers=run.workers, rank=rank, world_size=world_size)

    def keep(stage: StageConfig, network: nn.Module, minutes: float) -> None:
        last = stage is recipe.stages[-1]
        name = recipe.name if last else f"{recipe.name}-{stage.name}"
        finished = recipe.finished(name, network, used, run.histogram_pixels)
        notes = provenance(used, **_story(recipe, run, stage, minutes, expert, perceptual, init))
        for target in [folder / "stages" / stage.name, *([folder] if last else [])]:
            save_codec(target, replace(finished, provenance=notes))

    with torch.random.fork_rng(devices=[]):
        seed_everything(run.seed)
        network = recipe.network()
        if init is not None:
            _initialise(network, recipe, init, used)
        task = recipe.task(network, expert, perceptual)
        judges = [expert and expert.fingerprint(), perceptual and perceptual.name]
        start = None if init is None else load_codec_checkpoint(init).fingerprint().hex()
        inputs = [seen.name, len(seen), *judges, start, to_tree(recipe.model)]
        trainer = Trainer(task, recipe.stages, run, folder, inputs=str(inputs))
        return trainer.train(batches, keep, max_minutes=max_minutes, progress=progress)


def _story(
    recipe: TrainableRecipe,
    run: RunConfig,
    stage: StageConfig,
    minutes: float,
    expert: Expert | None,
    perceptual: PerceptualLoss | None,
    init: Path | None,
) -> dict[str, Any]:
    """What was trained, with what and for how long."""
    stages: Sequence[StageConfig] = recipe.stages[: recipe.stages.index(stage) + 1]
    return {
        "recipe": to_tree(recipe),
        "stages": {s.name: s.steps for s in stages},
        "run": to_tree(run),
        "minutes_of_stage": round(minutes, 2),
        "expert": None if expert is None else {"name": expert.info.name, "fingerprint": expert.fingerprint()},
        "perceptual": None if perceptual is None else perceptual.name,
        "init": None if init is None else init.name,
    }
