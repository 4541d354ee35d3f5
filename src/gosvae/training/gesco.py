"""Training of GESCO: a diffusion model learns to generate pictures from the expert's class maps.

Axis legend: B images, 3 RGB channels, L label channels, H and W pixels.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gosvae.codecs.cards import GescoCard, ObjectMapConfig
from gosvae.codecs.checkpoint import CodecCheckpoint, half_weights
from gosvae.codecs.gesco import map_of_symbols, pad_classes
from gosvae.datasets.base import Dataset
from gosvae.datasets.objects import ObjectsAsLabels
from gosvae.diffusion import Diffusion, DiffusionConfig, degraded_map
from gosvae.errors import ConfigError
from gosvae.experts.base import Expert, ExpertReference, TaskExpert
from gosvae.losses.perceptual import PerceptualLoss
from gosvae.nn.semantic_unet import SemanticUNet
from gosvae.seeding import torch_generator
from gosvae.tensors import pad_to_multiple
from gosvae.training.codecs import TrainableRecipe
from gosvae.training.machine.task import TrainingTask


class GescoTask(TrainingTask):
    """Denoising of pictures, conditioned on the expert's class map; the map of some pictures is noisy or left out.

    Terms: `denoising` (mean square of the prediction's error; pictures lie in [-1, 1]) and, where the variance is
    learned, `variance` (bits for each value).
    """

    network: SemanticUNet

    def __init__(
        self,
        network: SemanticUNet,
        expert: Expert | None,
        diffusion: Diffusion,
        map_noise: tuple[float, ...],
        drop: float,
    ) -> None:
        super().__init__()
        self.network = network
        self.expert = expert
        self._diffusion, self._map_noise, self._drop = diffusion, map_noise, drop
        self._generator = torch_generator("diffusion")

    @property
    def known_terms(self) -> frozenset[str]:
        return frozenset({"denoising", "variance"} if self.network.config.learned_variance else {"denoising"})

    def begin_step(self, *path: int | str) -> None:
        self._generator = torch_generator("diffusion", *path)

    def forward(self, x_B3HW: Tensor, labels_BHW: Tensor | None, wanted: frozenset[str]) -> dict[str, Tensor]:
        """Return the terms at random diffusion steps, one for each picture.

        Labels are the symbols of object maps; with an expert they are not used.

        Raises:
            ConfigError: there is neither an expert nor a label map.
        """
        del wanted
        device, config, generator = x_B3HW.device, self._diffusion.config, self._generator
        symbols_BHW = pad_classes(self._symbols(x_B3HW, labels_BHW), config.stride)
        x = pad_to_multiple(x_B3HW, config.stride).float() * 2.0 - 1.0
        map_BLHW = map_of_symbols(symbols_BHW, config)
        map_BLHW = degraded_map(map_BLHW, self._map_noise, self._drop, generator)
        timesteps_B = torch.randint(config.timesteps, (len(x),), generator=generator).to(device)
        noise = torch.randn(x.shape, generator=generator).to(device)
        output = self.network(
            self._diffusion.noised(x, noise, timesteps_B), timesteps_B, self.network.condition(map_BLHW)
        )
        return self._diffusion.terms(output, x, noise, timesteps_B)

    def _symbols(self, x_B3HW: Tensor, labels_BHW: Tensor | None) -> Tensor:
        if self.expert is not None:
            # The class is an argmax, which rounding to bfloat16 could change.
            with torch.autocast(x_B3HW.device.type, enabled=False):
                return self.expert.class_map(x_B3HW.float()).clone()
        if labels_BHW is None:
            raise ConfigError("a model that draws labels is trained on labelled images, and these have no labels")
        return labels_BHW


class GescoRecipe(TrainableRecipe):
    """Recipe of a semantic diffusion model. The class count of `model` is set to the expert's or that of the labels.

    Attributes:
        map: map that the model draws: that of an `expert`, or object maps from the `labels` of the images, as GESCO was
            published; they have all classes of the files, and the edges between instances where the files have them.
        map_noise: standard deviations of the noise on the one-hot map, one of which is drawn for each picture. The
            default is GESCO's: channels from 5 dB up, and no noise in a third of the draws.
        map_dropout: share of the pictures whose map is left out, for classifier-free guidance.
        snr_limit: limit of the weight of steps with little noise, see `Diffusion`; None is DDPM's simple loss.
        expert: reference to the expert that made the maps; the training fills it in.
        objects: classes of the object maps; the training fills it in.
    """

    kind: Literal["gesco"] = "gesco"
    model: DiffusionConfig
    map: Literal["expert", "labels"] = "expert"
    map_noise: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        default=(0.6, 0.36, 0.22, 0.13, 0.08, 0.05, 0.0, 0.0, 0.0), min_length=1
    )
    map_dropout: float = Field(default=0.2, ge=0, lt=1)
    snr_limit: float | None = Field(default=None, gt=0)
    expert: ExpertReference | None = None
    objects: ObjectMapConfig | None = None

    @property
    def needs_expert(self) -> bool:
        return self.map == "expert"

    @property
    def needs_objects(self) -> bool:
        return self.map == "labels"

    def for_data(self, seen: Dataset) -> GescoRecipe:
        """Return the recipe with the classes of the data's object maps, if the model draws them."""
        if not self.needs_objects:
            return self
        if not isinstance(seen, ObjectsAsLabels):
            raise ConfigError(f"recipe {self.name!r} draws maps of objects: give images with these maps as labels")
        objects = ObjectMapConfig(class_names=seen.class_names, instances=seen.instances and self.model.edges)
        model = self.model.model_copy(update={"class_count": len(seen.class_names)})
        return self.model_copy(update={"model": model, "objects": objects})

    def for_expert(self, expert: TaskExpert | None) -> GescoRecipe:
        """Return the recipe with the expert's class count and reference."""
        if not self.needs_expert:
            return self
        if expert is None:
            raise ConfigError(f"recipe {self.name!r} sends an expert's class map: give an expert", argument="expert")
        if not isinstance(expert, Expert):
            raise ConfigError(
                f"recipe {self.name!r} sends an expert's class map: give one expert of segmentation", argument="expert"
            )
        model = self.model.model_copy(update={"class_count": len(expert.info.class_names)})
        return self.model_copy(update={"model": model, "expert": expert.reference()})

    def network(self) -> SemanticUNet:
        return SemanticUNet(self.model, self.model.label_channels(self.model.class_count))

    def task(self, network: nn.Module, expert: TaskExpert | None, perceptual: PerceptualLoss | None) -> TrainingTask:
        del perceptual
        assert isinstance(network, SemanticUNet)
        assert isinstance(expert, Expert) or not self.needs_expert  # `for_expert` refuses all else
        seer = expert if isinstance(expert, Expert) and self.needs_expert else None
        diffusion = Diffusion(self.model, snr_limit=self.snr_limit)
        return GescoTask(network, seer, diffusion, self.map_noise, self.map_dropout)

    def finished(self, name: str, network: nn.Module, used: Dataset, most_pixels: int) -> CodecCheckpoint:
        del used, most_pixels  # class maps are coded without statistics of the training images
        card = GescoCard(name=name, recipe=self.name, model=self.model, expert=self.expert, objects=self.objects)
        return CodecCheckpoint(card, half_weights(network.state_dict()), torch.empty(0, dtype=torch.int64), {})
