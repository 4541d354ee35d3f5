"""Training of a variable-rate codec for rate and task together.

For each image of a batch a random level is drawn, and with it the price of a bit. The rate is -log2 of the probability
that the context model gives each integer; the context model is trained together with the codec.

Axis legend: B images, D latent channels, h and w latent positions, N positions, G channels of a group, V values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.codecs.cards import VariableRateCard
from gosvae.codecs.checkpoint import CodecCheckpoint, half_weights
from gosvae.codecs.slices import grid_parts, slice_count
from gosvae.codecs.variable_model import VariableRateAutoencoder, VariableRateConfig
from gosvae.config import Config
from gosvae.datasets.base import Dataset
from gosvae.entropy.latent_network import LEVELS, LatentContextNetwork
from gosvae.entropy.lattice import reach
from gosvae.errors import ConfigError
from gosvae.experts.base import TaskExpert
from gosvae.experts.registry import is_program, load_task_expert
from gosvae.losses.perceptual import PerceptualLoss, load_perceptual
from gosvae.seeding import torch_generator
from gosvae.tensors import ImageArray, pad_to_multiple
from gosvae.training.codecs import TrainableRecipe
from gosvae.training.growth import begin_as, can_grow
from gosvae.training.judges import Judges
from gosvae.training.machine.task import RECONSTRUCTION, TrainingTask
from gosvae.training.passes import PassUse, drawn, pass_uses
from gosvae.training.views import ViewConfig

RATE, BITS = "rate", "bits"


def _no_program(name: str) -> str:
    """Return the name of an expert, unless it is a program: a recipe of a stranger must not name the code that runs."""
    if is_program(name):
        raise ValueError("a recipe names no program (.pt2, .pt, .ts, FILE.py:NAME): give it with the other experts")
    return name


_STEEPEST = 8.0
"""Largest difference in bits between two neighbouring integers that the encoder's gradient uses."""


class RateConfig(Config):
    """Price of a bit.

    Attributes:
        lowest_price, highest_price: price of one bit per pixel, in units of the loss, at the highest and at the lowest
            level; the prices between them are geometric.
        warmup_steps: number of steps of a stage over which the prices rise from 0, with the square of the step. With
            the full price from the first step, a network learns to send nothing.
        levels: lowest and highest level that are drawn.
    """

    lowest_price: float = Field(default=0.08, gt=0)
    highest_price: float = Field(default=6.0, gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    levels: tuple[int, int] = (0, LEVELS - 1)

    def prices(self, level_B: Tensor, step: int) -> Tensor:
        """Return the prices (B,) at the levels, at a step of a stage."""
        done = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return done**2 * self.highest_price * (self.lowest_price / self.highest_price) ** (level_B / (LEVELS - 1))


class ErasuresConfig(Config):
    """Erasures in training: slices of the latent that do not reach the decoder, as with lost packets.

    Attributes:
        share: share of the images that lose slices.
        slices: number of interleaved slices, as in a stream; each is lost as a whole.
        most: largest probability that a slice is lost; the probability is drawn for each image, from 0 to this.
    """

    share: float = Field(default=0.0, ge=0, le=1)
    slices: int = Field(default=8, ge=1, le=256)
    most: float = Field(default=0.4, ge=0, le=1)

    def lost(self, batch: int, grid_hw: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Return a random mask (B, 1, h, w), 1 where a position is lost."""
        parts = grid_parts(grid_hw, slice_count(grid_hw, self.slices, "interleaved"), "interleaved")
        draws_BU = torch.rand(batch, 2 + len(parts), generator=generator)
        gone_BS = (draws_BU[:, 2:] < self.most * draws_BU[:, 1:2]) & (draws_BU[:, :1] < self.share)
        lost_B1hw = torch.zeros(batch, 1, *grid_hw)
        for part, gone_B in zip(parts, gone_BS.T, strict=True):
            lost_B1hw[:, :, part[0], part[1]] = gone_B.float()[:, None, None, None]
        return lost_B1hw


class VariableRateTask(TrainingTask):
    """A variable-rate codec with the frozen networks that judge its reconstructions.

    The terms are those of `Judges`; `rate`, the price of the bits, whose gradient goes to the encoder and the gains;
    and `bits` per pixel, whose gradient goes to the context model alone.
    """

    network: VariableRateAutoencoder

    def __init__(
        self, network: VariableRateAutoencoder, judges: Judges, rate: RateConfig, erasures: ErasuresConfig
    ) -> None:
        super().__init__()
        self.network, self.judges, self._rate, self._erasures = network, judges, rate, erasures
        config = network.config.context
        self._uses = pass_uses(config.refinements, config.taps)
        self._reach = reach(config.refinements)
        self._generator, self._step = torch_generator(0), 0

    @property
    def known_terms(self) -> frozenset[str]:
        return self.judges.known_terms | {RATE, BITS}

    @property
    def imitation_terms(self) -> frozenset[str]:
        return self.judges.imitation_terms

    @property
    def last_layer(self) -> nn.Parameter:
        return self.network.decoder.last_layer

    def begin_step(self, *path: int | str) -> None:
        self._generator = torch_generator(*path, "levels")
        self._step = int(path[-1])

    def forward(self, x_B3HW: Tensor, labels_BHW: Tensor | None, wanted: frozenset[str]) -> dict[str, Tensor]:
        """Return the wanted terms, and `bpp_low` and `bpp_high`, bits per pixel at the lowest and highest level."""
        del labels_BHW  # no labels are needed: the expert is imitated
        height, width = x_B3HW.shape[-2:]
        level_B = self._draw_levels(len(x_B3HW)).to(x_B3HW.device)
        padded_B3HW = pad_to_multiple(x_B3HW, self.network.stride)
        grid_hw = (padded_B3HW.shape[-2] // self.network.stride, padded_B3HW.shape[-1] // self.network.stride)
        lost_B1hw = self._erasures.lost(len(x_B3HW), grid_hw, self._generator)
        # The mask is passed even if nothing is lost: with several devices, every weight must take part in every step.
        result, y_BDhw = self.network(padded_B3HW, level_B, lost_B1hw.to(x_B3HW.device))
        x_hat_B3HW = result.x_hat_B3HW[..., :height, :width].float()
        terms: dict[str, Tensor] = self.judges(x_B3HW, x_hat_B3HW, wanted, self._generator, self.judging)
        if RECONSTRUCTION in wanted:
            terms[RECONSTRUCTION] = x_hat_B3HW
        if not {RATE, BITS} & wanted:
            return terms
        with torch.autocast(x_B3HW.device.type, enabled=False):
            bits_B, costs_B = latent_bits(
                self.network.context, y_BDhw, result.indices_Bhw, level_B, self._uses, self._reach, self._generator
            )
        bpp_B = bits_B / (height * width)
        terms[BITS] = bpp_B.mean()
        terms[RATE] = (self._rate.prices(level_B, self._step) * costs_B).mean() / (height * width)
        terms["bpp_low"], terms["bpp_high"] = bpp_B[level_B.argmin()].detach(), bpp_B[level_B.argmax()].detach()
        return terms

    def _draw_levels(self, batch: int) -> Tensor:
        """Return random levels (B,), one from each of B equal parts of the range."""
        low, high = self._rate.levels
        u_B = (torch.randperm(batch, generator=self._generator) + torch.rand(batch, generator=self._generator)) / batch
        return (low + u_B * (high - low + 1)).long().clamp(low, high)


def latent_bits(
    network: LatentContextNetwork,
    y_BDhw: Tensor,
    symbols_BDhw: Tensor,
    level_B: Tensor,
    uses: list[PassUse],
    r: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return the bits (B,) of each image twice: with the gradient for the context model, and for the encoder.

    The gradient of the second goes to `y_BDhw`: the bits are linear between two integers, which is the expected cost of
    rounding at random to one of them.

    Args:
        network: context model.
        y_BDhw: scaled latent before rounding.
        symbols_BDhw: rounded latent, as symbols 0..2L.
        level_B: level of each image.
        uses: parts of the passes of the context model.
        r: reach of the taps of the context model.
        generator: generator of the positions that stand for each pass.
    """
    batch, channels, h, w = symbols_BDhw.shape
    symbols_ND = symbols_BDhw.permute(0, 2, 3, 1).reshape(-1, channels)
    y_ND = y_BDhw.permute(0, 2, 3, 1).reshape(-1, channels)
    # Embeddings of all positions with a margin of unknown ones, (B, h + 2r, w + 2r, E) as rows.
    height, width = h + 2 * r, w + 2 * r
    embedded_BhwE = network.embed(network.rows(symbols_ND)).view(batch, h, w, -1)
    grid_BhwE = network.unknown().expand(batch, height, width, -1).clone()
    grid_BhwE[:, r : r + h, r : r + w] = embedded_BhwE
    flat_NE = grid_BhwE.reshape(batch * height * width, -1)
    level_BE = network.level_table()[level_B]
    seen, positions, scales = [], [], []
    for use, order_N in drawn(uses, batch * h * w, generator):
        order_N = order_N.to(y_ND.device)
        images_N, rows_N, columns_N = torch.unravel_index(order_N, (batch, h, w))
        places_N = images_N * (height * width) + (rows_N + r) * width + columns_N + r
        offsets_T = (use.offsets_T2 @ torch.tensor([width, 1])).to(y_ND.device)
        x_NTE = F.embedding(places_N[:, None] + offsets_T, flat_NE)
        if bool(use.hidden_T.any()):
            x_NTE = torch.where(use.hidden_T.to(y_ND.device)[:, None], network.unknown(), x_NTE)
        x_NI = torch.cat([x_NTE.flatten(1), level_BE[images_N]], dim=1)
        seen.append(network.look(x_NI, use.kind, use.refinement))
        positions.append(order_N)
        scales.append(torch.full((len(order_N),), use.share * batch * h * w / len(order_N), device=y_ND.device))
    order_N, scale_N = torch.cat(positions), torch.cat(scales)
    images_N = order_N // (h * w)
    model_N, cost_N = _position_bits(
        network, network.features(torch.cat(seen)), y_ND[order_N], symbols_ND[order_N], level_B[images_N]
    )
    bits_B = y_ND.new_zeros(batch).index_add(0, images_N, scale_N * model_N)
    return bits_B, y_ND.new_zeros(batch).index_add(0, images_N, scale_N * cost_N)


def _position_bits(
    network: LatentContextNetwork, h_NC: Tensor, y_ND: Tensor, symbols_ND: Tensor, level_N: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the bits (N,) of positions, as `latent_bits`, of the channels that are coded at their levels."""
    config = network.config
    model_N, cost_N = h_NC.new_zeros(len(h_NC)), h_NC.new_zeros(len(h_NC))
    first_level_D = config.first_level_of_each_channel().to(level_N.device)
    for g in range(config.groups):
        coded_N = level_N >= first_level_D[g * config.group]
        group = slice(g * config.group, (g + 1) * config.group)
        symbols_NG = symbols_ND[:, group]
        # Logits are in bits, for a softmax to the base of 2.
        logits_NGV = network.logits(h_NC, g)
        bits_NGV = -F.log_softmax(logits_NGV * math.log(2.0), dim=2) / math.log(2.0)
        model_N = model_N + coded_N * bits_NGV.gather(2, symbols_NG[..., None]).sum(dim=(1, 2))
        with torch.no_grad():
            shifted_NG = y_ND[:, group] + config.bound
            low_NG1 = shifted_NG.floor().long().clamp(0, config.values - 2)[..., None]
            slope_NG = (bits_NGV.gather(2, low_NG1 + 1) - bits_NGV.gather(2, low_NG1))[..., 0]
            slope_NG = slope_NG.clamp(-_STEEPEST, _STEEPEST)
        cost_N = cost_N + coded_N * (slope_NG * (y_ND[:, group] - y_ND[:, group].detach())).sum(dim=1)
        if g + 1 < config.groups:
            h_NC = network.with_group(h_NC, g, symbols_NG)
    return model_N, model_N.detach() + cost_N


def _train_only(network: nn.Module, beginnings: tuple[str, ...]) -> None:
    """Freeze all parameters whose names do not begin with one of the beginnings.

    Raises:
        ConfigError: no parameter begins with one of them.
    """
    names = [name for name, _ in network.named_parameters()]
    for beginning in beginnings:
        if not any(name.startswith(beginning) for name in names):
            parts = sorted({".".join(name.split(".")[:2]) for name in names})
            raise ConfigError(
                f"trained: no part of the network begins with {beginning!r}; there are {', '.join(parts)}"
            )
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(beginnings))


class VariableRateRecipe(TrainableRecipe):
    """Recipe of a variable-rate codec, trained for rate and task together.

    Attributes:
        rate: price of a bit at each level.
        erasures: slices of the latent that do not reach the decoder; none by default.
        balance_classes, feature_layers, perceptual_images, experts_asked, distances_asked: see `Judges`.
        more_experts: experts to imitate beside the first, named as for `load_task_expert`; a recipe names no program
            (`.pt2`, TorchScript, `FILE.py:NAME`).
        more_perceptual: perceptual distances beside the first, named as for `load_perceptual`.
        views: random views of original and reconstruction that the judges are shown; by default the two as they are.
        trained: beginnings of the names of the parts that are trained; all by default. With `[decoder.]` the encoder,
            the gains and the context model stay as they are, and with them the bits. A stage then needs neither `rate`
            nor `bits`.
    """

    kind: Literal["variable-rate"] = "variable-rate"
    model: VariableRateConfig = VariableRateConfig()
    rate: RateConfig = RateConfig()
    erasures: ErasuresConfig = ErasuresConfig()
    balance_classes: bool = False
    feature_layers: tuple[str, ...] | None = None
    more_experts: tuple[Annotated[str, AfterValidator(_no_program)], ...] = ()
    more_perceptual: tuple[str, ...] = ()
    perceptual_images: int | None = Field(default=None, ge=1)
    experts_asked: int | None = Field(default=None, ge=1)
    distances_asked: int | None = Field(default=None, ge=1)
    views: ViewConfig = ViewConfig()
    trained: tuple[str, ...] = ()

    def network(self) -> VariableRateAutoencoder:
        return VariableRateAutoencoder(self.model)

    def can_start_from(self, model: Config) -> bool:
        """Return whether the model is the same, or has fewer residual blocks in the decoder or fewer channels."""
        return isinstance(model, VariableRateConfig) and can_grow(model, self.model)

    def initialise(self, network: nn.Module, source: CodecCheckpoint, images: Iterator[ImageArray]) -> None:
        assert isinstance(network, VariableRateAutoencoder)
        begin_as(network, source, images)

    def task(self, network: nn.Module, expert: TaskExpert | None, perceptual: PerceptualLoss | None) -> TrainingTask:
        assert isinstance(network, VariableRateAutoencoder)
        judges = Judges(
            expert,
            perceptual,
            balance_classes=self.balance_classes,
            feature_layers=self.feature_layers,
            more_experts=[load_task_expert(name) for name in self.more_experts],
            more_perceptual=[load_perceptual(name) for name in self.more_perceptual],
            perceptual_images=self.perceptual_images,
            views=self.views,
            experts_asked=self.experts_asked,
            distances_asked=self.distances_asked,
        )
        if self.trained:
            _train_only(network, self.trained)
        return VariableRateTask(network, judges, self.rate, self.erasures)

    def finished(self, name: str, network: nn.Module, used: Dataset, most_pixels: int) -> CodecCheckpoint:
        del used, most_pixels  # no counts: the context model gives the frequencies
        assert isinstance(network, VariableRateAutoencoder)
        weights = {k: v for k, v in network.state_dict().items() if not k.startswith("context.")}
        card = VariableRateCard(name=name, recipe=self.name, model=self.model)
        counts = torch.ones(0, dtype=torch.int64)
        return CodecCheckpoint(card, half_weights(weights), counts, {}, network.context.freeze())
