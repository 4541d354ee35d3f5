"""Context model of latents with many channels: it gives the probability of each integer of (D, h, w) at a level.

The grid is coded in the passes of `lattice`. A position sees the level of the latent and the integers of its taps, with
one embedding for each tap. Its own channels are coded in groups, and each group sees the groups before it. All
arithmetic is in exact integers, see `gosvae.nn.integer`.

Axis legend: N positions, T taps, D channels, G channels of a group, V values, E values of an embedding, C features,
h and w latent positions.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
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
from gosvae.entropy.lattice import Planes, Run, is_edge, passes, planes_together, reach, taps
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
    """All that a context model knows at a position besides the latents themselves: nothing, in this base.

    Positions are numbered as those of `Planes` of all latents that are coded together.

    Args:
        network: network in integers.
    """

    def __init__(self, network: LatentContextNetwork) -> None:
        self.network = network

    def inputs(self, numbers: IndexArray) -> tuple[Tensor, Tensor] | None:
        """Return further inputs (N, I) of the first layer at some positions, and features (N, C) added to its result.

        None means that there are none.
        """
        del numbers
        return None

    def at(self, numbers: IndexArray) -> Tensor | None:
        """Return what `grouped` needs to know of some positions, for all groups."""
        del numbers
        return None

    def grouped(self, h_NC: Tensor, group: int, at: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the features (N, C) for a group, and its logits (N, G, V), at the positions of `at`."""
        del at
        return h_NC, self.network.logits(h_NC, group)


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
        return self.bits_of_values_of([indices_hw])[0]

    def bits_of_values_of(self, images: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[np.float32]]:
        """Return the result of `bits_of_values` for several images (D * h, w) that are evaluated together."""
        symbols_ND, shapes = self._unstacked(images)
        bits_NDV = np.full((*symbols_ND.shape, self.codebook_size), np.inf, np.float32)
        bits_NDV[:, :, self.config.bound] = 0.0  # for channels that are not coded at this level
        for planes in planes_together(shapes, CHUNK):
            for runs, logits in self._known_logits(symbols_ND, planes):
                order_N = planes.first_position + np.concatenate([run.numbers for run in runs])
                logits_NDV = torch.cat(logits, dim=1) * (math.log(2.0) / 2**LOGIT_BITS)
                bits_NDV[order_N, : logits_NDV.shape[1]] = (
                    F.log_softmax(logits_NDV, dim=2).div_(-math.log(2.0)).cpu().numpy()
                )
        ends = np.cumsum([height * width for height, width in shapes])
        parts = zip(np.split(bits_NDV, ends[:-1]), images, strict=True)
        return [bits.transpose(1, 0, 2).reshape(*indices_hw.shape, -1) for bits, indices_hw in parts]

    def batches(self, shape_hw: tuple[int, int]) -> Generator[Batch, IndexArray, IndexArray]:
        """See `EntropyModel.batches`: each chunk of each pass has one batch for every group of channels.

        Raises:
            BitstreamError: the shape is not that of a stacked latent.
        """
        return (yield from self.batches_of([shape_hw]))[0]

    def batches_of(self, shapes: Sequence[tuple[int, int]]) -> Generator[Batch, IndexArray, list[IndexArray]]:
        """See `EntropyModel.batches_of`: a chunk of a pass is evaluated for up to 4096 positions of all images."""
        found: list[IndexArray] = []
        for planes in planes_together(self._planes(shapes), CHUNK):
            grid = _Grid(self._conditions, self.level, planes)
            symbols_ND = np.zeros((planes.starts[-1], self.config.channels), np.int64)
            for parts in passes(self.config.refinements):
                runs = [run for part in parts for run in planes.runs(part, CHUNK)]
                for run in runs:
                    symbols_ND[run.numbers] = yield from self._groups(run, planes, self._features(grid.look(run)))
                if runs:
                    done = np.concatenate([run.numbers for run in runs])
                    grid.know(done, symbols_ND[done])
            found += [part_ND.T.reshape(-1) for part_ND in np.split(symbols_ND, planes.starts[1:-1])]
        return found

    def _groups(self, run: Run, planes: Planes, h_NC: Tensor) -> Generator[Batch, IndexArray, IndexArray]:
        """Yield the batches of a run, given its features, and return its symbols (N, D)."""
        group, at = self.config.group, self._conditions.at(planes.first_position + run.numbers)
        symbols_ND = np.full((len(run.numbers), self.config.channels), self.config.bound, np.int64)
        for g in range(self._groups_coded):
            with exact_arithmetic(self.device):
                if g > 0:
                    before_NG = symbols_ND[:, (g - 1) * group : g * group]
                    h_NC = self.network.with_group(h_NC, g - 1, torch.from_numpy(before_NG).to(self.device))
                h_NC, logits_NGV = self._conditions.grouped(h_NC, g, at)
            tables = self._tables(logits_NGV)
            for batch, rows in self._split(run, planes, g, tables):
                symbols_ND[rows, g * group : (g + 1) * group] = (yield batch).reshape(-1, group)
        return symbols_ND

    def known_batches_of(self, images: Sequence[npt.NDArray[Any]], *, parts: int = 1) -> Iterator[Batch]:
        """See `EntropyModel.known_batches_of`: the passes are evaluated together."""
        symbols_ND, shapes = self._unstacked(images)
        for planes in planes_together(shapes, CHUNK):
            for runs, logits in self._known_logits(symbols_ND, planes, -(-planes.starts[-1] // parts)):
                # One table for all runs: many small ones would take most of the time.
                tables = [self._tables(logits_NGV) for logits_NGV in logits]
                first = 0
                for run in runs:
                    last = first + self.config.group * len(run.numbers)
                    for g, table in enumerate(tables):
                        for batch, _ in self._split(run, planes, g, table.part(slice(first, last))):
                            yield batch
                    first = last

    def _split(self, run: Run, planes: Planes, group: int, tables: SymbolTables) -> Iterator[tuple[Batch, slice]]:
        """Yield the batch of a group for each image of a run, and the rows of the run that it has."""
        first, size = 0, self.config.group
        channels_G = np.arange(group * size, (group + 1) * size)
        for image, where in run.pieces:
            last = first + len(where)
            height, width = planes.shapes[image - planes.first_image]
            places = (where[:, None] + channels_G * (height * width)).reshape(-1)
            yield Batch(places, tables.part(slice(first * size, last * size)), image=image), slice(first, last)
            first = last

    def _known_logits(
        self, symbols_ND: IndexArray, planes: Planes, most: int = CHUNK
    ) -> Iterator[tuple[list[Run], list[Tensor]]]:
        """Yield runs in the order of coding, up to `most` positions at a time, with logits (N, G, V) of groups.

        Args:
            symbols_ND: symbols of all images.
            planes: images that are evaluated together.
            most: number of positions.
        """
        config, first = self.config, planes.first_position
        grid = _Grid(self._conditions, self.level, planes)
        symbols_ND = symbols_ND[first : first + planes.starts[-1]]
        grid.know(np.arange(len(symbols_ND)), symbols_ND)
        parts = [part for parts in passes(config.refinements) for part in parts]
        waiting = [run for part in parts for run in planes.runs(part, CHUNK)]
        while waiting:
            runs = [waiting.pop(0)]
            while waiting and sum(len(run.numbers) for run in (*runs, waiting[0])) <= min(most, CHUNK):
                runs.append(waiting.pop(0))
            h_NC = self._features(torch.cat([grid.look(run, all_known=True) for run in runs]))
            order_N = np.concatenate([run.numbers for run in runs])
            known_ND, at = torch.from_numpy(symbols_ND[order_N]).to(self.device), self._conditions.at(first + order_N)
            logits = []
            with exact_arithmetic(self.device):
                for g in range(self._groups_coded):
                    h_NC, logits_NGV = self._conditions.grouped(h_NC, g, at)
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

    def _unstacked(self, images: Sequence[npt.NDArray[Any]]) -> tuple[IndexArray, list[tuple[int, int]]]:
        """Return the symbols (N, D) of stacked latents, position by position, and height and width of each."""
        shapes = self._planes([(image.shape[0], image.shape[1]) for image in images])
        symbols_DN = np.concatenate([image.reshape(self.config.channels, -1) for image in images], axis=1)
        symbols_ND = np.ascontiguousarray(symbols_DN.T, np.int64)
        if (symbols_ND[:, self._groups_coded * self.config.group :] != self.config.bound).any():
            raise BitstreamError(f"a channel that is not coded at level {self.level} is not 0")
        return symbols_ND, shapes

    def _planes(self, shapes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return height and width of each latent that is stacked to one of these shapes."""
        for shape_hw in shapes:
            check_shape(shape_hw)
            if shape_hw[0] % self.config.channels:
                raise BitstreamError(f"a grid of {shape_hw[0]} rows does not hold {self.config.channels} channels")
        return [(rows // self.config.channels, width) for rows, width in shapes]


class _Grid:
    """Embeddings of the known positions of latents (h, w), with margins of unknown positions."""

    def __init__(self, conditions: Conditions, level: int, planes: Planes) -> None:
        network = conditions.network
        self._conditions, self._network, self._device = conditions, network, network.embedding.device
        self._first, padded = planes.first_position, planes.padded(reach(network.config.refinements))
        self._stride, self._places_N = padded.stride, torch.from_numpy(padded.places_N).to(self._device)
        with exact_arithmetic(self._device):
            self._known_NE = network.unknown().repeat(padded.size, 1)
            self._level_E = network.level_table()[level]

    def know(self, numbers: IndexArray, symbols_ND: IndexArray) -> None:
        """Store the symbols 0..2L of all channels of some positions."""
        with exact_arithmetic(self._device):
            rows_ND = self._network.rows(torch.from_numpy(symbols_ND).to(self._device))
            self._known_NE[self._places(numbers)] = self._network.embed(rows_ND)

    def look(self, run: Run, *, all_known: bool = False) -> Tensor:
        """Return the output (N, C) of the first layer at the positions of a run.

        Args:
            run: positions of a part of a pass.
            all_known: whether the grid also has symbols that are coded later; they are hidden.
        """
        part, numbers = run.part, run.numbers
        most = 0 if part.kind is None else self._network.config.taps[part.kind]
        pairs = () if part.kind is None else taps(part.kind, most)
        distances = [part.spacing * (dy * self._stride + dx) for dy, dx in pairs]
        offsets_T = torch.tensor(distances, dtype=torch.int64, device=self._device)
        with exact_arithmetic(self._device):
            x_NTE = self._known_NE[self._places(numbers)[:, None] + offsets_T]
            if all_known and not part.sees_edges:
                x_NTE[:, [is_edge(part.kind or 0, pair) for pair in pairs]] = self._network.unknown()
            known = [x_NTE.flatten(1), self._level_E.expand(len(numbers), -1)]
            more_NI, added_NC = self._conditions.inputs(self._first + numbers) or (None, None)
            x_NI = torch.cat(known if more_NI is None else [*known, more_NI], dim=1)
            return self._network.look(x_NI, part.kind, part.level, added_NC)

    def _places(self, numbers: IndexArray) -> Tensor:
        """Return the places (N,) of positions in the flat array."""
        return self._places_N[torch.from_numpy(numbers).to(self._device)]
