"""The context model of a latent of many channels: what `context` is for indices, for integers (D, h, w) at any rate.

The grid is coded in the passes of `lattice`. A position sees the integers of its taps, summed up in one embedding
each, and the level that the latent was coded at; its own channels are coded in groups, each group knowing those before.
Everything is in exact integers, see `gosvae.nn.integer`.

Axis legend: N positions, T taps, D channels, G channels of a group, V values, E values of an embedding, C features,
A anchors, h and w latent positions.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.config import Config
from gosvae.entropy.base import (
    TABLE_BITS,
    Batch,
    EntropyModel,
    IndexArray,
    SymbolTables,
    batches_bits,
    check_shape,
)
from gosvae.entropy.lattice import KINDS, Part, is_edge, passes, reach, taps
from gosvae.entropy.logits import LOGIT_BITS, counts_of_logits
from gosvae.errors import BitstreamError, CheckpointError
from gosvae.nn.integer import (
    LARGEST_WEIGHT,
    UNIT_BITS,
    IntegerLinear,
    QuantizedLinear,
    exact_arithmetic,
    frozen_layers,
    integer_layers,
    integer_relu,
    quantized_relu,
    round_to_units,
    thaw_layers,
)

LEVELS = 256
"""Levels of quality: one byte of a stream."""
FINEST_WEIGHT = 16731851
"""Of a table of one symbol: floor(2**24 * 2**(-1/256)), so that every symbol takes at least 1/256 bit."""
LEAST_BITS = 1 / 256
CHUNK = 4096
"""Positions that are evaluated at once: bounds the memory. Streams depend on it."""
_LIMIT = LARGEST_WEIGHT * 2.0**-UNIT_BITS
"""Largest magnitude of an embedding in real units."""


class LatentContextConfig(Config):
    """A context model of a latent.

    Attributes:
        channels: D. bound: L; integers are in -L..L.
        group: G, channels that are coded at once; it divides D.
        anchors: A; what is learned for each level is interpolated between so many.
        embedding_width: E. width: C. blocks: residual blocks of two layers each.
        taps, refinements: as in `gosvae.entropy.context.ContextConfig`.
    """

    channels: int = Field(ge=1, le=256)
    bound: int = Field(default=7, ge=1, le=63)
    group: int = Field(default=4, ge=1)
    anchors: int = Field(default=9, ge=2, le=LEVELS)
    embedding_width: int = Field(default=32, ge=1)
    width: int = Field(default=192, ge=1)
    blocks: int = Field(default=1, ge=0)
    taps: tuple[PositiveInt, PositiveInt, PositiveInt] = (12, 16, 24)
    refinements: int = Field(default=3, ge=1, le=4)

    @model_validator(mode="after")
    def _whole_groups(self) -> LatentContextConfig:
        if self.channels % self.group:
            raise ValueError(f"{self.channels} channels are not whole groups of {self.group}")
        return self

    @property
    def values(self) -> int:
        """V, different values of a channel."""
        return 2 * self.bound + 1

    @property
    def groups(self) -> int:
        """How many groups a position has."""
        return self.channels // self.group


def interpolation(anchors: int) -> Tensor:
    """Weights (256, A), multiples of 1 / 255, of the two anchors beside each level."""
    places_L = torch.arange(LEVELS, dtype=torch.float64) * (anchors - 1)
    low_L = (places_L // (LEVELS - 1)).clamp(max=anchors - 2).long()
    high_L = (places_L - low_L * (LEVELS - 1)) / (LEVELS - 1)
    weights_LA = torch.zeros(LEVELS, anchors, dtype=torch.float64)
    weights_LA.scatter_(1, low_L[:, None], (1.0 - high_L)[:, None])
    weights_LA.scatter_(1, low_L[:, None] + 1, high_L[:, None])
    return weights_LA.float()


Linear = QuantizedLinear | IntegerLinear


class LatentContextNetwork(nn.Module):
    """From neighbours to logits; trains (`QuantizedLinear`, real units) and runs (integers) by the same code."""

    def __init__(self, config: LatentContextConfig, linear: Callable[..., Linear] | None = None) -> None:
        super().__init__()
        self.config = config
        self.integer = linear is not None
        make = linear or QuantizedLinear
        width, embedding, values = config.width, config.embedding_width, config.values
        rows = config.channels * values + 1  # the last row stands for a position that is not known
        levels = LEVELS if self.integer else config.anchors
        scale = 0.5 / config.channels**0.5
        self.embedding = nn.Parameter(scale * torch.randn(rows, embedding))
        self.levels = nn.Parameter(0.5 * torch.randn(levels, embedding))
        used_taps = [min(config.taps[kind], len(taps(kind, 10**6))) for kind in range(KINDS)]
        # The last one is for the first pass, where nothing but the level is known.
        self.first = nn.ModuleList(
            make(embedding * (n + 1), width, n_biases=config.refinements, largest_input=LARGEST_WEIGHT)
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
        return table if self.integer else round_to_units(table.clamp(-_LIMIT, _LIMIT))

    def _relu(self, x: Tensor) -> Tensor:
        return integer_relu(x) if self.integer else quantized_relu(x)

    def level_table(self) -> Tensor:
        """Embedding (256, E) of each level."""
        if self.integer:
            return self.levels
        interpolation_LA: Tensor = self.get_buffer("interpolation_LA")
        return self._signed(interpolation_LA @ self.levels)

    def embed(self, rows_ND: Tensor) -> Tensor:
        """Embeddings (N, E) of positions, given the rows of their integers: see `rows`."""
        x_NE = F.embedding_bag(rows_ND, self._signed(self.embedding), mode="sum")
        limit = LARGEST_WEIGHT if self.integer else _LIMIT
        return x_NE.clamp(-limit, limit)

    def unknown(self) -> Tensor:
        """Embedding (E,) of a position that is not known."""
        return self._signed(self.embedding[-1])

    def rows(self, symbols_ND: Tensor) -> Tensor:
        """Rows (N, D) of the embedding table for symbols 0..2L of all channels."""
        offsets_D = torch.arange(self.config.channels, device=symbols_ND.device) * self.config.values
        return symbols_ND + offsets_D

    def look(self, x_NI: Tensor, kind: int | None, refinement: int) -> Tensor:
        """What the first layer of a kind of pass makes of its taps, (N, C).

        `x_NI` are the embeddings of the taps and, last, of the level.
        """
        return self._relu(self.first[KINDS if kind is None else kind](x_NI, refinement))

    def features(self, h_NC: Tensor) -> Tensor:
        """Features (N, C) of what `look` gave, by the layers that all passes share."""
        for block in self.blocks:
            inner, outer = block.children()
            h_NC = self._relu(h_NC + outer(self._relu(inner(h_NC))))
        return h_NC

    def logits(self, h_NC: Tensor, group: int) -> Tensor:
        """Logits (N, G, V) of a group: in units of 1/16 bit (integers), or in bits while training."""
        x_NO: Tensor = self.heads[group](h_NC)
        x_NO = x_NO.floor() if self.integer else round_to_units(x_NO, LOGIT_BITS - UNIT_BITS)
        return x_NO.view(len(x_NO), self.config.group, self.config.values)

    def with_group(self, h_NC: Tensor, group: int, symbols_NG: Tensor) -> Tensor:
        """Features (N, C) for the next group, when the symbols 0..2L of this one are known."""
        offsets_G = torch.arange(self.config.group, device=symbols_NG.device) * self.config.values
        added_NC = F.embedding_bag(symbols_NG + offsets_G, self._signed(self.known[group]), mode="sum")
        return self._relu(self.known_layers[group](self._relu(h_NC + added_NC)))

    @torch.no_grad()
    def freeze(self) -> dict[str, Tensor]:
        """The network in integers, by name: int8 and int32 tensors."""
        tensors = frozen_layers(self)
        tables = {"embedding": self._signed(self.embedding), "levels": self.level_table()}
        tables |= {f"known.{i}": self._signed(table) for i, table in enumerate(self.known)}
        return tensors | {name: (table * 2.0**UNIT_BITS).to(torch.int8).cpu() for name, table in tables.items()}

    @torch.no_grad()
    def thaw(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `freeze`, for training that goes on from a finished model.

        All but the levels is as it was; their anchors are those that come nearest to the frozen table.

        Raises:
            CheckpointError: the tensors are not those of such a network.
        """
        integer_network(self.config, tensors)  # checks them
        thaw_layers(self, tensors)
        unit = 2.0**-UNIT_BITS
        self.embedding.copy_(tensors["embedding"].float() * unit)
        for i, table in enumerate(self.known):
            table.copy_(tensors[f"known.{i}"].float() * unit)
        self.levels.copy_(torch.linalg.lstsq(self.get_buffer("interpolation_LA"), tensors["levels"] * unit).solution)


def integer_network(config: LatentContextConfig, tensors: dict[str, Tensor]) -> LatentContextNetwork:
    """The network that `LatentContextNetwork.freeze` made integers of.

    Raises:
        CheckpointError: a tensor is missing, is not expected, or does not fit the configuration.
    """
    pattern = LatentContextNetwork(config)
    expected = {name: (value.shape, value.dtype) for name, value in pattern.freeze().items()}
    given = {name: (value.shape, value.dtype) for name, value in tensors.items()}
    if expected != given:
        wrong = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
        raise CheckpointError(f"the context model's weights do not fit its configuration: {', '.join(wrong[:3])}")
    network = LatentContextNetwork(config, integer_layers(pattern, tensors))
    with torch.no_grad():
        for name, value in network.named_parameters():
            value.copy_(tensors[name])
    return network.eval().requires_grad_(False)


class LatentContextModel(EntropyModel):
    """A trained context model at one level, ready to code; exact on every device.

    It codes a latent (D, h, w) of symbols 0..2L that is stacked to a grid (D * h, w) of V indices.

    Args:
        config: its shape.
        network: of `integer_network`.
        level: 0..255, which the latent was coded at.
        mark: see `EntropyModel.mark`.
    """

    model_id = 4
    name = "latent-context"

    def __init__(
        self, config: LatentContextConfig, network: LatentContextNetwork, level: int, mark: bytes = b""
    ) -> None:
        self.config, self.network, self.level, self.mark = config, network, level, mark
        self.codebook_size = config.values
        self.device = network.embedding.device

    def least_bits(self, n_indices: int) -> float:
        """See `EntropyModel.least_bits`: 1/256 bit for each symbol."""
        return n_indices * LEAST_BITS

    def estimated_bits(self, indices_hw: npt.NDArray[Any]) -> float:
        """Cross-entropy of the stacked symbols (D * h, w) under the network's distributions, in bits."""
        return batches_bits(self, indices_hw)

    def bits_of_values(self, indices_hw: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Bits (D * h, w, V) that each value would take in the place of each symbol, all others being as they are.

        What a change does to the bits of symbols that are coded later is not in it.
        """
        bits_NV = np.empty((indices_hw.size, self.codebook_size), np.float32)
        for batch in self.known_batches(indices_hw):
            weights_NK = batch.tables.weights_NK if isinstance(batch.tables, SymbolTables) else batch.tables.weights_TK
            bits_NV[batch.where] = TABLE_BITS - np.log2(weights_NK.astype(np.float32))
        return bits_NV.reshape(*indices_hw.shape, -1)

    def batches(self, shape_hw: tuple[int, int]) -> Generator[Batch, IndexArray, IndexArray]:
        """See `EntropyModel.batches`: for each chunk of each pass one batch for every group of channels.

        Raises:
            BitstreamError: the shape is not that of a stacked latent.
        """
        plane_hw = self._plane(shape_hw)
        grid = _Grid(self.network, self.level, plane_hw)
        symbols_ND = np.zeros((plane_hw[0] * plane_hw[1], self.config.channels), np.int64)
        for parts in passes(self.config.refinements):
            for part in parts:
                for where in _chunks(part, plane_hw):
                    symbols_ND[where] = yield from self._groups(where, len(symbols_ND), grid.look(part, where))
            done = np.concatenate([part.positions(plane_hw) for part in parts])
            grid.know(done, symbols_ND[done])
        return symbols_ND.T.reshape(-1)

    def _groups(self, where: IndexArray, plane: int, h_NC: Tensor) -> Generator[Batch, IndexArray, IndexArray]:
        """The batches of one chunk with its features; returns its symbols (N, D)."""
        found: list[IndexArray] = []
        for g in range(self.config.groups):
            with exact_arithmetic(self.device):
                if g > 0:
                    h_NC = self.network.with_group(h_NC, g - 1, torch.from_numpy(found[-1]).to(self.device))
                logits_NGV = self.network.logits(h_NC, g)
            symbols = yield self._batch(where, plane, g, logits_NGV)
            found.append(symbols.reshape(len(where), self.config.group))
        return np.concatenate(found, axis=1)

    def known_batches(self, indices_hw: npt.NDArray[Any]) -> Iterator[Batch]:
        """See `EntropyModel.known_batches`: all passes are evaluated together."""
        height, width = self._plane((indices_hw.shape[0], indices_hw.shape[1]))
        plane = height * width
        symbols_ND = indices_hw.reshape(self.config.channels, plane).T.astype(np.int64)
        grid = _Grid(self.network, self.level, (height, width))
        grid.know(np.arange(plane), symbols_ND)
        parts = [part for parts in passes(self.config.refinements) for part in parts]
        runs = [(part, where) for part in parts for where in _chunks(part, (height, width))]
        while runs:
            count = 0
            taken: list[tuple[Part, IndexArray]] = []
            while runs and (not taken or count + len(runs[0][1]) <= CHUNK):
                taken.append(runs.pop(0))
                count += len(taken[-1][1])
            yield from self._known_runs(taken, grid, symbols_ND)

    def _known_runs(self, runs: list[tuple[Part, IndexArray]], grid: _Grid, symbols_ND: IndexArray) -> Iterator[Batch]:
        """The batches of some chunks, in order."""
        config = self.config
        h_NC = torch.cat([grid.look(part, where, all_known=True) for part, where in runs])
        order_N = np.concatenate([where for _, where in runs])
        logits = []
        with exact_arithmetic(self.device):
            known_ND = torch.from_numpy(symbols_ND[order_N]).to(self.device)
            for g in range(config.groups):
                logits.append(self.network.logits(h_NC, g))
                if g + 1 < config.groups:
                    h_NC = self.network.with_group(h_NC, g, known_ND[:, g * config.group : (g + 1) * config.group])
        first = 0
        for _, where in runs:
            last = first + len(where)
            for g, logits_NGV in enumerate(logits):
                yield self._batch(where, len(symbols_ND), g, logits_NGV[first:last])
            first = last

    def _batch(self, where: IndexArray, plane: int, group: int, logits_NGV: Tensor) -> Batch:
        """One group of channels of some positions."""
        counts_NV = counts_of_logits(logits_NGV.flatten(0, 1).to(torch.int32).cpu().numpy())
        channels_G = np.arange(group * self.config.group, (group + 1) * self.config.group)
        places_N = (where[:, None] + channels_G * plane).reshape(-1)
        return Batch(places_N, SymbolTables(counts_NV, FINEST_WEIGHT))

    def _plane(self, shape_hw: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the latent that is stacked to this shape."""
        check_shape(shape_hw)
        rows, width = shape_hw
        if rows % self.config.channels:
            raise BitstreamError(f"a grid of {rows} rows does not hold {self.config.channels} channels")
        return rows // self.config.channels, width


class _Grid:
    """Embeddings of what is known of a latent (h, w), with a margin of unknown positions."""

    def __init__(self, network: LatentContextNetwork, level: int, shape_hw: tuple[int, int]) -> None:
        self._network, self._device = network, network.embedding.device
        self._reach = reach(network.config.refinements)
        self._width, self._stride = shape_hw[1], shape_hw[1] + 2 * self._reach
        with exact_arithmetic(self._device):
            self._known_NE = network.unknown().repeat((shape_hw[0] + 2 * self._reach) * self._stride, 1)
            self._level_E = network.level_table()[level]

    def know(self, where: IndexArray, symbols_ND: IndexArray) -> None:
        """Positions and their symbols 0..2L of all channels."""
        with exact_arithmetic(self._device):
            rows_ND = self._network.rows(torch.from_numpy(symbols_ND).to(self._device))
            self._known_NE[self._places(where)] = self._network.embed(rows_ND)

    def look(self, part: Part, where: IndexArray, *, all_known: bool = False) -> Tensor:
        """Features (N, C) of positions of a part of a pass.

        Args:
            all_known: the grid holds positions that are coded later: hide those that are.
        """
        most = 0 if part.kind is None else self._network.config.taps[part.kind]
        pairs = () if part.kind is None else taps(part.kind, most)
        distances = [part.spacing * (dy * self._stride + dx) for dy, dx in pairs]
        offsets_T = torch.tensor(distances, dtype=torch.int64, device=self._device)
        with exact_arithmetic(self._device):
            x_NTE = self._known_NE[self._places(where)[:, None] + offsets_T]
            if all_known and not part.sees_edges:
                x_NTE[:, [is_edge(part.kind or 0, pair) for pair in pairs]] = self._network.unknown()
            x_NI = torch.cat([x_NTE.flatten(1), self._level_E.expand(len(where), -1)], dim=1)
            return self._network.features(self._network.look(x_NI, part.kind, part.level))

    def _places(self, where: IndexArray) -> Tensor:
        """Positions (N,) in the flattened grid with its margin."""
        rows, columns = np.divmod(where, self._width)
        return torch.from_numpy((rows + self._reach) * self._stride + columns + self._reach).to(self._device)


def _chunks(part: Part, shape_hw: tuple[int, int]) -> Iterator[IndexArray]:
    """The positions of a part, as many at a time as are evaluated at once; nothing where there are none."""
    positions = part.positions(shape_hw)
    return (where for where in np.split(positions, range(CHUNK, len(positions), CHUNK)) if len(where))
