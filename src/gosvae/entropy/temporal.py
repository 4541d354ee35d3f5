"""Context model of a latent (D, h, w) that is coded given the latent of a reference frame.

The model is that of `gosvae.entropy.latent` with a reference besides the frame itself: entropy coding that is
conditional on earlier frames while the transforms know nothing of them (Mentzer et al. 2022, "VCT: A video compression
transformer"). All arithmetic is in exact integers.

Axis legend: N positions, T taps, D channels, Y ages, V values, E values of an embedding, h and w latent positions.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from gosvae.entropy.base import FrequencyTables, IndexArray, TableModel, check_indices, cross_entropy_bits
from gosvae.entropy.ids import EntropyModelId
from gosvae.entropy.latent import LatentContextModel
from gosvae.entropy.latent_few import FewPositions, FloatArray, with_rows
from gosvae.entropy.latent_grid import Conditions
from gosvae.entropy.latent_network import LatentContextConfig
from gosvae.entropy.lattice import Planes
from gosvae.entropy.temporal_network import ACTIVITIES, AGES, DIRECT_SCALE, TemporalContextNetwork, reference_taps
from gosvae.errors import ConfigError, ShapeError
from gosvae.nn.integer import exact_arithmetic

ByteArray = npt.NDArray[np.uint8]

_NEW, _UNKNOWN = 0, 1
"""Ages of a symbol that has just changed, and of one of a frame without a reference."""


@dataclass(frozen=True, eq=False)
class Memory:
    """Latent of a decoded frame, as a reference of later ones: the same at the encoder and at every decoder.

    The ages carry what the reference knows of its own reference, so that a frame depends on one other frame only.

    Attributes:
        symbols: symbols 0..2L, uint8 (D, h, w).
        ages: age of every symbol, uint8 (D, h, w): 0 if it differs from that of the frame's own reference, otherwise
            one more than the age there, up to 3. Without a reference of the same level all ages are 1.
        level: level of the latent.
    """

    symbols: ByteArray
    ages: ByteArray
    level: int

    @classmethod
    def after(cls, symbols: npt.NDArray[np.integer], level: int, reference: Memory | None) -> Memory:
        """Return the memory of a frame, given that of its reference; None for a frame without one.

        Raises:
            ShapeError: the reference has another shape.
        """
        small = symbols.astype(np.uint8)
        if reference is None or reference.level != level:
            return cls(small, np.full(small.shape, _UNKNOWN, np.uint8), level)
        reference.check(small.shape)
        older = np.minimum(reference.ages + 1, AGES - 1).astype(np.uint8)
        return cls(small, np.where(small == reference.symbols, older, np.uint8(_NEW)), level)

    @cached_property
    def checksum(self) -> int:
        """CRC-32 of level, symbols and ages, one byte each."""
        return zlib.crc32(bytes([self.level]) + self.symbols.tobytes() + self.ages.tobytes())

    @property
    def shape_hw(self) -> tuple[int, int]:
        """Numbers of rows and columns of latent positions."""
        return self.symbols.shape[1], self.symbols.shape[2]

    def part(self, where: tuple[slice, slice]) -> Memory:
        """Return the memory of the rows and columns of a slice."""
        return Memory(self.symbols[:, *where], self.ages[:, *where], self.level)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise `ShapeError` unless a latent has the same shape."""
        if shape != self.symbols.shape:
            raise ShapeError(f"expected a latent of the shape {self.symbols.shape} of its reference", shape)

    def activity(self, symbols: IndexArray, coded: int) -> int:
        """Return the class 0..7 of the share of symbols that differ from the reference, in steps of a factor of 2.

        Args:
            symbols: symbols (D, h, w) of a frame.
            coded: number of channels that are coded at the level of the frame.
        """
        changed = int((symbols[:coded] != self.symbols[:coded]).sum())
        # Class 0 is below 1/256, class 7 is 1/4 and above.
        return min(ACTIVITIES - 1, (256 * changed // symbols[:coded].size).bit_length())


class FewWithReference(FewPositions):
    """Layers of a `TemporalContextNetwork` for few positions; arguments as those of `FewPositions`."""

    def __init__(self, network: TemporalContextNetwork) -> None:
        super().__init__(network.space)
        self._group = network.config.context.group
        self._offsets_D, self._direct = network.offsets_D.numpy(), network.direct.numpy()
        self._near = [table.numpy() for table in network.near]

    def grouped(self, h_NC: FloatArray, group: int, at: IndexArray | None) -> tuple[FloatArray, FloatArray]:
        assert at is not None
        size = self._group
        rows_NG = at[:, group * size : (group + 1) * size]
        h_NC = with_rows(h_NC, self._near[group], rows_NG + self._offsets_D[:size])
        direct_NGV = self._direct.take(rows_NG + self._offsets_D[group * size : (group + 1) * size], axis=0)
        logits_NV = self.logits(h_NC, group)
        logits_NV += DIRECT_SCALE * direct_NGV.reshape(logits_NV.shape)
        return h_NC, logits_NV


class TemporalConditions(Conditions):
    """References as the network of a temporal model sees them.

    Args:
        network: network in integers.
        memories: parts of one reference, one for each latent.
        activity: class of activity of the frame, see `Memory.activity`.
    """

    def __init__(self, network: TemporalContextNetwork, memories: Sequence[Memory], activity: int) -> None:
        super().__init__(network.space)
        self._temporal, device = network, network.embedding.device
        rows_ND = np.concatenate([_rows(memory, network.config.context.values) for memory in memories])
        self._rows_ND = torch.from_numpy(np.ascontiguousarray(rows_ND)).to(device)
        pairs = reference_taps(network.config.taps)
        margin = max(max(abs(dy), abs(dx)) for dy, dx in pairs)
        padded = Planes(tuple(memory.shape_hw for memory in memories)).padded(margin)
        self._places_N = torch.from_numpy(padded.places_N).to(device)
        self._offsets_T = torch.tensor([dy * padded.stride + dx for dy, dx in pairs], device=device)
        with exact_arithmetic(device):
            self._grid_NE = network.outside().repeat(padded.size, 1)
            self._grid_NE[self._places_N] = network.embed(self._rows_ND)
            self._centred_NC = network.centred(self._rows_ND)
            level_E = network.level_table()[memories[0].level]
            self.everywhere = torch.cat([level_E, network.activity_table()[activity]])

    def inputs(self, numbers: IndexArray) -> tuple[Tensor, Tensor]:
        numbers_N = torch.from_numpy(numbers).to(self._places_N.device)
        x_NTE = F.embedding(self._places_N[numbers_N][:, None] + self._offsets_T, self._grid_NE)
        return x_NTE.flatten(1), self._centred_NC[numbers_N]

    def at(self, numbers: IndexArray) -> Tensor:
        """Return the symbols and ages (N, D) of the reference, see `Conditions.at`."""
        return self._rows_ND[torch.from_numpy(numbers).to(self._rows_ND.device)]

    def few_positions(self) -> FewPositions | None:
        on_cpu = self._temporal.embedding.device.type == "cpu"
        return FewWithReference(self._temporal) if on_cpu else None

    def grouped(self, h_NC: Tensor, group: int, at: Tensor | None) -> tuple[Tensor, Tensor]:
        assert at is not None
        h_NC = self._temporal.with_reference(h_NC, group, at)
        return h_NC, self._temporal.logits(h_NC, group, at)


def _rows(memory: Memory, values: int) -> IndexArray:
    """Return `age * V + symbol` (N, D) of all positions of a reference."""
    rows: IndexArray = memory.ages.astype(np.int64) * values + memory.symbols
    return rows.reshape(len(rows), -1).T


class TemporalContextModel(LatentContextModel):
    """Use this for the frames of a video, given an earlier frame that the receiver has.

    Compared with `LatentContextModel`, it takes far fewer bytes where little moves, and the decoder needs the same
    reference. Compared with `TemporalTables`, it takes fewer bytes and more time.

    Args:
        network: network in integers, as `integer_temporal_network` makes it.
        level: level of the frame, 0..255.
        memory: latent of the reference, of the same shape as that of the frame; or several parts of it, one for each
            latent that is coded together with the others.
        activity: class of activity of the frame, see `Memory.activity`.
        mark: mark of the model, see `EntropyModel.mark`.
    """

    model_id = EntropyModelId.TEMPORAL_CONTEXT
    name = "temporal-context"

    def __init__(
        self,
        network: TemporalContextNetwork,
        level: int,
        memory: Memory | Sequence[Memory],
        activity: int,
        mark: bytes = b"",
    ) -> None:
        memories = [memory] if isinstance(memory, Memory) else memory
        conditions = TemporalConditions(network, memories, activity)
        super().__init__(network.config.context, network.space, level, mark, conditions)
        self._shapes = [memory.shape_hw for memory in memories]

    def _planes(self, shapes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        planes = super()._planes(shapes)
        for shape_hw, expected_hw in zip(planes, self._shapes, strict=True):
            if shape_hw != expected_hw:
                raise ShapeError(f"expected a latent of the shape {expected_hw} of its reference", shape_hw)
        return planes


class TemporalTables(TableModel):
    """Use this for the frames of a video where coding must be fast: one table for each symbol of the reference.

    Compared with `TemporalContextModel`, it takes hardly any time and more bytes.

    Args:
        config: sizes of the codec's context model.
        counts: counts of the training sequences, integers (activity, D, V of the reference, V), 0 or more.
        level: level of the frame, 0..255.
        memory: latent of the reference.
        activity: class of activity of the frame.
        mark: mark of the tables, see `EntropyModel.mark`.

    Raises:
        ConfigError: the counts do not fit the configuration.
    """

    model_id = EntropyModelId.TEMPORAL_TABLES
    name = "temporal-tables"

    def __init__(
        self,
        config: LatentContextConfig,
        counts: npt.NDArray[Any],
        level: int,
        memory: Memory,
        activity: int,
        mark: bytes = b"",
    ) -> None:
        values, channels = config.values, config.channels
        if counts.shape != (ACTIVITIES, channels, values, values) or counts.min() < 0:
            raise ConfigError(f"temporal tables: expected counts ({ACTIVITIES}, {channels}, {values}, {values})")
        self.codebook_size, self.mark, self._memory = values, mark, memory
        # A table of a silent channel allows for one symbol only, as far as counts of at least 1 do.
        coded = config.groups_at(level) * config.group
        counts_DVV = counts[activity].astype(np.int64) + 1
        silent_V = np.where(np.arange(values) == config.bound, 2**38, 1)
        counts_DVV[coded:] = silent_V
        self._counts_TK = counts_DVV.reshape(-1, values)

    def tables(self, shape_hw: tuple[int, int]) -> FrequencyTables:
        """Return the table of every symbol of the stacked latent (D * h, w): that of the reference's symbol."""
        channels, height, width = self._memory.symbols.shape
        if shape_hw != (channels * height, width):
            raise ShapeError(f"expected {(channels * height, width)}, the stacked shape of the reference", shape_hw)
        first_D = np.arange(channels)[:, None, None] * self.codebook_size
        return FrequencyTables(self._counts_TK, (first_D + self._memory.symbols).reshape(-1))

    def estimated_bits(self, indices_hw: npt.NDArray[Any]) -> float:
        """Return the cross-entropy of the stacked symbols under the tables, in bits."""
        rows, width = indices_hw.shape
        return cross_entropy_bits(check_indices(indices_hw, self.codebook_size), self.tables((rows, width)))
