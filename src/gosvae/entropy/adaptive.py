"""Entropy model that adapts its counts while an image is coded, starting from the static histogram."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import numpy.typing as npt

from gosvae.entropy.base import Batch, EntropyModel, FrequencyTables, IndexArray, batches_bits, check_shape
from gosvae.entropy.ids import EntropyModelId
from gosvae.entropy.static import StaticHistogram

PRIOR_TOTAL = 2**20
"""Approximate sum of the counts at the beginning of an image."""
OBSERVED = 2**11
"""Weight of one index that has been coded: the static histogram weighs as much as 512 of them."""
MOST_OBSERVED = 2**15
"""Number of counted indices at which all counts are halved: recent ones weigh more, and sums stay small."""
LEAST_BATCH = 64
"""Least number of indices between two updates of the counts."""


class AdaptiveCounts(EntropyModel):
    """Use this when images are unlike the training data and there is no context model.

    Compared with `StaticHistogram`, it follows the image and takes a little longer. Compared with `ContextModel`, it is
    faster and takes more bytes.

    It has one histogram for a grid in raster order, which it updates after every batch of indices, in integers only.

    Args:
        counts_K: static histogram, as in `StaticHistogram`, with the same errors.
    """

    model_id = EntropyModelId.ADAPTIVE_COUNTS
    name = "adaptive-counts"

    def __init__(self, counts_K: npt.NDArray[Any]) -> None:
        static_K = StaticHistogram(counts_K).counts_K
        self.codebook_size = len(static_K)
        # 2**20 * count fits int64 for all counts below 2**39 (`FrequencyTables`); at least 1 for every index.
        self.prior_K = static_K * PRIOR_TOTAL // int(static_K.sum()) + 1

    @property
    def batch_size(self) -> int:
        """Number of indices between two updates: a table of K entries takes as long as coding about K / 8 indices."""
        return max(LEAST_BATCH, self.codebook_size // 8)

    def least_bits(self, n_indices: int) -> float:
        """See `EntropyModel.least_bits`: the bound holds for an image in which a single index occurs."""
        total = int(self.prior_K.sum())
        rest = total - int(self.prior_K.max())
        most = OBSERVED * (MOST_OBSERVED + self.batch_size)
        return 0.9 * n_indices * float(np.log2(1 + rest / (most + total)))  # 0.9: the coder's tables are rounded

    def estimated_bits(self, indices_hw: npt.NDArray[Any]) -> float:
        """Return the cross-entropy, in bits, of the indices under the counts at the time when each is coded."""
        return batches_bits(self, indices_hw)

    def batches(self, shape_hw: tuple[int, int]) -> Generator[Batch, IndexArray, IndexArray]:
        """See `EntropyModel.batches`: the batches are runs of indices in raster order."""
        n_indices, size = check_shape(shape_hw), self.batch_size
        observed_K = np.zeros(self.codebook_size, np.int64)
        decoded = []
        for first in range(0, n_indices, size):
            where = slice(first, min(first + size, n_indices))
            symbols = yield Batch(where, FrequencyTables((self.prior_K + OBSERVED * observed_K)[None]))
            decoded.append(symbols)
            observed_K += np.bincount(symbols, minlength=self.codebook_size)
            if observed_K.sum() >= MOST_OBSERVED:
                observed_K //= 2
        return np.concatenate(decoded)
