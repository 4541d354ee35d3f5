"""Context model of indices: a small network in exact integers gives the probability of an index from its neighbours.

The grid is coded in passes, see `lattice`; all positions of a pass are evaluated together. The indices at the taps of a
position go through an embedding and two to four linear layers, and its index is coded digit by digit, see `digits`.
There are only products of matrices and no convolutions, whose algorithms (Winograd, FFT) may leave the integers.

Axis legend: N positions, T taps, E values of an embedding, C channels, K codes, D digits, V values of one digit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.config import Blocks, Channels, Config
from gosvae.entropy.base import (
    MARK_BYTES,
    MAX_CODEBOOK_SIZE,
    Batch,
    EntropyModel,
    IndexArray,
    SymbolTables,
    batches_bits,
    check_shape,
    weights_digest,
)
from gosvae.entropy.digits import MOST_NUMBERS, MOST_VALUES, Digits, positional
from gosvae.entropy.ids import EntropyModelId
from gosvae.entropy.lattice import KINDS, Run, passes, planes_together, reach, taps
from gosvae.entropy.logits import LOGIT_BITS, counts_of_logits
from gosvae.errors import CheckpointError
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
)
from gosvae.weights import check_amount

CHUNK = 1024
"""Number of positions that are evaluated and coded at once, which bounds the memory.

Streams of indices with several digits depend on it.
"""
LEAST_BITS = 1 / 32
"""Least number of bits that a digit takes, see `SymbolTables.weights_NK`."""


class ContextConfig(Config):
    """Sizes of a context model.

    Attributes:
        codebook_size: number of codes, K.
        values: number of values of each of the D digits.
        embed_digits: whether a neighbour's embedding is the sum of those of its digits; otherwise each index has its
            own.
        embedding_width: values of an embedding, E.
        width: channels of the layers, C.
        blocks: number of residual blocks of two layers each.
        taps: number of neighbours that the three kinds of passes see.
        refinements: number of refinements of the lattice; there are 2 + 2 * refinements passes.
    """

    neutral: ClassVar[Mapping[str, Any]] = {
        "embed_digits": False,
        "embedding_width": 16,
        "width": 160,
        "blocks": 1,
        "taps": [16, 24, 40],
        "refinements": 3,
    }

    codebook_size: int = Field(ge=2, le=MAX_CODEBOOK_SIZE)
    values: tuple[PositiveInt, ...] = Field(min_length=1, max_length=16)
    embed_digits: bool = False
    embedding_width: Channels = 16
    width: Channels = 160
    blocks: Blocks = 1
    taps: tuple[PositiveInt, PositiveInt, PositiveInt] = (16, 24, 40)
    refinements: int = Field(default=3, ge=1, le=4)

    @model_validator(mode="after")
    def _bounded_digits(self) -> ContextConfig:
        if math.prod(self.values) > MOST_NUMBERS:
            raise ValueError(f"values: their product is {math.prod(self.values)}, at most {MOST_NUMBERS}")
        return self

    @property
    def uses(self) -> int:
        """Number of biases of a first layer: one for each refinement."""
        return self.refinements

    @property
    def tables(self) -> tuple[int, ...]:
        """Number of rows of each embedding table, without the row of positions outside the grid."""
        return self.values if self.embed_digits else (self.codebook_size,)


Linear = QuantizedLinear | IntegerLinear


class ContextNetwork(nn.Module):
    """Network from neighbours to logits; the same code trains (`QuantizedLinear`, real units) and runs (integers).

    A new network is trainable. `freeze` returns its integers, and `integer_network` builds a network from those.
    """

    def __init__(self, config: ContextConfig, linear: Callable[..., Linear] | None = None) -> None:
        super().__init__()
        self.config = config
        make = linear or QuantizedLinear
        width, values = config.width, config.values
        used_taps = [min(config.taps[kind], len(taps(kind, 10**6))) for kind in range(KINDS)]
        fan_in = [config.embedding_width * n for n in used_taps]
        self.embeddings = nn.ParameterList(
            nn.Parameter(0.5 * torch.randn(rows + 1, config.embedding_width)) for rows in config.tables
        )
        self.start_C = nn.Parameter(0.1 * torch.rand(width))
        self.first = nn.ModuleList(make(n, width, n_biases=config.uses, largest_input=LARGEST_WEIGHT) for n in fan_in)
        self.blocks = nn.ModuleList(
            nn.ModuleList([make(width, width), make(width, width, residual=True)]) for _ in range(config.blocks)
        )
        # A digit that is known changes the features, which then pass a separate layer before the next digit.
        self.digit_embeddings = nn.ParameterList(nn.Parameter(0.1 * torch.randn(v, width)) for v in values[:-1])
        self.digit_layers = nn.ModuleList(make(width, width) for _ in values[:-1])
        self.heads = nn.ModuleList(make(width, v, extra_bits=LOGIT_BITS - UNIT_BITS) for v in values)
        self.integer = linear is not None

    def _signed(self, table: Tensor) -> Tensor:
        """Return signed entries of a table: integers unchanged, real units rounded."""
        if self.integer:
            return table
        return round_to_units(table.clamp(-LARGEST_WEIGHT * 2.0**-UNIT_BITS, LARGEST_WEIGHT * 2.0**-UNIT_BITS))

    def _relu(self, x: Tensor) -> Tensor:
        return integer_relu(x) if self.integer else quantized_relu(x)

    def features(self, neighbours: list[Tensor], kind: int | None, level: int, n_positions: int) -> Tensor:
        """Return the features (N, C) of positions.

        Args:
            neighbours: rows (N, T) of the taps in each embedding table; the last row is for positions outside.
            kind, level: kind and level of the pass; the kind is None in the first one, where nothing is known.
            n_positions: number of positions.
        """
        if kind is None:
            h_NC = self._relu(self.start_C).expand(n_positions, -1)
        else:
            parts = [
                F.embedding(rows_NT, self._signed(table))
                for rows_NT, table in zip(neighbours, self.embeddings, strict=True)
            ]
            x_NTE = parts[0]
            if len(parts) > 1:
                limit = LARGEST_WEIGHT * (1.0 if self.integer else 2.0**-UNIT_BITS)
                x_NTE = torch.stack(parts).sum(dim=0).clamp(-limit, limit)
            h_NC = self._relu(self.first[kind](x_NTE.flatten(1), level))
        for block in self.blocks:
            inner, outer = block.children()
            h_NC = self._relu(h_NC + outer(self._relu(inner(h_NC))))
        return h_NC

    def logits(self, h_NC: Tensor, digit: int) -> Tensor:
        """Return the logits (N, V) of a digit: in units of 1/16 bit (integers), or in bits while training."""
        x_NV: Tensor = self.heads[digit](h_NC)
        return x_NV.floor() if self.integer else round_to_units(x_NV, LOGIT_BITS - UNIT_BITS)

    def with_digit(self, h_NC: Tensor, digit: int, value_N: Tensor) -> Tensor:
        """Return the features (N, C) for the next digit, when the value of this one is known."""
        known = self._relu(h_NC + F.embedding(value_N, self._signed(self.digit_embeddings[digit])))
        return self._relu(self.digit_layers[digit](known))

    @torch.no_grad()
    def freeze(self) -> dict[str, Tensor]:
        """Return the network in integers, by name: int8, int32 and uint8 tensors."""
        tensors = frozen_layers(self)
        scale = 2.0**UNIT_BITS
        for name, value in self.named_parameters():
            if name.startswith(("embeddings", "digit_embeddings")):
                tensors[name] = (self._signed(value) * scale).to(torch.int8).cpu()
        tensors["start_C"] = (self._relu(self.start_C) * scale).to(torch.uint8).cpu()
        return tensors


def integer_network(config: ContextConfig, tensors: dict[str, Tensor]) -> ContextNetwork:
    """Return the network of the integers that `ContextNetwork.freeze` returned.

    Raises:
        CheckpointError: a tensor is missing, is not expected, or does not fit the configuration.
    """
    check_amount(lambda: ContextNetwork(config), tensors)
    pattern = ContextNetwork(config).float()
    expected = {name: (value.shape, value.dtype) for name, value in pattern.freeze().items()}
    given = {name: (value.shape, value.dtype) for name, value in tensors.items()}
    if expected != given:
        wrong = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
        raise CheckpointError(f"the context model's weights do not fit its configuration: {', '.join(wrong[:3])}")
    network = ContextNetwork(config, integer_layers(pattern, tensors)).float()
    with torch.no_grad():
        for name, value in network.named_parameters():
            value.copy_(tensors[name])
    return network.eval().requires_grad_(False)


class ContextModel(EntropyModel):
    """Use this when bytes count more than time.

    Compared with `StaticHistogram`, streams of `gosvae-camvid` are 31 % shorter, and coding takes tens of milliseconds
    instead of less than one. The model is trained after the codec, and sender and receiver need its weights.
    `LatentContextModel` is the corresponding model for latents of many channels.

    The results are the same on every device.

    Args:
        config: sizes of the model.
        tensors: integers that `ContextNetwork.freeze` returned, with the digits `digits_KD` (uint16) if they are not
            those of the index as a number.
        device: device of the network.

    Raises:
        CheckpointError: the tensors do not fit the configuration.
        ConfigError: a sum of the network could leave the integers of float32, or the digits are not one-to-one.
    """

    model_id = EntropyModelId.CONTEXT
    name = "context"

    def __init__(
        self, config: ContextConfig, tensors: dict[str, Tensor], *, device: str | torch.device = "cpu"
    ) -> None:
        self.config, self.tensors = config, dict(tensors)
        self.codebook_size = config.codebook_size
        weights = {name: value for name, value in tensors.items() if name != "digits_KD"}
        table_KD = tensors["digits_KD"].numpy() if "digits_KD" in tensors else None
        if table_KD is not None and len(table_KD) != self.codebook_size:
            raise CheckpointError(f"the context model has digits of {len(table_KD)} codes, not {self.codebook_size}")
        self.digits = Digits(
            positional(self.codebook_size, config.values) if table_KD is None else table_KD, config.values
        )
        self.device = torch.device(device)
        self.network = integer_network(config, weights).to(self.device)
        self.mark = self.fingerprint()[:MARK_BYTES]
        # Rows of the embedding tables for each index; the last row is for positions outside of the grid.
        rows_KD = self.digits.table_KD if config.embed_digits else np.arange(self.codebook_size)[:, None]
        self._rows = [
            torch.from_numpy(np.append(rows_KD[:, d], rows)).to(self.device) for d, rows in enumerate(config.tables)
        ]
        self._passes = passes(config.refinements)
        self._reach = reach(config.refinements)

    def fingerprint(self) -> bytes:
        """Return the SHA-256 over configuration and integers, 32 bytes."""
        return weights_digest(self.config, self.tensors)

    def least_bits(self, n_indices: int) -> float:
        """See `EntropyModel.least_bits`: the bound is 1/32 bit for each digit."""
        return n_indices * len(self.digits) * LEAST_BITS

    def estimated_bits(self, indices_hw: npt.NDArray[Any]) -> float:
        """Return the cross-entropy of the indices under the network's distributions, in bits."""
        return batches_bits(self, indices_hw)

    def batches(self, shape_hw: tuple[int, int]) -> Generator[Batch, IndexArray, IndexArray]:
        """See `EntropyModel.batches`: each chunk of each pass has one batch for every digit."""
        return (yield from self.batches_of([shape_hw]))[0]

    def batches_of(self, shapes: Sequence[tuple[int, int]]) -> Generator[Batch, IndexArray, list[IndexArray]]:
        """See `EntropyModel.batches_of`: a chunk of a pass is evaluated for up to 1024 positions of all images."""
        for shape_hw in shapes:
            check_shape(shape_hw)
        found: list[IndexArray] = []
        for planes in planes_together(shapes, CHUNK):
            padded = planes.padded(self._reach)
            places_N = torch.from_numpy(padded.places_N).to(self.device)
            known = torch.full((padded.size,), self.codebook_size, device=self.device)
            indices_N = np.zeros(planes.starts[-1], np.int64)
            for parts in self._passes:
                runs = [run for part in parts for run in planes.runs(part, CHUNK)]
                for run in runs:
                    places = places_N[torch.from_numpy(run.numbers).to(self.device)]
                    offsets = self._offsets(run.part.kind, run.part.spacing, padded.stride)
                    h_NC = self._features(known, places, offsets, run.part.kind, run.part.level)
                    indices_N[run.numbers] = yield from self._digits(run, h_NC)
                if runs:
                    done = np.concatenate([run.numbers for run in runs])
                    known[places_N[torch.from_numpy(done).to(self.device)]] = torch.from_numpy(indices_N[done]).to(
                        self.device
                    )
            found += np.split(indices_N, planes.starts[1:-1])
        return found

    def _digits(self, run: Run, h_NC: Tensor) -> Generator[Batch, IndexArray, IndexArray]:
        """Yield the batches of a run, given its features, and return its indices."""
        n_digits = len(self.digits)
        digits_ND = np.empty((len(run.numbers), n_digits), np.int64)
        for d in range(n_digits):
            tables, first = SymbolTables(self._counts(h_NC, d)), 0
            symbol_of_K = self.digits.table_KD[:, d] if n_digits > 1 else None
            for image, where in run.pieces:
                rows = slice(first, first + len(where))
                digits_ND[rows, d] = yield Batch(where, tables.part(rows), symbol_of_K, image)
                first = rows.stop
            if d < n_digits - 1:
                h_NC = self._with_digit(h_NC, d, torch.from_numpy(digits_ND[:, d]).to(self.device))
        return self.digits.indices(digits_ND)

    def most_probable(
        self, indices_hw: npt.NDArray[np.int64], known_hw: npt.NDArray[np.bool_], where: IndexArray
    ) -> IndexArray:
        """Return the most probable indices (N,) at raster numbers `where`, given the known indices around each of them.

        Each position is treated as one of the last pass, which has neighbours on all sides. The positions `where` do
        not see themselves, and they see each other only if they are marked as known. Digits are chosen one after the
        other.

        Raises:
            BitstreamError: no index has the most probable first digits (in a table of digits with holes elsewhere than
                at its end).
        """
        height, width = known_hw.shape
        padded = torch.full((height + 2 * self._reach, width + 2 * self._reach), self.codebook_size)
        inner = padded[self._reach : self._reach + height, self._reach : self._reach + width]
        inner.copy_(torch.from_numpy(np.where(known_hw, indices_hw, self.codebook_size)))
        known, last = padded.view(-1).to(self.device), self._passes[-1][-1]
        offsets = self._offsets(last.kind, last.spacing, width + 2 * self._reach)
        result = np.empty(len(where), np.int64)
        for start in range(0, len(where), CHUNK):
            some = where[start : start + CHUNK]
            h_NC = self._features(known, self._places(some, width), offsets, last.kind, last.level)
            digits_ND = np.empty((len(some), len(self.digits)), np.int64)
            for d in range(len(self.digits)):
                counts_NV = self._counts(h_NC, d)
                if d < len(self.digits) - 1:
                    digits_ND[:, d] = counts_NV.argmax(axis=1)
                    h_NC = self._with_digit(h_NC, d, torch.from_numpy(digits_ND[:, d]).to(self.device))
                else:
                    digits_ND[:, d] = np.where(self.digits.allowed(digits_ND), counts_NV, -1).argmax(axis=1)
            result[start : start + CHUNK] = self.digits.indices(digits_ND)
        return result

    def _places(self, where: IndexArray, width: int) -> Tensor:
        """Return the positions (N,) in the flattened padded grid."""
        rows, columns = np.divmod(where, width)
        places = (rows + self._reach) * (width + 2 * self._reach) + columns + self._reach
        return torch.from_numpy(places).to(self.device)

    def _offsets(self, kind: int | None, spacing: int, stride: int) -> Tensor:
        """Return the distances (T,) of a pass's taps in the flattened padded grid."""
        pairs = () if kind is None else taps(kind, self.config.taps[kind])
        distances = [spacing * (dy * stride + dx) for dy, dx in pairs]
        return torch.tensor(distances, dtype=torch.int64, device=self.device)

    def _features(self, known: Tensor, places_N: Tensor, offsets_T: Tensor, kind: int | None, level: int) -> Tensor:
        with exact_arithmetic(self.device):
            neighbours_NT = known[places_N[:, None] + offsets_T]
            rows = [row_of[neighbours_NT] for row_of in self._rows]
            return self.network.features(rows, kind, level, len(places_N))

    def _with_digit(self, h_NC: Tensor, digit: int, value_N: Tensor) -> Tensor:
        with exact_arithmetic(self.device):
            return self.network.with_digit(h_NC, digit, value_N)

    def _counts(self, h_NC: Tensor, digit: int) -> IndexArray:
        with exact_arithmetic(self.device):
            logits_NV = self.network.logits(h_NC, digit).to(torch.int32)
        return counts_of_logits(logits_NV.cpu().numpy())


def default_config(codebook_size: int, values: tuple[int, ...], *, product: bool) -> ContextConfig:
    """Return a configuration for a codebook.

    Args:
        codebook_size: number of codes, K.
        values: number of values of each digit.
        product: whether each digit has its own meaning, as in FSQ.
    """
    large = codebook_size > 4 * MOST_VALUES
    return ContextConfig(
        codebook_size=codebook_size,
        values=values,
        embed_digits=product and large,
        embedding_width=12 if large and not product else 16,
    )
