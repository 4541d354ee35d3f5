"""The entropy model contract: how probable is each index, in integers.

Axis legend: N indices in raster order, T tables, K codes, h and w latent positions.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

from gosvae.errors import BitstreamError, ConfigError, ShapeError

IndexArray = npt.NDArray[np.int64]

MAX_CODEBOOK_SIZE = 65536
TABLE_BITS = 24
"""Precision of the range coder: the weights of one table sum to 2**24."""
_MAX_TOTAL_COUNT = 2**39


@dataclass(frozen=True, eq=False)
class FrequencyTables:
    """Integer frequencies of the K indices under T tables.

    Attributes:
        counts_TK: int64, every count at least 1, the sum of a table below 2**39; K at most 65536.
        table_of_N: int64 table number of every symbol, or None where all symbols use table 0.

    Raises:
        ConfigError: counts that break these limits.
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
        """K, the number of different indices."""
        return int(self.counts_TK.shape[1])

    @cached_property
    def weights_TK(self) -> IndexArray:
        """The tables as the coder uses them: int64 (T, K), at least 1 each, 2**24 in each row.

        The left cumulative weight of index i is `floor(C_i * (2**24 - K) / S) + i`, with C_i the sum of the counts
        before i and S of all: one integer division, so every machine gets the same.
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
        """One model of constriction for each table (K of at least 2)."""
        # constriction takes floats p, and computes the left cumulative of i as floor(sum(p[:i]) * scale) + i with
        # scale = (2**24 - K) / sum(p). Integers that sum to 2**24 - K make scale exactly 1.0 and every sum exact, so
        # its tables are `weights_TK` to the last bit, on every machine.
        return [
            constriction.stream.model.Categorical((row_K - 1).astype(np.float64), perfect=False)
            for row_K in self.weights_TK
        ]


class EntropyModel(ABC):
    """Knows how probable indices are; it never sees bytes.

    `tables` is called once for each image, before anything of it is decoded: enough for models that depend on the
    position. A model that conditions on decoded indices codes in several passes; it will add
    `tables(shape_hw, known_N)`, called once for each pass with what the passes before it have decoded.
    """

    model_id: int
    """Number in the header of a stream, 0..255; never reused."""
    name: str
    codebook_size: int
    """K, the number of different indices."""

    @abstractmethod
    def tables(self, shape_hw: tuple[int, int]) -> FrequencyTables:
        """Tables for the h * w indices of one image in raster order."""

    @abstractmethod
    def estimated_bits(self, indices_hw: npt.NDArray[Any]) -> float:
        """Cross-entropy of the indices under this model, in bits: what an ideal coder would need.

        Raises:
            ShapeError: the indices are not an integer array (h, w), or have a side of 0.
            BitstreamError: an index is outside [0, K).
        """


def check_indices(indices_hw: npt.NDArray[Any], codebook_size: int) -> IndexArray:
    """The indices (h, w) as int64 (N,) in raster order; errors as in `EntropyModel.estimated_bits`."""
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
    """Number of indices of a latent of h x w positions; `ShapeError` unless both are positive."""
    if len(shape_hw) != 2 or min(shape_hw) < 1:
        raise ShapeError("expected a latent shape (h, w) with positive sides", shape_hw)
    return math.prod(shape_hw)


def cross_entropy_bits(symbols_N: IndexArray, tables: FrequencyTables) -> float:
    """Bits that an ideal coder needs for the symbols under the exact counts."""
    table_of_N = 0 if tables.table_of_N is None else tables.table_of_N
    counts_N = tables.counts_TK[table_of_N, symbols_N]
    totals_T = tables.counts_TK.sum(axis=1)
    return float((np.log2(totals_T[table_of_N]) - np.log2(counts_N)).sum())
