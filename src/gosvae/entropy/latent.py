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
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

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
from gosvae.entropy.latent_few import MOST_POSITIONS, FewPositions
from gosvae.entropy.latent_grid import Conditions, Grid
from gosvae.entropy.latent_network import LatentContextConfig, LatentContextNetwork
from gosvae.entropy.lattice import Planes, Run, passes, planes_together
from gosvae.entropy.logits import LOGIT_BITS, counts_of_logits
from gosvae.errors import BitstreamError
from gosvae.nn.integer import exact_arithmetic

FINEST_WEIGHT = 16731851
"""Largest weight of a symbol in a table: floor(2**24 * 2**(-1/256)), so that every symbol takes at least 1/256 bit."""
LEAST_BITS = 1 / 256
"""Least number of bits that a coded symbol takes."""
CHUNK = 4096
"""Number of positions that are evaluated at once, which bounds the memory. Streams depend on it."""


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
            grid = Grid(self._conditions, self.level, planes)
            symbols_ND = np.zeros((planes.starts[-1], self.config.channels), np.int64)
            for parts in passes(self.config.refinements):
                runs = [run for part in parts for run in planes.runs(part, CHUNK)]
                for run in runs:
                    symbols_ND[run.numbers] = yield from self._groups(run, planes, grid.look(run))
                if runs:
                    done = np.concatenate([run.numbers for run in runs])
                    grid.know(done, symbols_ND[done])
            found += [part_ND.T.reshape(-1) for part_ND in np.split(symbols_ND, planes.starts[1:-1])]
        return found

    def _groups(self, run: Run, planes: Planes, look_NC: Tensor) -> Generator[Batch, IndexArray, IndexArray]:
        """Yield the batches of a run, given the output of the first layer, and return its symbols (N, D)."""
        group = self.config.group
        symbols_ND = np.full((len(run.numbers), self.config.channels), self.config.bound, np.int64)
        pieces = self._pieces(run, planes)
        few = self._few if len(run.numbers) <= MOST_POSITIONS else None
        if few is None:
            steps: _Steps = _StepsOfMany(self._conditions, planes.first_position + run.numbers, look_NC)
        else:
            at = self._conditions.at(planes.first_position + run.numbers)
            steps = _StepsOfFew(few, None if at is None else at.numpy(), look_NC)
        for g in range(self._groups_coded):
            tables = _tables(steps.logits(g, symbols_ND[:, max(0, g - 1) * group : g * group]))
            for piece in pieces:
                part = tables if len(pieces) == 1 else tables.part(piece.rows(group))
                symbols_ND[piece.first : piece.last, g * group : (g + 1) * group] = (
                    yield Batch(piece.places(g), part, image=piece.image)
                ).reshape(-1, group)
        return symbols_ND

    def known_batches_of(self, images: Sequence[npt.NDArray[Any]], *, parts: int = 1) -> Iterator[Batch]:
        """See `EntropyModel.known_batches_of`: the passes are evaluated together."""
        symbols_ND, shapes = self._unstacked(images)
        for planes in planes_together(shapes, CHUNK):
            for runs, logits in self._known_logits(symbols_ND, planes, -(-planes.starts[-1] // parts)):
                # One table for all runs: many small ones would take most of the time.
                tables = [_tables(_integers(logits_NGV)) for logits_NGV in logits]
                first = 0
                for run in runs:
                    pieces = self._pieces(run, planes, first)
                    for g, table in enumerate(tables):
                        for piece in pieces:
                            yield Batch(piece.places(g), table.part(piece.rows(self.config.group)), image=piece.image)
                    first += len(run.numbers)

    def _pieces(self, run: Run, planes: Planes, first: int = 0) -> list[_Piece]:
        """Return the pieces of a run, one for each image, whose positions are counted from `first`."""
        pieces, channels_G = [], np.arange(self.config.group)
        for image, where in run.pieces:
            size = math.prod(planes.shapes[image - planes.first_image])
            places_NG = where[:, None] + channels_G * size
            pieces.append(_Piece(image, first, first + len(where), places_NG.reshape(-1), self.config.group * size))
            first += len(where)
        return pieces

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
        grid = Grid(self._conditions, self.level, planes)
        symbols_ND = symbols_ND[first : first + planes.starts[-1]]
        grid.know(np.arange(len(symbols_ND)), symbols_ND)
        parts = [part for parts in passes(config.refinements) for part in parts]
        waiting = [run for part in parts for run in planes.runs(part, CHUNK)]
        while waiting:
            runs = [waiting.pop(0)]
            while waiting and sum(len(run.numbers) for run in (*runs, waiting[0])) <= min(most, CHUNK):
                runs.append(waiting.pop(0))
            look_NC = torch.cat([grid.look(run, all_known=True) for run in runs])
            order_N = np.concatenate([run.numbers for run in runs])
            known_ND, at = torch.from_numpy(symbols_ND[order_N]).to(self.device), self._conditions.at(first + order_N)
            logits = []
            with exact_arithmetic(self.device):
                h_NC = self.network.features(look_NC)
                for g in range(self._groups_coded):
                    h_NC, logits_NGV = self._conditions.grouped(h_NC, g, at)
                    logits.append(logits_NGV)
                    if g + 1 < self._groups_coded:
                        h_NC = self.network.with_group(h_NC, g, known_ND[:, g * config.group : (g + 1) * config.group])
            yield runs, logits

    @cached_property
    def _few(self) -> FewPositions | None:
        """Layers for few positions, if the model has them."""
        return self._conditions.few_positions()

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


class _Steps(Protocol):
    """Evaluation of the groups of some positions, one after the other."""

    def logits(self, group: int, before_NG: IndexArray) -> npt.NDArray[np.int32]:
        """Return the logits (N * G, V) of a group, given the symbols of the group before it."""


class _StepsOfMany:
    """Steps in PyTorch, given the numbers of the positions and the output of the first layer."""

    def __init__(self, conditions: Conditions, numbers: IndexArray, look_NC: Tensor) -> None:
        self._conditions, self._network, self._device = conditions, conditions.network, look_NC.device
        self._at = conditions.at(numbers)
        with exact_arithmetic(self._device):
            self._h_NC = self._network.features(look_NC)

    def logits(self, group: int, before_NG: IndexArray) -> npt.NDArray[np.int32]:
        with exact_arithmetic(self._device):
            if group > 0:
                before = torch.from_numpy(before_NG).to(self._device)
                self._h_NC = self._network.with_group(self._h_NC, group - 1, before)
            self._h_NC, logits_NGV = self._conditions.grouped(self._h_NC, group, self._at)
            return _integers(logits_NGV)


class _StepsOfFew:
    """Steps in NumPy, given what `Conditions.at` knows of the positions and the output of the first layer."""

    def __init__(self, few: FewPositions, at: IndexArray | None, look_NC: Tensor) -> None:
        self._few, self._at, self._h_NC = few, at, few.features(look_NC.numpy())

    def logits(self, group: int, before_NG: IndexArray) -> npt.NDArray[np.int32]:
        if group > 0:
            self._h_NC = self._few.with_group(self._h_NC, group - 1, before_NG)
        self._h_NC, logits_NV = self._few.grouped(self._h_NC, group, self._at)
        return logits_NV.astype(np.int32)


def _integers(logits_NGV: Tensor) -> npt.NDArray[np.int32]:
    """Return the logits (N * G, V) of a group of channels, position by position."""
    result: npt.NDArray[np.int32] = logits_NGV.flatten(0, 1).to(torch.int32).cpu().numpy()
    return result


def _tables(logits_NV: npt.NDArray[np.int32]) -> SymbolTables:
    return SymbolTables(counts_of_logits(logits_NV), FINEST_WEIGHT)


@dataclass(frozen=True, eq=False)
class _Piece:
    """Positions of one image in a run.

    Attributes:
        image: number of the image.
        first, last: range of the positions among those that are evaluated together.
        first_places: raster numbers (N * G,) of the symbols of the first group in the stacked latent.
        step: distance of the same symbols of two groups.
    """

    image: int
    first: int
    last: int
    first_places: IndexArray
    step: int

    def places(self, group: int) -> IndexArray:
        """Return the raster numbers (N * G,) of the symbols of a group."""
        return self.first_places + group * self.step

    def rows(self, size: int) -> slice:
        """Return the rows of a table, where each position has `size`."""
        return slice(self.first * size, self.last * size)
