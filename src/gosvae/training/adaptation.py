"""Receiver adaptation: the expert learns to see on what it receives what it saw on the original.

Not part of the paper's protocol, whose expert is frozen: report it apart. It takes no labels and no bit: the frozen
expert's class probabilities on the original are what its copy must give on the reconstruction.

Axis legend: B images, m classes, H and W pixels, D latent channels.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from gosvae.codecs.checkpoint import half_weights
from gosvae.codecs.trained import TrainedCodec
from gosvae.codecs.variable import VariableRateCodec
from gosvae.codecs.variable_model import VariableRateAutoencoder
from gosvae.codecs.vq import VqCodec
from gosvae.codecs.vq_model import VqAutoencoder
from gosvae.config import to_tree
from gosvae.datasets.base import Dataset
from gosvae.datasets.loader import TrainingBatches
from gosvae.entropy.latent_network import LEVELS
from gosvae.errors import ConfigError
from gosvae.experts.base import Expert, NetworkExpert
from gosvae.experts.trained import card_of
from gosvae.files import json_bytes, write_together
from gosvae.losses.divergence import imitation_loss
from gosvae.seeding import seed_everything, torch_generator
from gosvae.tensors import pad_to_multiple
from gosvae.training.config import BatchConfig, RunConfig, StageConfig
from gosvae.training.judges import IMITATION, rarity
from gosvae.training.loop import Outcome, Trainer
from gosvae.training.provenance import provenance
from gosvae.training.task import TrainingTask

Transmission = VqAutoencoder | VariableRateAutoencoder


class AdaptationTask(TrainingTask):
    """Imitation losses (`jsd`, `kld`, `ce`) of a trainable network on reconstructions, by a frozen expert's example.

    Pixels weigh by the rarity of their class, as in `Judges`. A variable-rate codec draws a level for each image.
    """

    def __init__(self, network: nn.Module, expert: Expert, codec: Transmission) -> None:
        super().__init__()
        self.network, self.expert = network, expert
        self.codec = codec.eval().requires_grad_(False)
        self._generator = torch_generator(0)

    @property
    def known_terms(self) -> frozenset[str]:
        return frozenset(IMITATION)

    def begin_step(self, *path: int | str) -> None:
        self._generator = torch_generator(*path, "levels")

    def forward(self, x_B3HW: Tensor, labels_BHW: Tensor | None, wanted: frozenset[str]) -> dict[str, Tensor]:
        """The wanted terms; labels are not looked at."""
        del labels_BHW
        with torch.no_grad():
            logits_BmHW = self.expert(x_B3HW)
            x_hat_B3HW = self._received(x_B3HW)
        logits_hat_BmHW = self.network(x_hat_B3HW)
        weights_BHW = rarity(logits_BmHW)
        kinds = [kind for kind in IMITATION if kind in wanted]
        return {kind: imitation_loss(kind, logits_BmHW, logits_hat_BmHW, weights_BHW) for kind in kinds}

    def _received(self, x_B3HW: Tensor) -> Tensor:
        """What arrives: reconstructions in 8 bits."""
        height, width = x_B3HW.shape[-2:]
        x = pad_to_multiple(x_B3HW, self.codec.stride)
        self.codec.eval()
        if isinstance(self.codec, VqAutoencoder):
            x_hat = self.codec(x).x_hat_B3HW
        else:
            level_B = torch.randint(LEVELS, (len(x),), generator=self._generator).to(x.device)
            rounded_BDhw = self.codec.scaled(self.codec.transform(x), level_B).round()
            x_hat = self.codec.picture(rounded_BDhw, level_B)
        received: Tensor = x_hat[..., :height, :width].float().clamp(0, 1).mul(255.0).round().div(255.0)
        return received


def adaptation_stage(steps: int) -> StageConfig:
    """The schedule of `gosvae adapt-expert`.

    Raises:
        ConfigError: no steps.
    """
    if steps < 1:
        raise ConfigError(f"{steps} steps: expected at least 1")
    return StageConfig(
        name="adaptation",
        weights={"jsd": 1.0},
        steps=steps,
        learning_rate=3e-4,
        ema_decay=0.99,
        batches=BatchConfig(batch_size=4, crop_height=256, crop_width=256, brightness=0.1),
    )


def adapt_expert(
    codec: TrainedCodec,
    expert: Expert,
    seen: Dataset,
    stage: StageConfig,
    run: RunConfig,
    folder: Path,
    *,
    max_minutes: float | None = None,
    progress: bool = True,
) -> Outcome:
    """Train a copy of the expert on what the codec makes of images; `folder` then holds it, for `load_expert`.

    The same call continues a run that was stopped.

    Raises:
        ConfigError: a codec without a network that decodes, or an expert whose network is not gosvae's own.
        TrainingError, CheckpointError, WriteError, DatasetError: as `Trainer.train`.
    """
    if not isinstance(codec, VqCodec | VariableRateCodec):
        raise ConfigError(f"{codec.name!r}: experts are adapted to VQ codecs and variable-rate codecs only")
    if not isinstance(expert, NetworkExpert):
        raise ConfigError(
            f"expert {expert.info.name!r} cannot be adapted here: only those of gosvae train-expert can; train yours "
            "on pictures that gosvae compress and gosvae decompress made"
        )
    card = card_of(expert, name=f"{expert.info.name}-at-{codec.name}")

    def batches(stage: StageConfig, rank: int, world_size: int) -> TrainingBatches:
        options = to_tree(stage.batches)
        return TrainingBatches(seen, **options, seed=run.seed, workers=run.workers, rank=rank, world_size=world_size)

    def keep(stage: StageConfig, network: nn.Module, minutes: float) -> None:
        notes = provenance(
            seen,
            adapted_to={"codec": codec.name, "fingerprint": codec.fingerprint.hex()},
            expert={"name": expert.info.name, "fingerprint": expert.fingerprint()},
            stage=to_tree(stage),
            run=to_tree(run),
            minutes=round(minutes, 2),
        )
        write_together(
            {
                folder / "provenance.json": json_bytes(notes),
                folder / "config.json": json_bytes(to_tree(card)),
                folder / "weights.safetensors": save(half_weights(network.state_dict())),
            }
        )

    with torch.random.fork_rng(devices=[]):
        seed_everything(run.seed)
        network = copy.deepcopy(expert.network).requires_grad_(True).train()
        task = AdaptationTask(network, expert, codec.model)
        inputs = [seen.name, len(seen), expert.fingerprint(), codec.fingerprint.hex()]
        trainer = Trainer(task, (stage,), run, folder, inputs=str(inputs))
        return trainer.train(batches, keep, max_minutes=max_minutes, progress=progress)
