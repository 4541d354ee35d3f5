"""One histogram for each channel of a latent grid of integers, measured on training data on a fine scale.

Axis legend: D channels, F fine integers, K symbols, h and w latent positions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gosvae.entropy.base import (
    FrequencyTables,
    IndexArray,
    TableModel,
    check_indices,
    check_shape,
    cross_entropy_bits,
)
from gosvae.errors import ConfigError, ShapeError


class ChannelHistograms(TableModel):
    """A table of counts for each channel: the sums of `step` neighbouring fine counts.

    Fine integers -L..L (F = 2 L + 1 of them) become the symbols floor((fine + floor(step / 2)) / step), and a
    symbol's count is the sum of the counts of its fine integers. Indices are symbols less the smallest one. An image
    has D * h rows of w indices: all rows of channel 0 first.

    Raises:
        ConfigError: counts that are not integers (D, F) of at least 1 with an odd F, or a step outside 1..F.
    """

    model_id = 16
    name = "channel-histograms"

    def __init__(self, counts_DF: npt.NDArray[Any], step: int = 1) -> None:
        counts = np.asarray(counts_DF)
        if counts.ndim != 2 or counts.dtype.kind not in "iu" or counts.shape[1] % 2 == 0:
            raise ConfigError(f"channel histograms: expected integers (D, F), F odd, got {counts.dtype} {counts.shape}")
        n_fine = counts.shape[1]
        if not 1 <= step <= n_fine:
            raise ConfigError(f"channel histograms: step {step}, expected 1..{n_fine}")
        symbols_F = (np.arange(n_fine) - n_fine // 2 + step // 2) // step
        self.smallest_symbol = int(symbols_F[0])
        starts_K = np.flatnonzero(np.diff(symbols_F, prepend=symbols_F[0] - 1))
        self.counts_DK: IndexArray = np.add.reduceat(counts.astype(np.int64), starts_K, axis=1)
        self.codebook_size = self.counts_DK.shape[1]

    def tables(self, shape_hw: tuple[int, int]) -> FrequencyTables:
        """The table of its channel for every index of an image of D * h rows.

        Raises:
            ShapeError: the rows are no multiple of D.
        """
        n_indices, channels = check_shape(shape_hw), len(self.counts_DK)
        if n_indices and shape_hw[0] % channels:
            raise ShapeError(f"expected rows for each of {channels} channels", shape_hw)
        if channels == 1:
            return FrequencyTables(self.counts_DK)
        return FrequencyTables(self.counts_DK, np.repeat(np.arange(channels), n_indices // channels))

    def estimated_bits(self, indices_hw: npt.NDArray[Any]) -> float:
        """Cross-entropy of the indices under the histograms, in bits."""
        symbols_N = check_indices(indices_hw, self.codebook_size)
        height, width = indices_hw.shape
        return cross_entropy_bits(symbols_N, self.tables((height, width)))

    def least_bits(self) -> float:
        """Bits that one position of all channels takes at least: no fewer bytes can hold so many positions."""
        weights_DK = FrequencyTables(self.counts_DK).weights_TK
        return float(-np.log2(weights_DK.max(axis=1) / weights_DK.sum(axis=1)).sum())
