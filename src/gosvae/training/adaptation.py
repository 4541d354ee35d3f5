"""Adaptation of an expert to a codec: a copy of it learns to give the same output on reconstructions as on originals.

This needs no labels and no extra bits: the targets are the frozen expert's class probabilities on the originals. It is
not part of the paper's protocol, whose expert is frozen, so results must be reported separately.

Axis legend: B images, m classes, H and W pixels, D latent channels.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gosvae.codecs.trained import TrainedCodec
from gosvae.codecs.variable import VariableRateCodec
from gosvae.codecs.variable_model import VariableRateAutoencoder
from gosvae.codecs.vq import VqCodec
from gosvae.codecs.vq_model import VqAutoencoder
from gosvae.config import to_tree
from gosvae.datasets.base import Dataset
from gosvae.entropy.latent_network import LEVELS
from gosvae.errors import ConfigError
from gosvae.experts.base import Expert, NetworkExpert
from gosvae.experts.trained import card_of
from gosvae.losses.divergence import imitation_loss
from gosvae.seeding import torch_generator
from gosvae.tensors import pad_to_multiple
from gosvae.training.experts import save_expert
from gosvae.training.imitation import IMITATION, rarity
from gosvae.training.machine.config import BatchConfig, RunConfig, StageConfig
from gosvae.training.machine.fit import StageResult, fit
from gosvae.training.machine.loop import Outcome
from gosvae.training.machine.provenance import provenance
from gosvae.training.machine.task import TrainingTask

Transmission = VqAutoencoder | VariableRateAutoencoder


class AdaptationTask(TrainingTask):
    """Imitation losses (`jsd`, `kld`, `ce`) between a frozen expert on originals and a network on reconstructions.

    Pixels are weighted by the rarity of their class (see `rarity`). With a variable-rate codec, the level of each image
    is random.
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
        """Return the wanted terms; labels are not used."""
        del labels_BHW
        with torch.no_grad():
            logits_BmHW = self.expert(x_B3HW)
            x_hat_B3HW = self._received(x_B3HW)
        logits_hat_BmHW = self.network(x_hat_B3HW)
        weights_BHW = rarity(logits_BmHW)
        kinds = [kind for kind in IMITATION if kind in wanted]
        return {kind: imitation_loss(kind, logits_BmHW, logits_hat_BmHW, weights_BHW) for kind in kinds}

    def _received(self, x_B3HW: Tensor) -> Tensor:
        """Return the reconstructions, rounded to 8 bits."""
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
    """Return the default stage of an adaptation.

    Raises:
        ConfigError: fewer than 1 step.
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


@dataclass(frozen=True)
class Adaptation:
    """The fine-tuning of a copy of an expert on a codec's reconstructions.

    Attributes:
        codec: codec of the link; a VQ or variable-rate codec.
        expert: frozen expert to copy.
        seen: images that crops are drawn from.
        stage: the only stage.
    """

    codec: VqCodec | VariableRateCodec
    expert: NetworkExpert
    seen: Dataset
    stage: StageConfig

    @property
    def stages(self) -> tuple[StageConfig, ...]:
        return (self.stage,)

    def task(self) -> TrainingTask:
        network = copy.deepcopy(self.expert.network).requires_grad_(True).train()
        return AdaptationTask(network, self.expert, self.codec.model)

    def inputs(self) -> str:
        return str([self.seen.name, len(self.seen), self.expert.fingerprint(), self.codec.fingerprint.hex()])

    def origins(self) -> Mapping[str, Any]:
        return {
            "data": {"name": self.seen.name, "images": len(self.seen)},
            "expert": f"{self.expert.info.name} {self.expert.fingerprint()[:16]}",
            "codec": f"{self.codec.name} {self.codec.fingerprint.hex()[:16]}",
        }

    def keep(self, result: StageResult) -> None:
        notes = provenance(
            self.seen,
            adapted_to={"codec": self.codec.name, "fingerprint": self.codec.fingerprint.hex()},
            expert={"name": self.expert.info.name, "fingerprint": self.expert.fingerprint()},
            stage=to_tree(self.stage),
            **result.notes,
        )
        card = card_of(self.expert, name=f"{self.expert.info.name}-at-{self.codec.name}")
        for folder in result.folders:
            save_expert(folder, card, result.network, notes)


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
    """Fine-tune a copy of the expert on the codec's reconstructions; `folder` then has the copy, for `load_expert`.

    Args:
        codec, expert, seen, stage: see `Adaptation`.
        run, folder, max_minutes, progress: see `fit`.

    Raises:
        ConfigError: a codec of another kind, or an expert whose network is not gosvae's own.
        GosvaeError: as `fit`.
    """
    if not isinstance(codec, VqCodec | VariableRateCodec):
        raise ConfigError(f"{codec.name!r}: experts are adapted to VQ codecs and variable-rate codecs only")
    if not isinstance(expert, NetworkExpert):
        raise ConfigError(
            f"expert {expert.info.name!r} cannot be adapted here: only those of gosvae train-expert can; train yours "
            "on pictures that gosvae compress and gosvae decompress made"
        )
    training = Adaptation(codec, expert, seen, stage)
    return fit(training, run, folder, max_minutes=max_minutes, progress=progress)
