"""Training of VQ codecs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import nn

from gosvae.codecs.cards import VqCard
from gosvae.codecs.checkpoint import CodecCheckpoint, half_weights, load_weights
from gosvae.codecs.vq import VqCodec
from gosvae.codecs.vq_model import VqAutoencoder, VqModelConfig
from gosvae.config import Config
from gosvae.datasets.base import Dataset
from gosvae.entropy.static import StaticHistogram
from gosvae.experts.base import TaskExpert
from gosvae.losses.perceptual import PerceptualLoss
from gosvae.quantizers import VectorQuantizer, VqConfig
from gosvae.quantizers.kmeans import kmeans
from gosvae.quantizers.vq import to_vectors
from gosvae.tensors import ImageArray, image_to_tensor, pad_to_multiple
from gosvae.training.codec_task import CodecTask
from gosvae.training.codecs import TrainableRecipe, spaced_images
from gosvae.training.machine.task import TrainingTask

_KMEANS_ITERATIONS = 20
"""Number of iterations of k-means when a codebook of another size is started."""


class VqRecipe(TrainableRecipe):
    """Recipe of a VQ codec."""

    kind: Literal["codec"] = "codec"
    model: VqModelConfig

    def network(self) -> VqAutoencoder:
        return VqAutoencoder(self.model)

    def can_start_from(self, model: Config) -> bool:
        """Return whether the model is the same, but for the `codebook_size`."""
        if not (isinstance(model, VqModelConfig) and isinstance(self.model.quantizer, VqConfig)):
            return model == self.model
        size = {"codebook_size": self.model.quantizer.codebook_size}
        return self.model == model.model_copy(update={"quantizer": model.quantizer.model_copy(update=size)})

    def initialise(self, network: nn.Module, source: CodecCheckpoint, images: Iterator[ImageArray]) -> None:
        """Copy the weights; a codebook of another size starts from k-means of the latents of the images."""
        assert isinstance(source.card, VqCard)
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

    def task(self, network: nn.Module, expert: TaskExpert | None, perceptual: PerceptualLoss | None) -> TrainingTask:
        assert isinstance(network, VqAutoencoder)
        return CodecTask(network, expert, perceptual)

    def finished(self, name: str, network: nn.Module, used: Dataset, most_pixels: int) -> CodecCheckpoint:
        assert isinstance(network, VqAutoencoder)
        card = VqCard(name=name, recipe=self.name, model=self.model)
        blank = torch.ones(network.quantizer.codebook_size, dtype=torch.int64)
        uncounted = CodecCheckpoint(card, half_weights(network.state_dict()), blank, {})
        return replace(uncounted, counts=count_indices(VqCodec(uncounted), used, most_pixels))


@torch.no_grad()
def _latent(network: VqAutoencoder, image: ImageArray) -> torch.Tensor:
    z_1Dhw: torch.Tensor = network.encoder(pad_to_multiple(image_to_tensor(image), network.stride))
    return z_1Dhw


def count_indices(codec: VqCodec, dataset: Dataset, most_pixels: int = 60_000_000) -> torch.Tensor:
    """Return counts (K,), int64 and at least 1, of the indices of `spaced_images`, for the static histogram."""
    indices = (codec.indices(image) for image in spaced_images(dataset, most_pixels))
    histogram = StaticHistogram.fit(indices, codec.model.quantizer.codebook_size)
    return torch.from_numpy(np.asarray(histogram.counts_K))
