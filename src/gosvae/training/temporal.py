"""Training of the temporal context model of a finished variable-rate codec, which is frozen.

The encoder runs once: its latents of films and of moving stills are kept in a file. A step draws examples of four
frames, a level for each, and how much the encoder prefers the symbols of the reference.

Axis legend: B examples, F frames, D latent channels, h and w latent positions, N positions, V values, C features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from gosvae.codecs.temporal_model import TemporalCard, TemporalModel, save_temporal_model
from gosvae.codecs.variable import VariableRateCodec
from gosvae.codecs.variable_model import VariableRateAutoencoder
from gosvae.config import Config, to_tree
from gosvae.entropy.latent_network import LEVELS
from gosvae.entropy.lattice import reach
from gosvae.entropy.temporal_network import ACTIVITIES, AGES, TemporalConfig, TemporalContextNetwork, reference_taps
from gosvae.errors import ConfigError
from gosvae.provenance import hardware, revision, versions
from gosvae.seeding import seed_everything, torch_generator
from gosvae.training.machine.config import BatchConfig, RunConfig, StageConfig, Stages
from gosvae.training.machine.loop import Outcome, Trainer
from gosvae.training.machine.task import TrainingTask
from gosvae.training.passes import drawn, pass_uses
from gosvae.training.temporal_data import FRAMES, ClipBatches, LatentClips

LOG_BITS = "log_bits"
"""Name of the term that is trained: log2(1 + bits of a position), so that scenes that stand count like fast ones."""
_MOST_STICKY = 0.6
"""Largest distance, beyond the half step of rounding, at which an example keeps the symbol of its reference."""
_MOST_COUNT = 65535
_COUNTED = 600
"""Number of batches on which the tables are counted."""


class TemporalRecipe(Config):
    """Recipe of a temporal context model.

    Attributes:
        taps: see `TemporalConfig`.
        stages: stages of the training; of the batches only the size counts.
        size: height and width of the frames, in pixels.
        most_stills: number of pictures of each data set of stills.
    """

    kind: Literal["temporal"] = "temporal"
    name: str = "temporal"
    description: str = ""
    taps: int = 13
    size: tuple[int, int] = (256, 512)
    most_stills: int = Field(default=700, ge=0)
    stages: Stages


@dataclass(frozen=True)
class Examples:
    """Symbols of a batch as the temporal model sees them.

    Attributes:
        symbols_BDhw: symbols of the coded frames.
        rows_BDhw: `age * V + symbol` of their references.
        reference_BDhw: symbols of their references.
        level_B, reference_level_B: levels of frames and references.
        activity_B: class of activity of each frame.
    """

    symbols_BDhw: Tensor
    rows_BDhw: Tensor
    reference_BDhw: Tensor
    level_B: Tensor
    reference_level_B: Tensor
    activity_B: Tensor


class TemporalTask(TrainingTask):
    """Bits of the symbols of frames at random positions, given their references, see `gosvae.training.passes`."""

    network: TemporalContextNetwork

    def __init__(self, network: TemporalContextNetwork, codec: VariableRateAutoencoder) -> None:
        super().__init__()
        self.network = network
        self.codec = codec.requires_grad_(False)
        context = network.config.context
        self._uses, self._reach = pass_uses(context.refinements, context.taps), reach(context.refinements)
        self._generator = torch_generator(0)

    @property
    def known_terms(self) -> frozenset[str]:
        return frozenset({LOG_BITS})

    def begin_step(self, *path: int | str) -> None:
        self._generator = torch_generator(*path, "temporal")

    def forward(self, x_B3HW: Tensor, labels_BHW: Tensor | None, wanted: frozenset[str]) -> dict[str, Tensor]:
        """Return `log_bits` of latents (B, F * D, h, w), and the bits per position of the extreme examples."""
        del labels_BHW, wanted
        with torch.autocast(x_B3HW.device.type, enabled=False):
            examples = self.examples(x_B3HW.float())
            bits_B = temporal_bits(self.network, examples, self._uses, self._reach, self._generator)
        bits_B = bits_B / examples.symbols_BDhw[0, 0].numel()
        stillest, busiest = examples.activity_B.argmin(), examples.activity_B.argmax()
        return {
            LOG_BITS: torch.log2(1.0 + bits_B).mean(),
            "bits": bits_B.detach().mean(),
            "bits_stillest": bits_B[stillest].detach(),
            "bits_busiest": bits_B[busiest].detach(),
        }

    @torch.no_grad()
    def examples(self, x_BIhw: Tensor) -> Examples:
        """Return symbols of latents (B, F * D, h, w) at random levels, with random preference for the reference's."""
        batch, device, generator = len(x_BIhw), x_BIhw.device, self._generator
        context = self.network.config.context
        u_B = (torch.randperm(batch, generator=generator) + torch.rand(batch, generator=generator)) / batch
        # Low levels are the more frequent ones: there a reference saves the most.
        level_B = (u_B**2 * LEVELS).long().clamp(max=LEVELS - 1)
        other_B = (level_B + 24.0 * torch.randn(batch, generator=generator)).long().clamp(0, LEVELS - 1)
        differs_B = torch.rand(batch, generator=generator) < 0.1
        reference_level_B = torch.where(differs_B, other_B, level_B)
        sticky_B = (
            _MOST_STICKY * torch.rand(batch, generator=generator) * (torch.rand(batch, generator=generator) < 0.7)
        )
        begins_B = torch.randint(0, FRAMES + 2, (batch,), generator=generator).clamp(max=FRAMES - 1)
        symbols, ages = torch.empty(0), torch.empty(0)
        found: list[tuple[Tensor, Tensor]] = []
        for number, latent_BDhw in enumerate(x_BIhw.chunk(FRAMES, dim=1)):
            last = number == FRAMES - 1
            at_B = level_B if last else reference_level_B
            y = self.codec.scaled(latent_BDhw, at_B.to(device)) + context.bound
            nearest = y.round().long()
            if number == 0:
                symbols, ages = nearest, torch.ones_like(nearest)
            else:
                reach_B = (0.5 + sticky_B) * ~(differs_B & torch.tensor(last))
                kept = (y - symbols).abs() <= reach_B.to(device)[:, None, None, None]
                following = torch.where(kept, symbols, nearest)
                ages = torch.where(following == symbols, (ages + 1).clamp(max=AGES - 1), 0)
                # The sequence begins again in some examples: nothing is known of frames before.
                again = (begins_B == FRAMES - 1 - number).to(device)[:, None, None, None]
                symbols, ages = torch.where(again, nearest, following), torch.where(again, 1, ages)
            found.append((symbols, ages))
        (reference, known_ages), (frame, _) = found[-2:]
        coded_D = context.first_level_of_each_channel().to(device) <= level_B.to(device)[:, None]
        changed_B = ((frame != reference) & coded_D[:, :, None, None]).sum(dim=(1, 2, 3))
        share_B = 256 * changed_B // (coded_D.sum(dim=1) * frame[0, 0].numel())
        activity_B = (share_B + 0.5).log2().ceil().long().clamp(0, ACTIVITIES - 1)
        rows = known_ages * context.values + reference
        return Examples(frame, rows, reference, level_B.to(device), reference_level_B.to(device), activity_B)


def temporal_bits(
    network: TemporalContextNetwork, examples: Examples, uses: Sequence[Any], r: int, generator: torch.Generator
) -> Tensor:
    """Return the bits (B,) of each frame, with the gradient for the network.

    Args:
        network: temporal network.
        examples: symbols of frames and references.
        uses: parts of the passes, see `pass_uses`.
        r: reach of the taps within a frame.
        generator: generator of the positions that stand for each pass.
    """
    space, context = network.space, network.config.context
    batch, _, h, w = examples.symbols_BDhw.shape
    symbols_ND, rows_ND = (_by_position(x) for x in (examples.symbols_BDhw, examples.rows_BDhw))
    frame = _Padded(space.embed(space.rows(symbols_ND)), space.unknown(), (batch, h, w), r)
    pairs = reference_taps(network.config.taps)
    margin = max(max(abs(dy), abs(dx)) for dy, dx in pairs)
    reference = _Padded(network.embed(rows_ND), network.outside(), (batch, h, w), margin)
    pairs_T2 = torch.tensor(pairs)
    centred_NC = network.centred(rows_ND)
    level_BE = space.level_table()[examples.level_B]
    frame_BE = torch.cat(
        [network.level_table()[examples.reference_level_B], network.activity_table()[examples.activity_B]], dim=1
    )
    seen, positions, scales = [], [], []
    for use, order_N in drawn(uses, batch * h * w, generator):
        order_N = order_N.to(symbols_ND.device)
        images_N = order_N // (h * w)
        x_NTE = frame.at(order_N, use.offsets_T2)
        if bool(use.hidden_T.any()):
            x_NTE = torch.where(use.hidden_T.to(x_NTE.device)[:, None], space.unknown(), x_NTE)
        known = [x_NTE.flatten(1), level_BE[images_N], reference.at(order_N, pairs_T2).flatten(1), frame_BE[images_N]]
        seen.append(space.look(torch.cat(known, dim=1), use.kind, use.refinement, F.embedding(order_N, centred_NC)))
        positions.append(order_N)
        scales.append(torch.full((len(order_N),), use.share * batch * h * w / len(order_N), device=order_N.device))
    order_N, scale_N, h_NC = torch.cat(positions), torch.cat(scales), space.features(torch.cat(seen))
    # Positions in the order of their levels: those of the lowest levels leave first, with the groups.
    by_level = torch.argsort(examples.level_B[order_N // (h * w)], descending=True, stable=True)
    order_N, scale_N, h_NC = order_N[by_level], scale_N[by_level], h_NC[by_level]
    level_N = examples.level_B[order_N // (h * w)]
    first_level_D = context.first_level_of_each_channel()
    bits_B = h_NC.new_zeros(batch)
    for g in range(context.groups):
        group = slice(g * context.group, (g + 1) * context.group)
        coded = int((level_N >= first_level_D[group.start]).sum())
        if coded == 0:
            break
        order_N, h_NC = order_N[:coded], h_NC[:coded]
        symbols_NG = symbols_ND[order_N, group]
        h_NC = network.with_reference(h_NC, g, rows_ND[order_N])
        nats_NGV = network.logits(h_NC, g, rows_ND[order_N]) * math.log(2.0)
        nats_NG = F.cross_entropy(nats_NGV.flatten(0, 1), symbols_NG.flatten(), reduction="none").view(coded, -1)
        bits_B = bits_B.index_add(0, order_N // (h * w), scale_N[:coded] * nats_NG.sum(dim=1) / math.log(2.0))
        if g + 1 < context.groups:
            h_NC = space.with_group(h_NC, g, symbols_NG)
    return bits_B


class _Padded:
    """Embeddings of all positions of a batch with a margin, from which taps are taken."""

    def __init__(self, x_NE: Tensor, outside_E: Tensor, shape_Bhw: tuple[int, int, int], margin: int) -> None:
        batch, h, w = shape_Bhw
        self._shape_Bhw, self._margin = shape_Bhw, margin
        self._height, self._width = h + 2 * margin, w + 2 * margin
        grid_BhwE = outside_E.expand(batch, self._height, self._width, -1).clone()
        grid_BhwE[:, margin : margin + h, margin : margin + w] = x_NE.view(batch, h, w, -1)
        self._flat_NE = grid_BhwE.reshape(batch * self._height * self._width, -1)

    def at(self, order_N: Tensor, offsets_T2: Tensor) -> Tensor:
        """Return the embeddings (N, T, E) at offsets from positions."""
        images_N, rows_N, columns_N = torch.unravel_index(order_N, self._shape_Bhw)
        places_N = images_N * (self._height * self._width) + (rows_N + self._margin) * self._width
        offsets_T = (offsets_T2 @ torch.tensor([self._width, 1])).to(order_N.device)
        return F.embedding((places_N + columns_N + self._margin)[:, None] + offsets_T, self._flat_NE)


def _by_position(x_BDhw: Tensor) -> Tensor:
    return x_BDhw.permute(0, 2, 3, 1).reshape(-1, x_BDhw.shape[1])


class TemporalTraining:
    """The training of a temporal model.

    Args:
        recipe: sizes and stages.
        codec: codec whose latents are learned; nothing of it changes.
        clips: latents of sequences.
        origin: plain values that describe the sequences.
    """

    def __init__(self, recipe: TemporalRecipe, codec: VariableRateCodec, clips: LatentClips, origin: Any) -> None:
        self.recipe, self.codec, self._clips, self._origin = recipe, codec, clips, origin
        self.config = TemporalConfig(context=codec.config.context, taps=recipe.taps)

    def task(self) -> TemporalTask:
        """Return the task with a new network that starts from the codec's own context model."""
        network = TemporalContextNetwork(self.config)
        network.start_from(self.codec.checkpoint.context)
        return TemporalTask(network, self.codec.model)

    def keep(self, folder: Path, network: TemporalContextNetwork, notes: Mapping[str, Any]) -> None:
        """Write a trained network and the counts of its tables."""
        card = TemporalCard(codec=self.codec.checkpoint.fingerprint().hex(), model=self.config)
        origins = {"revision": revision(), "versions": versions(), "hardware": hardware(), "sequences": self._origin}
        provenance = {**origins, "recipe": to_tree(self.recipe), **notes}
        save_temporal_model(folder, TemporalModel(card, network.freeze(), self.counts(), provenance))

    @torch.no_grad()
    def counts(self) -> Tensor:
        """Return how often each symbol follows each symbol of the reference, uint16 (activity, D, V, V)."""
        task, context = self.task(), self.config.context
        shape = (ACTIVITIES, context.channels, context.values, context.values)
        counts = torch.zeros(shape, dtype=torch.int32)
        batches = ClipBatches(self._clips, self.recipe.stages[0].batches.batch_size, seed=1)
        for step in range(_COUNTED):
            task.begin_step("counts", step)
            examples = task.examples(batches.batch(step).x_B3HW)
            channel_D = torch.arange(context.channels)[:, None, None] * context.values**2
            pairs_BDhw = channel_D + examples.reference_BDhw * context.values + examples.symbols_BDhw
            for activity, pairs_Dhw in zip(examples.activity_B.tolist(), pairs_BDhw, strict=True):
                found = torch.bincount(pairs_Dhw.flatten(), minlength=counts[0].numel())
                counts[activity] += found.view(shape[1:]).to(torch.int32)
        # A table with larger counts is scaled down, so that 16 bits hold it.
        most = counts.amax(dim=3, keepdim=True).clamp_min(_MOST_COUNT).long()
        return (counts * _MOST_COUNT // most).to(torch.uint16)


def train_temporal(
    recipe: TemporalRecipe,
    codec: VariableRateCodec,
    clips: LatentClips,
    origin: Any,
    run: RunConfig,
    folder: Path,
    *,
    max_minutes: float | None = None,
    progress: bool = True,
) -> Outcome:
    """Train a temporal model; `folder` then holds `temporal.json` and `temporal.safetensors`.

    Args:
        recipe, codec, clips, origin: see `TemporalTraining`.
        run, folder, max_minutes, progress: see `gosvae.training.machine.fit.fit`.

    Raises:
        GosvaeError: as `fit`.
    """
    training = TemporalTraining(recipe, codec, clips, origin)
    inputs = str([origin, codec.checkpoint.fingerprint().hex(), to_tree(training.config)])

    def batches(stage: StageConfig, rank: int, world_size: int) -> ClipBatches:
        return ClipBatches(clips, stage.batches.batch_size, run.seed, rank, world_size)

    def keep(stage: StageConfig, network: torch.nn.Module, minutes: float) -> None:
        assert isinstance(network, TemporalContextNetwork)
        notes = {"stage": stage.name, "minutes_of_stage": round(minutes, 2), "run": to_tree(run)}
        for place in (folder / "stages" / stage.name, *([folder] if stage is recipe.stages[-1] else [])):
            training.keep(place, network, notes)

    with torch.random.fork_rng(devices=[]):
        seed_everything(run.seed)
        origins = {"data": origin, "codec": codec.checkpoint.fingerprint().hex()}
        trainer = Trainer(training.task(), recipe.stages, run, folder, inputs=inputs, origins=origins)
        return trainer.train(batches, keep, max_minutes=max_minutes, progress=progress)


def default_recipe(steps: int) -> TemporalRecipe:
    """Return the recipe that the released models were trained with.

    Raises:
        ConfigError: fewer than 1 step.
    """
    if steps < 1:
        raise ConfigError(f"{steps} steps: expected at least 1")
    stage = StageConfig(
        name="temporal",
        weights={LOG_BITS: 1.0},
        steps=steps,
        learning_rate=2e-3,
        weight_decay=0.0,
        ema_decay=0.99,
        batches=BatchConfig(batch_size=8),
    )
    return TemporalRecipe(stages=(stage,))
