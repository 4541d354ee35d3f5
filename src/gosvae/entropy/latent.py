"""Context model of latents with many channels: it gives the probability of each integer of (D, h, w) at a level.

The grid is coded in the passes of `lattice`. A position sees the level of the latent and the integers of its taps, with
one embedding for each tap. Its own channels are coded in groups, and each group sees the groups before it. All
arithmetic is in exact integers, see `gosvae.nn.integer`.

Axis legend: N positions, T taps, D channels, G channels of a group, V values, E values of an embedding, C features,
h and w latent positions.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from gosvae.entropy.base import (
    Batch,
    EntropyModel,
    IndexArray,
    SymbolTables,
    batches_bits,
    check_shape,
)
from gosvae.entropy.ids import EntropyModelId
from gosvae.entropy.latent_network import LatentContextConfig, LatentContextNetwork
from gosvae.entropy.lattice import Part, is_edge, passes, reach, taps
from gosvae.entropy.logits import LOGIT_BITS, counts_of_logits
from gosvae.errors import BitstreamError
from gosvae.nn.integer import exact_arithmetic

FINEST_WEIGHT = 16731851
"""Largest weight of a symbol in a table: floor(2**24 * 2**(-1/256)), so that every symbol takes at least 1/256 bit."""
LEAST_BITS = 1 / 256
"""Least number of bits that a coded symbol takes."""
CHUNK = 4096
"""Number of positions that are evaluated at once, which bounds the memory. Streams depend on it."""


class Conditions:
    """All that a context model knows at a position besides the latent itself: nothing, in this base.

    Args:
        network: network in integers.
    """

    def __init__(self, network: LatentContextNetwork) -> None:
        self.network = network

    def inputs(self, where: IndexArray) -> tuple[Tensor, Tensor] | None:
        """Return further inputs (N, I) of the first layer at some positions, and features (N, C) added to its result.

        None means that there are none.
        """
        del where
        return None

    def grouped(self, h_NC: Tensor, group: int, where: IndexArray) -> tuple[Tensor, Tensor]:
        """Return the features (N, C) for a group at some positions, and its logits (N, G, V)."""
        del where
        return h_NC, self.network.logits(h_NC, group)


_Runs = list[tuple[Part, IndexArray]]
"""Parts of passes, each with the positions of one chunk of it."""


class LatentContextModel(EntropyModel):
    """Use this when a variable-rate codec writes its latent.

    Compared with `FixedLength`, the only other model of that codec, it takes a fraction of the bytes at low rates and
    more time. `ContextModel` is the corresponding model for the indices of a VQ codec.

    It codes a latent (D, h, w) of symbols 0..2L that is stacked to a grid (D * h, w) of V indices, at one level, with
    the same result on every device.

    Args:
        config: sizes of the model.
        network: network in integers, as `integer_network` makes it.
        level: level of the latent, 0..255.
        mark: mark of the model, see `EntropyModel.mark`.
        conditions: what the model knows besides the latent; None means nothing.
    """

    model_id = EntropyModelId.LATENT_CONTEXT
    name = "latent-context"

    def __init__(
        self,
        config: LatentContextConfig,
        network: LatentContextNetwork,
        level: int,
        mark: bytes = b"",
        conditions: Conditions | None = None,
    ) -> None:
        self._conditions = conditions or Conditions(network)
        self.config, self.network, self.level, self.mark = config, network, level, mark
        self.codebook_size = config.values
        self.device = network.embedding.device
        self._groups_coded = config.groups_at(level)

    def least_bits(self, n_indices: int) -> float:
        """See `EntropyModel.least_bits`: the bound is 1/256 bit for each symbol that is coded."""
        return n_indices * self._groups_coded / self.config.groups * LEAST_BITS

    def estimated_bits(self, indices_hw: npt.NDArray[Any]) -> float:
        """Return the cross-entropy of the stacked symbols (D * h, w) under the network's distributions, in bits."""
        return batches_bits(self, indices_hw)

    def bits_of_values(self, indices_hw: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return the bits (D * h, w, V) that each symbol would take with each other value, if the others do not change.

        The effect of a change on the bits of symbols that are coded later is ignored.
        """
        symbols_ND, plane_hw = self._unstacked(indices_hw)
        bits_NDV = np.full((*symbols_ND.shape, self.codebook_size), np.inf, np.float32)
        bits_NDV[:, :, self.config.bound] = 0.0  # for channels that are not coded at this level
        for runs, logits in self._known_logits(symbols_ND, plane_hw):
            order_N = np.concatenate([where for _, where in runs])
            logits_NDV = torch.cat(logits, dim=1) * (math.log(2.0) / 2**LOGIT_BITS)
            bits_NDV[order_N, : logits_NDV.shape[1]] = (
                F.log_softmax(logits_NDV, dim=2).div_(-math.log(2.0)).cpu().numpy()
            )
        return bits_NDV.transpose(1, 0, 2).reshape(*indices_hw.shape, -1)

    def batches(self, shape_hw: tuple[int, int]) -> Generator[Batch, IndexArray, IndexArray]:
        """See `EntropyModel.batches`: each chunk of each pass has one batch for every group of channels.

        Raises:
            BitstreamError: the shape is not that of a stacked latent.
        """
        plane_hw = self._plane(shape_hw)
        grid = _Grid(self._conditions, self.level, plane_hw)
        symbols_ND = np.zeros((plane_hw[0] * plane_hw[1], self.config.channels), np.int64)
        for parts in passes(self.config.refinements):
            for part in parts:
                for where in _chunks(part, plane_hw):
                    h_NC = self._features(grid.look(part, where))
                    symbols_ND[where] = yield from self._groups(where, len(symbols_ND), h_NC)
            done = np.concatenate([part.positions(plane_hw) for part in parts])
            grid.know(done, symbols_ND[done])
        return symbols_ND.T.reshape(-1)

    def _groups(self, where: IndexArray, plane: int, h_NC: Tensor) -> Generator[Batch, IndexArray, IndexArray]:
        """Yield the batches of one chunk, given its features, and return its symbols (N, D)."""
        found: list[IndexArray] = []
        for g in range(self._groups_coded):
            with exact_arithmetic(self.device):
                if g > 0:
                    h_NC = self.network.with_group(h_NC, g - 1, torch.from_numpy(found[-1]).to(self.device))
                h_NC, logits_NGV = self._conditions.grouped(h_NC, g, where)
            symbols = yield Batch(self._symbol_places(where, plane, g), self._tables(logits_NGV))
            found.append(symbols.reshape(len(where), self.config.group))
        silent = self.config.channels - self._groups_coded * self.config.group
        return np.pad(np.concatenate(found, axis=1), ((0, 0), (0, silent)), constant_values=self.config.bound)

    def known_batches(self, indices_hw: npt.NDArray[Any], *, parts: int = 1) -> Iterator[Batch]:
        """See `EntropyModel.known_batches`: the passes are evaluated together."""
        symbols_ND, plane_hw = self._unstacked(indices_hw)
        for runs, logits in self._known_logits(symbols_ND, plane_hw, -(-len(symbols_ND) // parts)):
            # One table for all chunks: many small ones would take most of the time.
            tables = [self._tables(logits_NGV) for logits_NGV in logits]
            first = 0
            for _, where in runs:
                last = first + self.config.group * len(where)
                for g, table in enumerate(tables):
                    yield Batch(self._symbol_places(where, len(symbols_ND), g), table.part(slice(first, last)))
                first = last

    def _known_logits(
        self, symbols_ND: IndexArray, plane_hw: tuple[int, int], most: int = CHUNK
    ) -> Iterator[tuple[_Runs, list[Tensor]]]:
        """Yield chunks in the order of coding, up to `most` positions at a time, with logits (N, G, V) of groups."""
        config = self.config
        grid = _Grid(self._conditions, self.level, plane_hw)
        grid.know(np.arange(len(symbols_ND)), symbols_ND)
        parts = [part for parts in passes(config.refinements) for part in parts]
        waiting = [(part, where) for part in parts for where in _chunks(part, plane_hw)]
        while waiting:
            runs = [waiting.pop(0)]
            while waiting and sum(len(where) for _, where in runs) + len(waiting[0][1]) <= min(most, CHUNK):
                runs.append(waiting.pop(0))
            h_NC = self._features(torch.cat([grid.look(part, where, all_known=True) for part, where in runs]))
            order_N = np.concatenate([where for _, where in runs])
            known_ND = torch.from_numpy(symbols_ND[order_N]).to(self.device)
            logits = []
            with exact_arithmetic(self.device):
                for g in range(self._groups_coded):
                    h_NC, logits_NGV = self._conditions.grouped(h_NC, g, order_N)
                    logits.append(logits_NGV)
                    if g + 1 < self._groups_coded:
                        h_NC = self.network.with_group(h_NC, g, known_ND[:, g * config.group : (g + 1) * config.group])
            yield runs, logits

    def _features(self, h_NC: Tensor) -> Tensor:
        with exact_arithmetic(self.device):
            return self.network.features(h_NC)

    def _tables(self, logits_NGV: Tensor) -> SymbolTables:
        """Return the tables of a group of channels, position by position."""
        logits_NV = logits_NGV.flatten(0, 1).to(torch.int32).cpu().numpy()
        return SymbolTables(counts_of_logits(logits_NV), FINEST_WEIGHT)

    def _symbol_places(self, where: IndexArray, plane: int, group: int) -> IndexArray:
        """Return the places in the stacked grid of the symbols of a group at some positions."""
        channels_G = np.arange(group * self.config.group, (group + 1) * self.config.group)
        return (where[:, None] + channels_G * plane).reshape(-1)

    def _unstacked(self, indices_hw: npt.NDArray[Any]) -> tuple[IndexArray, tuple[int, int]]:
        """Return the symbols (N, D) of a stacked latent, position by position, and its height and width."""
        plane_hw = self._plane((indices_hw.shape[0], indices_hw.shape[1]))
        symbols_ND = indices_hw.reshape(self.config.channels, -1).T.astype(np.int64)
        if (symbols_ND[:, self._groups_coded * self.config.group :] != self.config.bound).any():
            raise BitstreamError(f"a channel that is not coded at level {self.level} is not 0")
        return symbols_ND, plane_hw

    def _plane(self, shape_hw: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of the latent that is stacked to this shape."""
        check_shape(shape_hw)
        rows, width = shape_hw
        if rows % self.config.channels:
            raise BitstreamError(f"a grid of {rows} rows does not hold {self.config.channels} channels")
        return rows // self.config.channels, width


class _Grid:
    """Embeddings of the known positions of a latent (h, w), with a margin of unknown positions."""

    def __init__(self, conditions: Conditions, level: int, shape_hw: tuple[int, int]) -> None:
        network = conditions.network
        self._conditions, self._network, self._device = conditions, network, network.embedding.device
        self._reach = reach(network.config.refinements)
        self._width, self._stride = shape_hw[1], shape_hw[1] + 2 * self._reach
        with exact_arithmetic(self._device):
            self._known_NE = network.unknown().repeat((shape_hw[0] + 2 * self._reach) * self._stride, 1)
            self._level_E = network.level_table()[level]

    def know(self, where: IndexArray, symbols_ND: IndexArray) -> None:
        """Store the symbols 0..2L of all channels of some positions."""
        with exact_arithmetic(self._device):
            rows_ND = self._network.rows(torch.from_numpy(symbols_ND).to(self._device))
            self._known_NE[self._places(where)] = self._network.embed(rows_ND)

    def look(self, part: Part, where: IndexArray, *, all_known: bool = False) -> Tensor:
        """Return the output (N, C) of the first layer at positions of a part of a pass.

        Args:
            part: part of a pass.
            where: raster numbers of the positions.
            all_known: whether the grid also has symbols that are coded later; they are hidden.
        """
        most = 0 if part.kind is None else self._network.config.taps[part.kind]
        pairs = () if part.kind is None else taps(part.kind, most)
        distances = [part.spacing * (dy * self._stride + dx) for dy, dx in pairs]
        offsets_T = torch.tensor(distances, dtype=torch.int64, device=self._device)
        with exact_arithmetic(self._device):
            x_NTE = self._known_NE[self._places(where)[:, None] + offsets_T]
            if all_known and not part.sees_edges:
                x_NTE[:, [is_edge(part.kind or 0, pair) for pair in pairs]] = self._network.unknown()
            known = [x_NTE.flatten(1), self._level_E.expand(len(where), -1)]
            more_NI, added_NC = self._conditions.inputs(where) or (None, None)
            x_NI = torch.cat(known if more_NI is None else [*known, more_NI], dim=1)
            return self._network.look(x_NI, part.kind, part.level, added_NC)

    def _places(self, where: IndexArray) -> Tensor:
        """Return the positions (N,) in the flattened grid with its margin."""
        rows, columns = np.divmod(where, self._width)
        return torch.from_numpy((rows + self._reach) * self._stride + columns + self._reach).to(self._device)


def _chunks(part: Part, shape_hw: tuple[int, int]) -> Iterator[IndexArray]:
    """Yield the positions of a part, as many at a time as are evaluated at once."""
    positions = part.positions(shape_hw)
    return (where for where in np.split(positions, range(CHUNK, len(positions), CHUNK)) if len(where))
