"""Entropy model with one histogram for all positions and images, which is measured on training data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from gosvae.entropy.base import FrequencyTables, TableModel, check_indices, check_shape, cross_entropy_bits
from gosvae.entropy.ids import EntropyModelId
from gosvae.errors import ConfigError


class StaticHistogram(TableModel):
    """Use this when coding and decoding must be fast.

    Compared with `AdaptiveCounts`, it is faster and does not follow images that are unlike the training data. Compared
    with `ContextModel`, it is faster and takes more bytes, because it does not see the neighbours of an index.

    Args:
        counts_K: number of times that each of the K indices occurs in the training data, plus 1.

    Raises:
        ConfigError: a count is below 1, the counts are not integers, or K is not in 1..65536.
    """

    model_id = EntropyModelId.STATIC_HISTOGRAM
    name = "static-histogram"

    def __init__(self, counts_K: npt.NDArray[Any]) -> None:
        counts = np.asarray(counts_K)
        if counts.ndim != 1 or counts.dtype.kind not in "iu":
            raise ConfigError(f"histogram: expected a list of K integer counts, got {counts.dtype} {counts.shape}")
        self.counts_K = counts.astype(np.int64)
        self.codebook_size = len(self.counts_K)
        # Kept here because it holds the models of the range coder, which are built at their first use.
        self._tables = FrequencyTables(self.counts_K[None])

    @classmethod
    def fit(cls, indices: Iterable[npt.NDArray[Any]], codebook_size: int) -> StaticHistogram:
        """Return the histogram of the indices of many images, (h, w) each, plus one so that every index can be coded.

        Raises:
            ShapeError, BitstreamError: see `EntropyModel.estimated_bits`.
        """
        counts_K = np.ones(codebook_size, np.int64)
        for indices_hw in indices:
            counts_K += np.bincount(check_indices(indices_hw, codebook_size), minlength=codebook_size)
        return cls(counts_K)

    def tables(self, shape_hw: tuple[int, int]) -> FrequencyTables:
        """Return the same table for every position and every size."""
        check_shape(shape_hw)
        return self._tables

    def estimated_bits(self, indices_hw: npt.NDArray[Any]) -> float:
        """Return the cross-entropy of the indices under the histogram, in bits."""
        return cross_entropy_bits(check_indices(indices_hw, self.codebook_size), self._tables)
