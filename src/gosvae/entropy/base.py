"""Contract of entropy models, which give the probability of each index in integers.

Axis legend: N indices in raster order, T tables, K codes, h and w latent positions.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

import constriction
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gosvae.config import Config, identity
from gosvae.errors import BitstreamError, ConfigError, ShapeError

IndexArray = npt.NDArray[np.int64]

MAX_CODEBOOK_SIZE = 65536
"""Largest number of codes of a codebook."""
MARK_BYTES = 4
"""Length of a mark that is not empty, see `EntropyModel.mark`."""
TABLE_BITS = 24
"""Precision of the range coder: the weights of one table sum to 2**24."""
LARGEST_WEIGHT = 16417714
"""Largest weight of a symbol in a table: floor(2**24 * 2**(-1/32)), so that every symbol takes at least 1/32 bit."""
_MAX_TOTAL_COUNT = 2**39


@dataclass(frozen=True, eq=False)
class FrequencyTables:
    """Integer frequencies of the K indices under T tables.

    Attributes:
        counts_TK: int64 counts of at least 1; a table sums to less than 2**39, and K is at most 65536.
        table_of_N: int64 table number of every symbol, or None if all symbols use table 0.

    Raises:
        ConfigError: the counts break these limits.
    """

    counts_TK: IndexArray
    table_of_N: IndexArray | None = None

    def __post_init__(self) -> None:
        counts = self.counts_TK
        if counts.ndim != 2 or counts.dtype != np.int64 or not 1 <= counts.shape[1] <= MAX_CODEBOOK_SIZE:
            raise ConfigError(
                f"frequency tables: expected int64 counts (T, K) with K in 1..{MAX_CODEBOOK_SIZE}, "
                f"got {counts.dtype} {counts.shape}"
            )
        if counts.min() < 1 or counts.max() >= _MAX_TOTAL_COUNT or counts.sum(axis=1).max() >= _MAX_TOTAL_COUNT:
            raise ConfigError(
                "frequency tables: every count must be at least 1 and a table must sum to less than 2**39"
            )
        table_of = self.table_of_N
        if table_of is not None and (table_of.ndim != 1 or table_of.min() < 0 or table_of.max() >= len(counts)):
            raise ConfigError(f"frequency tables: table numbers must be a list of integers in [0, {len(counts)})")

    def __reduce__(self) -> tuple[Any, ...]:
        # The cached coder models cannot be copied or pickled; they are rebuilt from the counts.
        return type(self), (self.counts_TK, self.table_of_N)

    @property
    def codebook_size(self) -> int:
        """Number of different indices, K."""
        return int(self.counts_TK.shape[1])

    @cached_property
    def weights_TK(self) -> IndexArray:
        """Weights that the coder uses, int64 (T, K): each is at least 1, and each row sums to 2**24.

        The left cumulative weight of index i is `floor(C_i * (2**24 - K) / S) + i`, with C_i the sum of the counts
        before i and S the sum of all counts. This is one integer division, so the result is the same on every machine.
        """
        counts_TK = self.counts_TK
        n_codes = counts_TK.shape[1]
        edges = np.zeros((len(counts_TK), n_codes + 1), np.int64)
        np.cumsum(counts_TK, axis=1, out=edges[:, 1:])
        edges = edges * (2**TABLE_BITS - n_codes) // edges[:, -1:]
        weights_TK: IndexArray = np.diff(edges, axis=1) + 1
        return weights_TK

    @cached_property
    def coder_models(self) -> list[Any]:
        """Models of constriction, one for each table; K must be at least 2."""
        # constriction takes floats p, and computes the left cumulative of i as floor(sum(p[:i]) * scale) + i with
        # scale = (2**24 - K) / sum(p). Integers that sum to 2**24 - K make scale exactly 1.0 and every sum exact, so
        # its tables are `weights_TK` to the last bit, on every machine.
        return [
            constriction.stream.model.Categorical((row_K - 1).astype(np.float64), perfect=False)
            for row_K in self.weights_TK
        ]


@dataclass(frozen=True, eq=False)
class SymbolTables:
    """Integer frequencies of K symbols with one table for each of N symbols.

    Attributes:
        counts_NK: int64 counts from 0 to 2**24; a table sums to at least 1, and K is at least 2.
        largest_weight: largest weight of a symbol, which takes at least `24 - log2(largest_weight)` bits.
    """

    counts_NK: IndexArray
    largest_weight: int = LARGEST_WEIGHT

    @property
    def codebook_size(self) -> int:
        """Number of different symbols, K."""
        return int(self.counts_NK.shape[1])

    @cached_property
    def weights_NK(self) -> IndexArray:
        """Weights that the coder uses, int64 (N, K): each is at least 1, and each row sums to 2**24.

        With S the sum of a row's counts c and m = floor((2**24 - K) * 2**24 / S), a weight is
        `floor(c * m / 2**24) + 1`. The weight of the first largest count is then raised so that the row sums to 2**24.
        If this weight exceeds `largest_weight`, the excess goes to the other symbols in equal parts, and the rest of
        that division to the first of the others.
        """
        return self.coder_weights_NK.astype(np.int64) + 1

    def part(self, rows: slice) -> SymbolTables:
        """Return some of the rows, with their weights, which are not computed again."""
        part = SymbolTables(self.counts_NK[rows], self.largest_weight)
        part.__dict__["coder_weights_NK"] = self.coder_weights_NK[rows]
        return part

    @cached_property
    def coder_weights_NK(self) -> npt.NDArray[np.float64]:
        """Weights in the form of constriction, which adds 1 to each: integers in floats; a row sums to 2**24 - K.

        All floats are exact. Products and sums are integers below 2**48, divided by a power of two. A quotient a / b
        of integers is rounded, but never up to an integer: it is at least 1 / b below the next one, and its rounding
        error is at most 2**-53 * a / b, which is less than 1 / b since a < 2**48.
        """
        counts_NK = self.counts_NK
        n_rows, n_codes = counts_NK.shape
        totals_N1 = np.add.reduce(counts_NK, axis=1, keepdims=True)
        factors_N1 = np.floor(((2**TABLE_BITS - n_codes) << 24) / totals_N1)
        factors_N1 *= 2.0**-24
        weights_NK: npt.NDArray[np.float64] = counts_NK * factors_N1
        np.floor(weights_NK, out=weights_NK)
        flat = weights_NK.reshape(-1)
        top_N = counts_NK.argmax(axis=1)
        starts_N = np.arange(0, n_rows * n_codes, n_codes)
        places_N = starts_N + top_N
        most_N = flat[places_N] + ((2**TABLE_BITS - n_codes) - np.add.reduce(weights_NK, axis=1))
        excess_N = np.maximum(most_N - (self.largest_weight - 1), 0.0)
        if excess_N.any():
            most_N -= excess_N
            shares_N = np.floor(excess_N / (n_codes - 1))
            weights_NK += shares_N[:, None]
            flat[starts_N + (top_N == 0)] += excess_N - shares_N * (n_codes - 1)
        flat[places_N] = most_N
        return weights_NK


@dataclass(frozen=True, eq=False)
class Batch:
    """Symbols that are coded together.

    Attributes:
        where: raster numbers of the positions of the symbols.
        tables: frequencies of the symbols.
        symbol_of_K: symbol of each index, if the symbols are a digit of the indices; None if they are the indices.
        image: number of the image of the symbols, of those that are coded together.
    """

    where: slice | IndexArray
    tables: FrequencyTables | SymbolTables
    symbol_of_K: IndexArray | None = None
    image: int = 0

    def length(self, n_indices: int) -> int:
        """Return the number of symbols of this batch, in an image of `n_indices` indices."""
        return len(range(n_indices)[self.where]) if isinstance(self.where, slice) else len(self.where)

    def symbols(self, indices_N: IndexArray) -> IndexArray:
        """Return the symbols of this batch, given all the indices of an image in raster order."""
        chosen = indices_N[self.where]
        return chosen if self.symbol_of_K is None else self.symbol_of_K[chosen]


class EntropyModel(ABC):
    """Base of all entropy models, which give the probabilities of indices and never see bytes."""

    model_id: int
    """Number of the model in the header of a stream, one of `EntropyModelId`."""
    name: str
    """Name of the model in lists and messages."""
    codebook_size: int
    """Number of different indices, K."""
    mark: bytes = b""
    """Bytes in every stream by which a receiver with other weights of this model refuses it.

    The mark is empty if the fingerprint of the codec covers the model.
    """

    @abstractmethod
    def batches(self, shape_hw: tuple[int, int]) -> Generator[Batch, IndexArray, IndexArray]:
        """Yield the batches of one image with h * w indices, receive the symbols of each, and return the indices.

        Encoder and decoder run the same generator. A batch may depend on all symbols that were received before. The
        indices (N,) are in raster order.

        Raises:
            ShapeError: a side of the shape is not positive.
            BitstreamError: the symbols do not stand for indices, so no encoder wrote them.
        """

    def batches_of(self, shapes: Sequence[tuple[int, int]]) -> Generator[Batch, IndexArray, list[IndexArray]]:
        """Yield the batches of several images, receive the symbols of each, and return the indices of each image.

        The batches of an image are those of `batches`, in the same order: every image has its own bytes. Models that
        take much time evaluate the images together, and batches of different images then alternate.
        """
        found = []
        for image, shape_hw in enumerate(shapes):
            coding = self.batches(shape_hw)
            try:
                batch = next(coding)
                while True:
                    batch = coding.send((yield replace(batch, image=image)))
            except StopIteration as finished:
                found.append(finished.value)
        return found

    def known_batches(self, indices_hw: npt.NDArray[Any], *, parts: int = 1) -> Iterator[Batch] | None:
        """Return the batches of `batches` for indices that are all known, or None if there is no quicker way.

        They are computed in about `parts` steps, each when its first batch is taken.
        """
        return self.known_batches_of([indices_hw], parts=parts)

    def known_batches_of(self, images: Sequence[npt.NDArray[Any]], *, parts: int = 1) -> Iterator[Batch] | None:
        """Return the batches of `batches_of` for images (h, w), as `known_batches` does for one."""
        del images, parts
        return None

    @abstractmethod
    def least_bits(self, n_indices: int) -> float:
        """Return a lower bound of the bits of `n_indices` indices, without taking memory for them."""

    @abstractmethod
    def estimated_bits(self, indices_hw: npt.NDArray[Any]) -> float:
        """Return the cross-entropy of the indices under this model, in bits: the size of an ideal code.

        Raises:
            ShapeError: the indices are not an integer array (h, w), or have a side of 0.
            BitstreamError: an index is outside [0, K).
        """


class TableModel(EntropyModel):
    """Base of the models whose tables depend on the shape of the grid only; all indices are one batch."""

    @abstractmethod
    def tables(self, shape_hw: tuple[int, int]) -> FrequencyTables:
        """Return tables for the h * w indices of one image in raster order."""

    @final
    def batches(self, shape_hw: tuple[int, int]) -> Generator[Batch, IndexArray, IndexArray]:
        """See `EntropyModel.batches`: all indices are one batch."""
        return (yield Batch(slice(None), self.tables(shape_hw)))

    @final
    def least_bits(self, n_indices: int) -> float:
        """See `EntropyModel.least_bits`: the bound is 0, since the coder derives a better one from the tables."""
        del n_indices
        return 0.0


def batches_bits(model: EntropyModel, indices_hw: npt.NDArray[Any]) -> float:
    """Return the cross-entropy of indices in bits, summed over a model's batches; errors as in `estimated_bits`."""
    indices_N = check_indices(indices_hw, model.codebook_size)
    known = model.known_batches(indices_hw)
    if known is not None:
        return sum(_batch_bits(batch, batch.symbols(indices_N)) for batch in known)
    height, width = indices_hw.shape
    coding, total, symbols = model.batches((height, width)), 0.0, None
    while True:
        try:
            batch = next(coding) if symbols is None else coding.send(symbols)
        except StopIteration:
            return total
        symbols = batch.symbols(indices_N)
        total += _batch_bits(batch, symbols)


def _batch_bits(batch: Batch, symbols_N: IndexArray) -> float:
    if isinstance(batch.tables, FrequencyTables):
        return cross_entropy_bits(symbols_N, batch.tables)
    counts_NK = batch.tables.counts_NK
    counts_N = counts_NK[np.arange(len(symbols_N)), symbols_N].clip(1)  # 0 stands for less than 2**-24
    return float((np.log2(counts_NK.sum(axis=1)) - np.log2(counts_N)).sum())


def weights_digest(config: Config, tensors: Mapping[str, Tensor]) -> bytes:
    """Return the SHA-256 over a configuration and the integers of a model, 32 bytes."""
    digest = hashlib.sha256(json.dumps(identity(config), sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        flat = value.detach().cpu().contiguous().view(-1)
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.digest()


def check_indices(indices_hw: npt.NDArray[Any], codebook_size: int) -> IndexArray:
    """Return the indices (h, w) as int64 (N,) in raster order; errors as in `EntropyModel.estimated_bits`."""
    indices = np.asarray(indices_hw)
    if indices.ndim != 2 or indices.size == 0 or indices.dtype.kind not in "iu":
        raise ShapeError(f"expected an integer array (h, w) of indices, not empty, got {indices.dtype}", indices.shape)
    low, high = int(indices.min()), int(indices.max())
    if low < 0 or high >= codebook_size:
        raise BitstreamError(
            f"index {low if low < 0 else high} is outside [0, {codebook_size}): "
            "the entropy model must have the size of the codebook"
        )
    return indices.reshape(-1).astype(np.int64)


def check_shape(shape_hw: tuple[int, int]) -> int:
    """Return the number of indices of h x w positions; raise `ShapeError` unless both are positive."""
    if len(shape_hw) != 2 or min(shape_hw) < 1:
        raise ShapeError("expected a latent shape (h, w) with positive sides", shape_hw)
    return math.prod(shape_hw)


def cross_entropy_bits(symbols_N: IndexArray, tables: FrequencyTables) -> float:
    """Return the bits that an ideal coder needs for the symbols under the exact counts."""
    table_of_N = 0 if tables.table_of_N is None else tables.table_of_N
    counts_N = tables.counts_TK[table_of_N, symbols_N]
    totals_T = tables.counts_TK.sum(axis=1)
    return float((np.log2(totals_T[table_of_N]) - np.log2(counts_N)).sum())
