"""Counts that are learnt while an image is coded, from the static histogram on.

Use this when images are unlike the training data and there is no context model: compared with the static histogram it
follows the image and takes a little longer; compared with the context model it is faster and takes more bytes.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import numpy.typing as npt

from gosvae.entropy.base import Batch, EntropyModel, FrequencyTables, IndexArray, batches_bits, check_shape
from gosvae.entropy.ids import EntropyModelId
from gosvae.entropy.static import StaticHistogram

PRIOR_TOTAL = 2**20
"""Total, about, of the static histogram at the beginning of an image."""
OBSERVED = 2**11
"""Weight of one index that has been coded: the histogram weighs as much as 512 of them."""
MOST_OBSERVED = 2**15
"""Number of counted indices at which all counts are halved: recent ones weigh more, and sums stay small."""
LEAST_BATCH = 64
"""Least number of indices between two counts."""


class AdaptiveCounts(EntropyModel):
    """One histogram for a grid in raster order, updated after every batch of indices, in integers throughout.

    Args:
        counts_K: the static histogram, as `StaticHistogram` takes it; errors are its.
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
        """Number of indices between two counts: a table of K entries costs as much as coding about K / 8 indices."""
        return max(LEAST_BATCH, self.codebook_size // 8)

    def least_bits(self, n_indices: int) -> float:
        """See `EntropyModel.least_bits`: an image in which a single index occurs takes this."""
        total = int(self.prior_K.sum())
        rest = total - int(self.prior_K.max())
        most = OBSERVED * (MOST_OBSERVED + self.batch_size)
        return 0.9 * n_indices * float(np.log2(1 + rest / (most + total)))  # 0.9: the coder's tables are rounded

    def estimated_bits(self, indices_hw: npt.NDArray[Any]) -> float:
        """Return the cross-entropy of the indices under the counts as they develop, in bits."""
        return batches_bits(self, indices_hw)

    def batches(self, shape_hw: tuple[int, int]) -> Generator[Batch, IndexArray, IndexArray]:
        """See `EntropyModel.batches`: runs of indices in raster order."""
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
