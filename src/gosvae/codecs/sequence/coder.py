"""Coding of one frame of a sequence: its symbols become payloads, with the memory of a reference or without one.

Axis legend: D latent channels, h and w latent positions, V values of a symbol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gosvae.bitstream import SliceLayout
from gosvae.codecs.latent import Mask, SymbolArray
from gosvae.codecs.sequence.format import (
    CHECK_BYTES,
    SLICE_LENGTH_BYTES,
    FrameHeader,
    Mode,
    checksum,
    pack_slices,
    part_seed,
    unpack_slices,
)
from gosvae.codecs.slices import GridPart, grid_parts, part_shape, slice_count
from gosvae.codecs.variable import VariableRateCodec, assigned, cheaper, stacked, symbols_below, unstacked
from gosvae.entropy.base import EntropyModel
from gosvae.entropy.coder import decode_images, encode_images, encode_within
from gosvae.entropy.latent_network import LEVELS
from gosvae.entropy.temporal import Memory, TemporalContextModel, TemporalTables
from gosvae.entropy.temporal_network import TemporalContextNetwork
from gosvae.errors import BitstreamError

STIFFNESS = (24.0, 6.0)
"""Stiffness of the assignment (see `gosvae.codecs.variable.STIFFNESS`) at the lowest and at the highest level."""
_KEPT = 0.75
"""Distance, in steps of the quantizer, up to which the first guess of a symbol is that of the reference."""


@dataclass(frozen=True)
class CodedFrame:
    """Coded frame.

    Attributes:
        header: header of the frame.
        payloads: payload of each slice; a frame without changes has one, which is empty.
        memory: latent of the frame, as a reference of later frames.
        seed: checksum of the frame's reference; 0 for an intra frame.
    """

    header: FrameHeader
    payloads: tuple[bytes, ...]
    memory: Memory
    seed: int

    @cached_property
    def data(self) -> bytes:
        """Bytes of the frame, with all slices."""
        body = self.header.pack() + pack_slices(self.payloads)
        return body + checksum(body, self.seed)

    def parts(self) -> list[bytes]:
        """Return the part of each slice: bytes with their own header and checksum, which can be decoded alone.

        If a frame has one slice, its only part is the frame.
        """
        if len(self.payloads) == 1:
            return [self.data]
        bodies = [self.header.pack() + payload for payload in self.payloads]
        return [body + checksum(body, part_seed(self.seed, index)) for index, body in enumerate(bodies)]


class FrameCoder:
    """Encoder and decoder of the frames of one session; it keeps no state.

    Args:
        codec: variable-rate codec that makes the latents.
        network: network of the temporal model, in integers.
        counts: counts of the tables of the temporal model, see `TemporalTables`.
        slices: number of slices of a frame; small grids have fewer.
        layout: layout of the slices.
        grid_hw: numbers of rows and columns of latent positions.
    """

    def __init__(
        self,
        codec: VariableRateCodec,
        network: TemporalContextNetwork,
        counts: npt.NDArray[np.uint16],
        slices: int,
        layout: SliceLayout,
        grid_hw: tuple[int, int],
    ) -> None:
        self._codec, self._config = codec, codec.config.context
        self._network, self._counts = network, counts
        self._grid_hw, self._channels_D11 = grid_hw, np.arange(self._config.channels)[:, None, None]
        self._parts: list[GridPart] = grid_parts(grid_hw, slice_count(grid_hw, slices, layout), layout)

    def models(
        self, mode: Mode, level: int, activity: int, reference: Memory | None, parts: Sequence[GridPart]
    ) -> list[tuple[EntropyModel, Sequence[GridPart]]]:
        """Return the entropy models of slices, each with the slices that it codes together, in order.

        Args:
            mode: way in which the symbols are coded; not `UNCHANGED`.
            level: level of the frame.
            activity: class of activity, 0..7, see `Memory.activity`.
            reference: memory of the reference; None for an intra frame.
            parts: positions of each slice.
        """
        if mode is Mode.INTRA or reference is None:
            return [(self._codec.coder.entropy_model(level), parts)]
        memories = [reference.part(part) for part in parts]
        if mode is Mode.NETWORK:
            return [(TemporalContextModel(self._network, level, memories, activity), parts)]
        return [
            (TemporalTables(self._config, self._counts, level, memory, activity), [part])
            for memory, part in zip(memories, parts, strict=True)
        ]

    def activity(self, symbols: SymbolArray, level: int, reference: Memory) -> int:
        """Return the class of activity of a frame's symbols (D, h, w) at a level."""
        return reference.activity(symbols, self._config.groups_at(level) * self._config.group)

    def payloads(
        self, symbols: SymbolArray, mode: Mode, level: int, activity: int, reference: Memory | None
    ) -> list[bytes]:
        """Return the payload of each slice of symbols (D, h, w); arguments as those of `models`."""
        payloads: list[bytes] = []
        for model, parts in self.models(mode, level, activity, reference, self._parts):
            payloads += encode_images(model, [stacked(symbols[:, *part]) for part in parts])
        return payloads

    def assign(self, latent_1Dhw: Tensor, level: int, reference: Memory, searches: int, scale: float) -> SymbolArray:
        """Return symbols (D, h, w) of a latent that take few bits under the temporal model.

        The first guess keeps the symbols of the reference where they are near the latent, and rounds the latent
        elsewhere. A search then chooses between the two integers around each value, by their bits and their distance.
        With one search, the bits are those of the tables. With n > 1 there are n - 1 searches, with the bits of the
        network.

        Args:
            latent_1Dhw: output of the encoder network.
            level: level of the frame.
            reference: memory of the reference.
            searches: number of searches; 0 keeps the first guess.
            scale: factor of the stiffness, which is the weight of the distance.
        """
        level_1 = torch.tensor([level], device=latent_1Dhw.device)
        y_1Dhw = self._codec.model.scaled(latent_1Dhw, level_1)
        shifted = (y_1Dhw[0] + self._config.bound).cpu().numpy()
        symbols: SymbolArray = np.rint(shifted).astype(np.int64)
        if reference.level == level:
            symbols = np.where(np.abs(shifted - reference.symbols) <= _KEPT, reference.symbols, symbols).astype(
                np.int64
            )
        low, high = STIFFNESS
        stiffness = scale * low * (high / low) ** (level / (LEVELS - 1))
        if searches == 1:
            bits_DVV = self._table_bits(self.activity(symbols, level, reference))
            below = symbols_below(shifted, self._config.values)
            more_bits = np.diff(bits_DVV, axis=2)[self._channels_D11, reference.symbols, below]
            symbols = cheaper(shifted, below, more_bits, stiffness)
            symbols[self._config.groups_at(level) * self._config.group :] = self._config.bound
        for _ in range(searches - 1):
            activity = self.activity(symbols, level, reference)
            found = np.empty_like(symbols)
            for model, parts in self.models(Mode.NETWORK, level, activity, reference, self._parts):
                assert isinstance(model, TemporalContextModel)
                bits_of_parts = model.bits_of_values_of([stacked(symbols[:, *part]) for part in parts])
                for part, bits in zip(parts, bits_of_parts, strict=True):
                    values = shifted[:, *part]
                    found[:, *part] = assigned(values, bits.reshape(*values.shape, -1), stiffness)
            symbols = found
        return symbols

    def _table_bits(self, activity: int) -> npt.NDArray[np.float32]:
        """Return the bits (D, V, V) of every value under the tables of each channel and value of the reference."""
        counts_DVV = self._counts[activity].astype(np.float32) + 1.0
        bits_DVV: npt.NDArray[np.float32] = np.log2(counts_DVV.sum(axis=2, keepdims=True)) - np.log2(counts_DVV)
        return bits_DVV

    def encode_intra(self, symbols: SymbolArray, level: int, number: int) -> CodedFrame:
        """Return a frame that depends on no other."""
        header = FrameHeader(number, Mode.INTRA, level)
        payloads = self.payloads(symbols, Mode.INTRA, level, 0, None)
        return self._coded(header, payloads, symbols, level, None)

    def encode_intra_within(self, symbols: SymbolArray, level: int, number: int, most_bytes: int) -> CodedFrame | None:
        """Return a frame that depends on no other; None as soon as it is certain to take more than `most_bytes`."""
        header = FrameHeader(number, Mode.INTRA, level)
        around = len(header.pack()) + CHECK_BYTES + SLICE_LENGTH_BYTES * (len(self._parts) - 1)
        payloads: list[bytes] = []
        model = self._codec.coder.entropy_model(level)
        for part in self._parts:
            room = most_bytes - around - sum(map(len, payloads))
            payload = encode_within(model, stacked(symbols[:, *part]), room)
            if payload is None:
                return None
            payloads.append(payload)
        return self._coded(header, payloads, symbols, level, None)

    def least_table_bytes(self, symbols: SymbolArray, level: int, reference: Memory) -> float:
        """Return the number of bytes of the symbols under the tables, as a fraction and without headers."""
        coded = self._config.groups_at(level) * self._config.group
        bits_DVV = self._table_bits(self.activity(symbols, level, reference))
        bits = bits_DVV[self._channels_D11[:coded], reference.symbols[:coded], symbols[:coded]]
        return float(bits.sum()) / 8

    def encode(
        self, symbols: SymbolArray, level: int, number: int, reference: Memory, distance: int, *, tables: bool
    ) -> CodedFrame:
        """Return a frame that depends on a reference.

        Args:
            symbols: symbols (D, h, w) of the frame.
            level: level of the frame.
            number: number of the frame modulo 128.
            reference: memory of the reference.
            distance: number of frames from the reference to this frame.
            tables: whether to use the tables in place of the network.
        """
        if level == reference.level and np.array_equal(symbols, reference.symbols):
            return self._coded(FrameHeader(number, Mode.UNCHANGED, None, distance), [b""], symbols, level, reference)
        activity = self.activity(symbols, level, reference)
        mode = Mode.TABLES if tables else Mode.NETWORK
        payloads = self.payloads(symbols, mode, level, activity, reference)
        header = FrameHeader(number, mode, None if level == reference.level else level, distance, activity)
        return self._coded(header, payloads, symbols, level, reference)

    def _coded(
        self, header: FrameHeader, payloads: list[bytes], symbols: SymbolArray, level: int, reference: Memory | None
    ) -> CodedFrame:
        seed = 0 if reference is None else reference.checksum
        return CodedFrame(header, tuple(payloads), Memory.after(symbols, level, reference), seed)

    def decode(self, header: FrameHeader, payload: bytes, reference: Memory | None) -> Memory:
        """Return the memory of a frame; its symbols are those that were coded.

        Raises:
            BitstreamError: no encoder makes this payload.
        """
        if header.mode is Mode.UNCHANGED:
            if payload or reference is None:
                raise BitstreamError("damaged: a frame without changes has a payload")
            return Memory.after(reference.symbols, reference.level, reference)
        symbols = np.zeros((self._config.channels, *self._grid_hw), np.int64)
        self.decode_into(symbols, header, unpack_slices(payload, len(self._parts)), reference)
        return Memory.after(symbols, self.level_of(header, reference), reference)

    def unknown(self) -> SymbolArray:
        """Return a latent (D, h, w) of unknown symbols: -1, which the decoder network fills in."""
        return np.full((self._config.channels, *self._grid_hw), -1, np.int64)

    def level_of(self, header: FrameHeader, reference: Memory | None) -> int:
        """Return the level of a frame."""
        return header.level if header.level is not None else reference.level if reference is not None else 0

    def decode_into(
        self, symbols: SymbolArray, header: FrameHeader, payloads: Sequence[bytes | None], reference: Memory | None
    ) -> Mask:
        """Write the symbols of slices into a latent; return the mask (h, w) of the positions that were written.

        Args:
            symbols: latent (D, h, w), which is changed.
            header: header of the frame; its mode is not `UNCHANGED`.
            payloads: payload of each slice; None for one that is lost.
            reference: memory of the reference; None for an intra frame.

        Raises:
            BitstreamError: there are more or fewer slices, or no encoder makes one of the payloads.
        """
        if header.mode is Mode.UNCHANGED:
            raise BitstreamError("damaged: a frame without changes has no slices")
        if len(payloads) != len(self._parts):
            raise BitstreamError(f"damaged: a frame of {len(payloads)} slices, its session has {len(self._parts)}")
        level = self.level_of(header, reference)
        known_hw = np.zeros(self._grid_hw, np.bool_)
        intact = [part for part, data in zip(self._parts, payloads, strict=True) if data is not None]
        waiting, channels = (data for data in payloads if data is not None), self._config.channels
        for model, parts in self.models(header.mode, level, header.activity, reference, intact):
            shapes = [part_shape(self._grid_hw, part) for part in parts]
            some = list(islice(waiting, len(parts)))
            found = decode_images(model, some, [(channels * h, w) for h, w in shapes])
            for part, symbols_hw in zip(parts, found, strict=True):
                symbols[:, *part] = unstacked(symbols_hw, channels)
                known_hw[part] = True
        return known_hw
