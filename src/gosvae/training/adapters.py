"""Training of an adapter: a small part of a codec's decoder learns a new expert, and the codec stays as it is.

Axis legend: B images, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gosvae.codecs.adapter import Adapter, AdapterCard, save_adapter
from gosvae.codecs.trained import TrainedCodec
from gosvae.codecs.variable import VariableRateCodec
from gosvae.codecs.variable_model import VariableRateAutoencoder
from gosvae.codecs.vq import VqCodec
from gosvae.codecs.vq_model import VqAutoencoder
from gosvae.config import to_tree
from gosvae.datasets.base import Dataset
from gosvae.entropy.latent_network import LEVELS
from gosvae.errors import ConfigError
from gosvae.experts.base import TaskExpert
from gosvae.seeding import torch_generator
from gosvae.tensors import pad_to_multiple
from gosvae.training.judges import Judges
from gosvae.training.machine.config import BatchConfig, RunConfig, StageConfig
from gosvae.training.machine.fit import StageResult, fit
from gosvae.training.machine.loop import Outcome
from gosvae.training.machine.provenance import provenance
from gosvae.training.machine.task import TrainingTask


class Receiver(nn.Module):
    """Reconstructions (B, 3, H, W) of a frozen codec, at a level for each image where the codec has levels."""

    def __init__(self, codec: VqAutoencoder | VariableRateAutoencoder) -> None:
        super().__init__()
        self.codec = codec.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Receiver:
        """Stay in evaluation mode."""
        del mode
        return super().train(False)

    def forward(self, x_B3HW: Tensor, level_B: Tensor) -> Tensor:
        if isinstance(self.codec, VqAutoencoder):
            x_hat_B3HW: Tensor = self.codec(x_B3HW).x_hat_B3HW
            return x_hat_B3HW
        with torch.no_grad():
            rounded_BDhw = self.codec.scaled(self.codec.transform(x_B3HW), level_B).round()
        return self.codec.picture(rounded_BDhw, level_B)


class AdapterTask(TrainingTask):
    """Terms of `Judges` on the reconstructions of a codec whose decoder an adapter changes; levels are random."""

    network: Adapter

    def __init__(self, adapter: Adapter, codec: VqAutoencoder | VariableRateAutoencoder, judges: Judges) -> None:
        super().__init__()
        self.network, self.judges, self.receiver = adapter, judges, Receiver(codec)
        self._stride = codec.stride
        self._generator = torch_generator(0)

    @property
    def known_terms(self) -> frozenset[str]:
        return self.judges.known_terms

    @property
    def imitation_terms(self) -> frozenset[str]:
        return self.judges.imitation_terms

    def begin_step(self, *path: int | str) -> None:
        self._generator = torch_generator(*path, "levels")

    def forward(self, x_B3HW: Tensor, labels_BHW: Tensor | None, wanted: frozenset[str]) -> dict[str, Tensor]:
        """Return the wanted terms; labels are not used."""
        del labels_BHW
        height, width = x_B3HW.shape[-2:]
        level_B = torch.randint(LEVELS, (len(x_B3HW),), generator=self._generator).to(x_B3HW.device)
        changed = self.network.changed(dict(self.receiver.codec.named_parameters()))
        weights = {f"codec.{name}": value for name, value in changed.items()}
        padded = pad_to_multiple(x_B3HW, self._stride)
        x_hat_B3HW = torch.func.functional_call(self.receiver, weights, (padded, level_B))
        cut_B3HW = x_hat_B3HW[..., :height, :width].float()
        terms: dict[str, Tensor] = self.judges(x_B3HW, cut_B3HW, wanted, judging=self.judging)
        return terms


def adapter_stage(steps: int) -> StageConfig:
    """Return the default stage of an adapter.

    Raises:
        ConfigError: fewer than 1 step.
    """
    if steps < 1:
        raise ConfigError(f"{steps} steps: expected at least 1")
    return StageConfig(
        name="adapter",
        weights={"mse": 6.0, "jsd": 12.0},
        steps=steps,
        learning_rate=2e-3,
        warmup_steps=min(100, steps // 10),
        ema_decay=0.95,
        batches=BatchConfig(batch_size=4, crop_height=144, crop_width=288, brightness=0.1),
    )


@dataclass(frozen=True)
class AdapterTraining:
    """The training of an adapter.

    Attributes:
        codec: codec to adapt; a VQ or variable-rate codec.
        base: name or folder by which the adapter finds it.
        expert: expert to imitate, or a group of them.
        seen: images that crops are drawn from.
        stage: the only stage.
        rank: see `Adapter`.
    """

    codec: VqCodec | VariableRateCodec
    base: str
    expert: TaskExpert
    seen: Dataset
    stage: StageConfig
    rank: int | None

    @property
    def stages(self) -> tuple[StageConfig, ...]:
        return (self.stage,)

    def task(self) -> TrainingTask:
        adapter = Adapter(dict(self.codec.model.named_parameters()), self.rank)
        return AdapterTask(adapter, self.codec.model, Judges(self.expert, None))

    def inputs(self) -> str:
        return str([self.seen.name, len(self.seen), self.expert.fingerprint(), self.codec.fingerprint.hex(), self.rank])

    def origins(self) -> Mapping[str, Any]:
        return {
            "data": {"name": self.seen.name, "images": len(self.seen)},
            "expert": f"{self.expert.info.name} {self.expert.fingerprint()[:16]}",
            "codec": f"{self.codec.name} {self.codec.fingerprint.hex()[:16]}",
            "rank": self.rank,
        }

    def keep(self, result: StageResult) -> None:
        self._write(result, f"{self.codec.name}-for-{self.expert.info.name}")

    def snapshot(self, result: StageResult) -> None:
        """Write the adapter of an unfinished run; its name ends in `-unfinished`."""
        self._write(result, f"{self.codec.name}-for-{self.expert.info.name}-unfinished")

    def _write(self, result: StageResult, name: str) -> None:
        assert isinstance(result.network, Adapter)
        fingerprint = self.codec.checkpoint.fingerprint().hex()
        card = AdapterCard(name=name, base=self.base, fingerprint=fingerprint, rank=self.rank)
        expert = {"name": self.expert.info.name, "fingerprint": self.expert.fingerprint()}
        notes = provenance(self.seen, stage=to_tree(self.stage), expert=expert, **result.notes)
        for folder in result.folders:
            save_adapter(folder, card, result.network, notes)


def adapt_codec(
    codec: TrainedCodec,
    base: str,
    expert: TaskExpert,
    seen: Dataset,
    stage: StageConfig,
    run: RunConfig,
    folder: Path,
    *,
    rank: int | None = 4,
    max_minutes: float | None = None,
    progress: bool = True,
) -> Outcome:
    """Train an adapter of a codec's decoder for an expert; `folder` then holds it, and `load_codec` reads the folder.

    Args:
        codec, base, expert, seen, stage, rank: see `AdapterTraining`.
        run, folder, max_minutes, progress: see `fit`.

    Raises:
        ConfigError: a codec of another kind, or one that is adapted already.
        GosvaeError: as `fit`.
    """
    if not isinstance(codec, VqCodec | VariableRateCodec):
        raise ConfigError(f"{codec.name!r}: VQ codecs and variable-rate codecs are adapted only")
    if codec.checkpoint.changes:
        raise ConfigError(f"{codec.name!r} is adapted already: adapt the codec that it was made from")
    training = AdapterTraining(codec, base, expert, seen, stage, rank)
    return fit(training, run, folder, max_minutes=max_minutes, progress=progress)
