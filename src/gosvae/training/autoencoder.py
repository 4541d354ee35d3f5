"""Training of the plain autoencoder of Table I."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from gosvae.codecs.autoencoder import AutoencoderCodec
from gosvae.codecs.autoencoder_model import AutoencoderModelConfig, ScalarAutoencoder
from gosvae.codecs.cards import AutoencoderCard
from gosvae.codecs.checkpoint import CodecCheckpoint, half_weights
from gosvae.datasets.base import Dataset
from gosvae.experts.base import TaskExpert
from gosvae.losses.perceptual import PerceptualLoss
from gosvae.training.codec_task import CodecTask
from gosvae.training.codecs import TrainableRecipe, spaced_images
from gosvae.training.machine.task import TrainingTask


class AutoencoderRecipe(TrainableRecipe):
    """Recipe of a convolutional autoencoder with a scalar-quantised latent."""

    kind: Literal["autoencoder"] = "autoencoder"
    model: AutoencoderModelConfig = AutoencoderModelConfig()

    def network(self) -> ScalarAutoencoder:
        return ScalarAutoencoder(self.model)

    def task(self, network: nn.Module, expert: TaskExpert | None, perceptual: PerceptualLoss | None) -> TrainingTask:
        assert isinstance(network, ScalarAutoencoder)
        return CodecTask(network, expert, perceptual)

    def finished(self, name: str, network: nn.Module, used: Dataset, most_pixels: int) -> CodecCheckpoint:
        card = AutoencoderCard(name=name, recipe=self.name, model=self.model)
        blank = torch.ones((self.model.latent_channels, self.model.largest_step), dtype=torch.int64)
        uncounted = CodecCheckpoint(card, half_weights(network.state_dict()), blank, {})
        return replace(uncounted, counts=count_fine_integers(AutoencoderCodec(uncounted), used, most_pixels))


def count_fine_integers(codec: AutoencoderCodec, dataset: Dataset, most_pixels: int = 60_000_000) -> Tensor:
    """Return counts (D, F), int64 and at least 1, of each channel's fine integers -L..L in `spaced_images`."""
    levels, n_fine = codec.config.fine_levels, codec.config.largest_step
    counts_DF = np.ones((codec.config.latent_channels, n_fine), np.int64)
    for image in spaced_images(dataset, most_pixels):
        for counts_F, fine_hw in zip(counts_DF, codec.fine_integers(image), strict=True):
            counts_F += np.bincount(fine_hw.ravel() + levels, minlength=n_fine)
    return torch.from_numpy(counts_DF)
