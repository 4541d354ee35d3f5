"""Network of `gosvae.entropy.latent`, from the known part of a latent to the logits of its integers.

It is trained in real units and runs in integers, see `gosvae.nn.integer`.

Axis legend: N positions, T taps, D channels, G channels of a group, V values, E values of an embedding, C features,
A anchors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.config import Blocks, Channels, Config
from gosvae.entropy.lattice import KINDS, taps
from gosvae.entropy.logits import LOGIT_BITS
from gosvae.errors import CheckpointError
from gosvae.nn.integer import (
    LARGEST_WEIGHT,
    UNIT_BITS,
    IntegerLinear,
    QuantizedLinear,
    frozen_layers,
    integer_layers,
    integer_relu_,
    quantized_relu,
    round_to_units,
    summed_rows,
    thaw_layers,
)
from gosvae.weights import check_amount

LEVELS = 256
"""Number of levels of quality: one byte of a stream."""
_LIMIT = LARGEST_WEIGHT * 2.0**-UNIT_BITS
"""Largest magnitude of an embedding in real units."""


class LatentContextConfig(Config):
    """Sizes of a context model of a latent.

    Attributes:
        channels: channels of the latent, D.
        bound: largest integer, L; integers are in -L..L.
        group: channels that are coded at once, G; it divides D.
        anchors: number of levels with values of their own, A; all other levels are interpolated between two of them.
        embedding_width: values of an embedding, E.
        width: features, C.
        blocks: number of residual blocks of two layers each.
        taps, refinements: see `gosvae.entropy.context.ContextConfig`.
        first_levels: lowest level at which each group is coded, rising from 0; below it the integers of the group are 0
            and take no bits. An empty tuple codes all groups at all levels.
    """

    neutral: ClassVar[Mapping[str, Any]] = {
        "bound": 7,
        "group": 4,
        "anchors": 9,
        "embedding_width": 32,
        "width": 192,
        "blocks": 1,
        "taps": [12, 16, 24],
        "refinements": 3,
        "first_levels": [],
    }

    channels: int = Field(ge=1, le=256)
    bound: int = Field(default=7, ge=1, le=63)
    group: int = Field(default=4, ge=1)
    anchors: int = Field(default=9, ge=2, le=LEVELS)
    embedding_width: Channels = 32
    width: Channels = 192
    blocks: Blocks = 1
    taps: tuple[PositiveInt, PositiveInt, PositiveInt] = (12, 16, 24)
    refinements: int = Field(default=3, ge=1, le=4)
    first_levels: tuple[Annotated[int, Field(ge=0, lt=LEVELS)], ...] = ()

    @model_validator(mode="after")
    def _whole_groups(self) -> LatentContextConfig:
        if self.channels % self.group:
            raise ValueError(f"{self.channels} channels are not whole groups of {self.group}")
        first = self.first_levels
        if first and (len(first) != self.groups or first[0] > 0 or any(a > b for a, b in pairwise(first))):
            raise ValueError(f"first_levels: expected {self.groups}, one for each group, rising from 0")
        return self

    @property
    def values(self) -> int:
        """Number of values of a channel, V."""
        return 2 * self.bound + 1

    @property
    def groups(self) -> int:
        """Number of groups of a position."""
        return self.channels // self.group

    def groups_at(self, level: int) -> int:
        """Return the number of groups that are coded at a level; they are the first ones."""
        return sum(first <= level for first in self.first_levels) or self.groups

    def first_level_of_each_channel(self) -> Tensor:
        """Return the level (D,) from which each channel is coded, see `first_levels`."""
        return torch.tensor(self.first_levels or [0] * self.groups).repeat_interleave(self.group)


def signed_units(table: Tensor) -> Tensor:
    """Return a trained table rounded to the units of activations, within the range of int8."""
    return round_to_units(table.clamp(-_LIMIT, _LIMIT))


def interpolation(anchors: int) -> Tensor:
    """Return the weights (256, A), multiples of 1 / 255, of the two anchors beside each level."""
    places_L = torch.arange(LEVELS, dtype=torch.float64) * (anchors - 1)
    low_L = (places_L // (LEVELS - 1)).clamp(max=anchors - 2).long()
    high_L = (places_L - low_L * (LEVELS - 1)) / (LEVELS - 1)
    weights_LA = torch.zeros(LEVELS, anchors, dtype=torch.float64)
    weights_LA.scatter_(1, low_L[:, None], (1.0 - high_L)[:, None])
    weights_LA.scatter_(1, low_L[:, None] + 1, high_L[:, None])
    return weights_LA.float()


Linear = QuantizedLinear | IntegerLinear


class LatentContextNetwork(nn.Module):
    """Network from neighbours to logits; the same code trains (`QuantizedLinear`, real units) and runs (integers).

    Args:
        config: sizes of the network.
        linear: function that makes the integer layers; None makes a network that can be trained.
        more_inputs: number of further embeddings that `look` gets for each position.
    """

    offsets_D: Tensor
    """First row of each channel in the table of embeddings."""
    offsets_G: Tensor
    """First row of each channel of a group in the table of the group."""

    def __init__(
        self, config: LatentContextConfig, linear: Callable[..., Linear] | None = None, more_inputs: int = 0
    ) -> None:
        super().__init__()
        self.config = config
        self.integer = linear is not None
        make = linear or QuantizedLinear
        width, embedding, values = config.width, config.embedding_width, config.values
        rows = config.channels * values + 1  # the last row stands for a position that is not known
        levels = LEVELS if self.integer else config.anchors
        self.register_buffer("offsets_D", torch.arange(config.channels) * values, persistent=False)
        self.register_buffer("offsets_G", torch.arange(config.group) * values, persistent=False)
        scale = 0.5 / config.channels**0.5
        self.embedding = nn.Parameter(scale * torch.randn(rows, embedding))
        self.levels = nn.Parameter(0.5 * torch.randn(levels, embedding))
        used_taps = [min(config.taps[kind], len(taps(kind, 10**6))) for kind in range(KINDS)]
        # The last one is for the first pass, where only the level is known.
        self.first = nn.ModuleList(
            make(embedding * (n + 1 + more_inputs), width, n_biases=config.refinements, largest_input=LARGEST_WEIGHT)
            for n in [*used_taps, 0]
        )
        self.blocks = nn.ModuleList(
            nn.ModuleList([make(width, width), make(width, width, residual=True)]) for _ in range(config.blocks)
        )
        group_rows = config.group * values
        self.known = nn.ParameterList(
            nn.Parameter(0.1 * torch.randn(group_rows, width)) for _ in range(config.groups - 1)
        )
        self.known_layers = nn.ModuleList(make(width, width) for _ in range(config.groups - 1))
        self.heads = nn.ModuleList(
            make(width, group_rows, extra_bits=LOGIT_BITS - UNIT_BITS) for _ in range(config.groups)
        )
        if not self.integer:
            self.register_buffer("interpolation_LA", interpolation(config.anchors), persistent=False)
            with torch.no_grad():
                for head in self.heads:
                    assert isinstance(head, QuantizedLinear)
                    spread_V = -(torch.arange(values) - config.bound).abs().float()
                    head.bias_PO.copy_(spread_V.repeat(config.group)[None])
                    head.weight_OI.mul_(0.5)

    def _signed(self, table: Tensor) -> Tensor:
        return table if self.integer else signed_units(table)

    def _relu(self, x: Tensor) -> Tensor:
        """Return the activations of `x`, which may be overwritten."""
        return integer_relu_(x) if self.integer else quantized_relu(x)

    def _sum_of_rows(self, table: Tensor, rows_NT: Tensor) -> Tensor:
        if self.integer:
            return summed_rows(table, rows_NT)
        return F.embedding_bag(rows_NT, signed_units(table), mode="sum")

    def level_table(self) -> Tensor:
        """Return the embedding (256, E) of each level."""
        if self.integer:
            return self.levels
        interpolation_LA: Tensor = self.get_buffer("interpolation_LA")
        return self._signed(interpolation_LA @ self.levels)

    def embed(self, rows_ND: Tensor) -> Tensor:
        """Return the embeddings (N, E) of positions, given the rows of their integers: see `rows`."""
        limit = LARGEST_WEIGHT if self.integer else _LIMIT
        return self._sum_of_rows(self.embedding, rows_ND).clamp(-limit, limit)

    def unknown(self) -> Tensor:
        """Return the embedding (E,) of a position that is not known."""
        return self._signed(self.embedding[-1])

    def rows(self, symbols_ND: Tensor) -> Tensor:
        """Return the rows (N, D) of the embedding table for symbols 0..2L of all channels."""
        return symbols_ND + self.offsets_D

    def look(self, x_NI: Tensor, kind: int | None, refinement: int, added_NC: Tensor | None = None) -> Tensor:
        """Return the output (N, C) of the first layer of a kind of pass.

        Args:
            x_NI: embeddings of the taps, followed by the embedding of the level and further embeddings.
            kind: kind of the pass; None for the first pass.
            refinement: number of the refinement of the pass.
            added_NC: features that are added to the result, in its units.
        """
        sums_NC: Tensor = self.first_layer(kind)(x_NI, refinement)
        if added_NC is not None:
            # Rounded before the sum, which could need more than the 24 bits of a float32 otherwise.
            sums_NC = (sums_NC.floor() if self.integer else round_to_units(sums_NC)) + added_NC
        return self._relu(sums_NC)

    def first_layer(self, kind: int | None) -> nn.Module:
        """Return the first layer of a kind of pass; None stands for the first pass."""
        return self.first[KINDS if kind is None else kind]

    def features(self, h_NC: Tensor) -> Tensor:
        """Return the features (N, C) for the output of `look`, computed by the layers that all passes share."""
        for block in self.blocks:
            inner, outer = block.children()
            h_NC = self._relu(outer(self._relu(inner(h_NC))) + h_NC)
        return h_NC

    def logits(self, h_NC: Tensor, group: int) -> Tensor:
        """Return the logits (N, G, V) of a group: in units of 1/16 bit (integers), or in bits while training."""
        x_NO: Tensor = self.heads[group](h_NC)
        x_NO = x_NO.floor_() if self.integer else round_to_units(x_NO, LOGIT_BITS - UNIT_BITS)
        return x_NO.view(len(x_NO), self.config.group, self.config.values)

    def with_group(self, h_NC: Tensor, group: int, symbols_NG: Tensor) -> Tensor:
        """Return the features (N, C) for the next group, when the symbols 0..2L of this one are known."""
        rows_NG = symbols_NG + self.offsets_G
        added_NC = self._sum_of_rows(self.known[group], rows_NG)
        return self._relu(self.known_layers[group](self._relu(h_NC + added_NC)))

    @torch.no_grad()
    def freeze(self) -> dict[str, Tensor]:
        """Return the network in integers, by name: int8 and int32 tensors."""
        tensors = frozen_layers(self)
        tables = {"embedding": self._signed(self.embedding), "levels": self.level_table()}
        tables |= {f"known.{i}": self._signed(table) for i, table in enumerate(self.known)}
        return tensors | {name: (table * 2.0**UNIT_BITS).to(torch.int8).cpu() for name, table in tables.items()}

    @torch.no_grad()
    def thaw(self, tensors: dict[str, Tensor]) -> None:
        """Restore the parameters from the integers of `freeze`, to continue the training of a finished model.

        The anchors of the levels are those that come nearest to the frozen table; all other parameters are exact.

        Raises:
            CheckpointError: the tensors are not those of such a network.
        """
        integer_network(self.config, tensors)  # checks them
        thaw_layers(self, tensors)
        unit = 2.0**-UNIT_BITS
        self.embedding.copy_(tensors["embedding"].float() * unit)
        for i, table in enumerate(self.known):
            table.copy_(tensors[f"known.{i}"].float() * unit)
        self.levels.copy_(anchors_of(self.get_buffer("interpolation_LA"), tensors["levels"] * unit))


def anchors_of(interpolation_LA: Tensor, levels_LE: Tensor) -> Tensor:
    """Return the values (A, E) of the anchors that come nearest to the values of all levels."""
    anchors_AE: Tensor = torch.linalg.lstsq(interpolation_LA, levels_LE).solution
    return anchors_AE


def integer_network(config: LatentContextConfig, tensors: dict[str, Tensor]) -> LatentContextNetwork:
    """Return the network of the integers that `LatentContextNetwork.freeze` returned.

    Raises:
        CheckpointError: a tensor is missing, is not expected, or does not fit the configuration.
    """
    check_amount(lambda: LatentContextNetwork(config), tensors)
    pattern = LatentContextNetwork(config).float()
    expected = {name: (value.shape, value.dtype) for name, value in pattern.freeze().items()}
    given = {name: (value.shape, value.dtype) for name, value in tensors.items()}
    if expected != given:
        wrong = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
        raise CheckpointError(f"the context model's weights do not fit its configuration: {', '.join(wrong[:3])}")
    network = LatentContextNetwork(config, integer_layers(pattern, tensors)).float()
    with torch.no_grad():
        for name, value in network.named_parameters():
            value.copy_(tensors[name])
    return network.eval().requires_grad_(False)
