"""One histogram for all positions and all images, measured on training data and stored in the checkpoint.

Use this when streams must be coded and decoded in next to no time: compared with adaptive counts it is faster and does
not follow an image that is unlike the training data, compared with the context model it does not see the neighbours of
an index, which say most about it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from gosvae.entropy.base import FrequencyTables, TableModel, check_indices, check_shape, cross_entropy_bits
from gosvae.entropy.ids import EntropyModelId
from gosvae.errors import ConfigError


class StaticHistogram(TableModel):
    """A static table of K integer counts.

    Raises:
        ConfigError: a count below 1, counts that are not integers, or K not in 1..65536.
    """

    model_id = EntropyModelId.STATIC_HISTOGRAM
    name = "static-histogram"

    def __init__(self, counts_K: npt.NDArray[Any]) -> None:
        counts = np.asarray(counts_K)
        if counts.ndim != 1 or counts.dtype.kind not in "iu":
            raise ConfigError(f"histogram: expected a list of K integer counts, got {counts.dtype} {counts.shape}")
        self.counts_K = counts.astype(np.int64)
        self.codebook_size = len(self.counts_K)
        # Kept: the models of the range coder, built at the first use, live in it.
        self._tables = FrequencyTables(self.counts_K[None])

    @classmethod
    def fit(cls, indices: Iterable[npt.NDArray[Any]], codebook_size: int) -> StaticHistogram:
        """Return the histogram of the indices of many images, (h, w) each, plus one so that every index can be coded.

        Raises:
            ShapeError, BitstreamError: as `EntropyModel.estimated_bits`.
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
