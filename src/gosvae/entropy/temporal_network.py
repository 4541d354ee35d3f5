"""Network of `gosvae.entropy.temporal`: the network of a latent's context model that also sees a reference frame.

The reference is in three places: as embeddings of the positions around the coded one, as features of all channels at
the coded position, and as features and logits of the group that is coded. It is trained in real units and runs in
integers, see `gosvae.nn.integer`.

Axis legend: N positions, T taps, D channels, G channels of a group, V values, Y ages, E values of an embedding, C
features, A anchors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.config import Config
from gosvae.entropy.latent_network import (
    LEVELS,
    LatentContextConfig,
    LatentContextNetwork,
    Linear,
    interpolation,
    signed_units,
)
from gosvae.entropy.logits import LOGIT_BITS
from gosvae.errors import CheckpointError
from gosvae.nn.integer import (
    LARGEST_WEIGHT,
    UNIT_BITS,
    integer_layers,
    integer_relu_,
    quantized_relu,
    round_to_units,
    summed_rows,
)
from gosvae.weights import check_amount

ACTIVITIES = 8
"""Number of classes of activity: three bits of a frame."""
AGES = 4
"""Number of ages of a symbol of a reference, see `Memory`."""
_DIRECT_BITS = 3
"""Fractional bits of the logits that a reference's symbol gives directly."""
DIRECT_SCALE = 2.0 ** (LOGIT_BITS - _DIRECT_BITS)
"""Number of units of the network's logits in one unit of the direct logits."""
_REACH = 2


def reference_taps(most: int) -> tuple[tuple[int, int], ...]:
    """Return the offsets (dy, dx) of the nearest positions of the reference, at most `most`, the same one first."""
    span = range(-_REACH, _REACH + 1)
    offsets = ((dy, dx) for dy in span for dx in span)
    nearest = sorted(offsets, key=lambda offset: (offset[0] ** 2 + offset[1] ** 2, offset))
    return tuple(nearest[:most])


class TemporalConfig(Config):
    """Sizes of a temporal context model.

    Attributes:
        context: sizes of the part that sees the frame itself; `channels`, `bound`, `group` and `first_levels` are those
            of the codec.
        taps: number of positions of the reference that a position sees, nearest first.
    """

    neutral: ClassVar[Mapping[str, Any]] = {"taps": 13}

    context: LatentContextConfig
    taps: int = Field(default=13, ge=1, le=25)


@dataclass(frozen=True, eq=False)
class Reference:
    """What the network knows of a reference at some positions.

    Attributes:
        inputs_NI: embeddings of the taps, of the level of the reference and of the activity, one after the other.
        added_NC: features of all channels at the positions themselves.
        rows_ND: symbols and ages, `age * V + symbol`, at the positions themselves.
    """

    inputs_NI: Tensor
    added_NC: Tensor
    rows_ND: Tensor


class TemporalContextNetwork(nn.Module):
    """Network from neighbours and a reference to logits; `linear` as in `LatentContextNetwork`."""

    offsets_D: Tensor
    """First row of each channel in the tables of the reference."""

    def __init__(self, config: TemporalConfig, linear: Callable[..., Linear] | None = None) -> None:
        super().__init__()
        self.config = config
        self.integer = linear is not None
        context = config.context
        embedding, group_rows = context.embedding_width, context.group * AGES * context.values
        rows = context.channels * AGES * context.values
        self.space = LatentContextNetwork(context, linear, more_inputs=config.taps + 2)
        per_channel = AGES * context.values
        self.register_buffer("offsets_D", torch.arange(context.channels) * per_channel, persistent=False)
        scale = 0.5 / context.channels**0.5
        self.embedding = nn.Parameter(scale * torch.randn(rows + 1, embedding))  # the last row is outside of the grid
        self.levels = nn.Parameter(0.5 * torch.randn(LEVELS if self.integer else context.anchors, embedding))
        self.activities = nn.Parameter(0.5 * torch.randn(ACTIVITIES, embedding))
        self.centre = nn.Parameter(torch.zeros(rows, context.width))
        self.near = nn.ParameterList(
            nn.Parameter(torch.zeros(group_rows, context.width)) for _ in range(context.groups)
        )
        self.direct = nn.Parameter(torch.zeros(rows, context.values))
        if not self.integer:
            self.register_buffer("interpolation_LA", interpolation(context.anchors), persistent=False)

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
        """Return the embedding (256, E) of each level of the reference."""
        if self.integer:
            return self.levels
        interpolation_LA: Tensor = self.get_buffer("interpolation_LA")
        return self._signed(interpolation_LA @ self.levels)

    def activity_table(self) -> Tensor:
        """Return the embedding (8, E) of each class of activity."""
        return self._signed(self.activities)

    def embed(self, rows_ND: Tensor) -> Tensor:
        """Return the embeddings (N, E) of positions of the reference, given `age * V + symbol` of all channels."""
        x_NE = self._sum_of_rows(self.embedding, self._table_rows(rows_ND))
        limit = LARGEST_WEIGHT if self.integer else LARGEST_WEIGHT * 2.0**-UNIT_BITS
        return x_NE.clamp(-limit, limit)

    def outside(self) -> Tensor:
        """Return the embedding (E,) of a position outside of the grid."""
        return self._signed(self.embedding[-1])

    def centred(self, rows_ND: Tensor) -> Tensor:
        """Return the features (N, C) of all channels of the reference at the positions themselves."""
        return self._sum_of_rows(self.centre, self._table_rows(rows_ND))

    def _table_rows(self, rows_ND: Tensor) -> Tensor:
        return rows_ND + self.offsets_D[: rows_ND.shape[1]]

    def with_reference(self, h_NC: Tensor, group: int, rows_ND: Tensor) -> Tensor:
        """Return the features (N, C) of a group with the reference's symbols of this group."""
        size = self.config.context.group
        rows_NG = rows_ND[:, group * size : (group + 1) * size]
        return self._relu(h_NC + self._sum_of_rows(self.near[group], self._table_rows(rows_NG)))

    def logits(self, h_NC: Tensor, group: int, rows_ND: Tensor) -> Tensor:
        """Return the logits (N, G, V) of a group for the features of `with_reference`, in units as the space part."""
        size = self.config.context.group
        channels = slice(group * size, (group + 1) * size)
        rows_NG = rows_ND[:, channels] + self.offsets_D[channels]
        if self.integer:
            direct_NGV = F.embedding(rows_NG, self.direct)
            return self.space.logits(h_NC, group).add_(direct_NGV, alpha=DIRECT_SCALE)
        limit = LARGEST_WEIGHT * 2.0**-_DIRECT_BITS
        direct = round_to_units(self.direct.clamp(-limit, limit), _DIRECT_BITS - UNIT_BITS)
        return self.space.logits(h_NC, group) + F.embedding(rows_NG, direct)

    @torch.no_grad()
    def start_from(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the weights of a codec's own context model, as it is frozen; the reference then has little influence.

        Raises:
            CheckpointError: the tensors do not fit the sizes of the part that sees the frame itself.
        """
        donor = LatentContextNetwork(self.config.context)
        donor.thaw(dict(tensors))
        state = self.space.state_dict()
        for name, value in donor.state_dict().items():
            if state[name].shape != value.shape:  # a first layer, with further inputs
                state[name].mul_(0.2)[:, : value.shape[1]] = value
            else:
                state[name].copy_(value)

    @torch.no_grad()
    def freeze(self) -> dict[str, Tensor]:
        """Return the network in integers, by name: int8 and int32 tensors."""
        tensors = {f"space.{name}": value for name, value in self.space.freeze().items()}
        tables = {"embedding": self._signed(self.embedding), "levels": self.level_table()}
        tables |= {"activities": self.activity_table(), "centre": self._signed(self.centre)}
        tables |= {f"near.{i}": self._signed(table) for i, table in enumerate(self.near)}
        tensors |= {name: (table * 2.0**UNIT_BITS).to(torch.int8).cpu() for name, table in tables.items()}
        direct = (self.direct * 2.0**_DIRECT_BITS + 0.5).floor().clamp(-LARGEST_WEIGHT, LARGEST_WEIGHT)
        return tensors | {"direct": direct.to(torch.int8).cpu()}


def integer_temporal_network(config: TemporalConfig, tensors: Mapping[str, Tensor]) -> TemporalContextNetwork:
    """Return the network of the integers that `TemporalContextNetwork.freeze` returned.

    Raises:
        CheckpointError: a tensor is missing, is not expected, or does not fit the configuration.
    """
    check_amount(lambda: TemporalContextNetwork(config), tensors)
    pattern = TemporalContextNetwork(config).float()
    expected = {name: (value.shape, value.dtype) for name, value in pattern.freeze().items()}
    given = {name: (value.shape, value.dtype) for name, value in tensors.items()}
    if expected != given:
        wrong = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
        raise CheckpointError(f"the temporal model's weights do not fit its configuration: {', '.join(wrong[:3])}")
    network = TemporalContextNetwork(config, integer_layers(pattern, dict(tensors))).float()
    with torch.no_grad():
        for name, value in network.named_parameters():
            value.copy_(tensors[name])
    return network.eval().requires_grad_(False)
