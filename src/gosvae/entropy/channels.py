"""Entropy model with one histogram for each channel of a latent, measured on training data on a fine scale.

Axis legend: D channels, F fine integers, K symbols, N symbols of an image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gosvae.entropy.base import FrequencyTables, IndexArray
from gosvae.entropy.ids import EntropyModelId
from gosvae.errors import ConfigError


class ChannelHistograms:
    """Use this when an autoencoder codes its latent at any step.

    Compared with `LatentContextModel`, it needs no network, and one table serves all rates. It sees neither neighbours
    nor other channels, so it takes more bytes.

    Each channel has a table of counts. Fine integers -L..L (F = 2 L + 1 of them) become the symbols
    floor((fine + floor(step / 2)) / step), and a symbol's count is the sum of the counts of its fine integers. Indices
    are symbols less the smallest one. The class is not an `EntropyModel`, which codes one grid of positions: here every
    position has D indices.

    Args:
        counts_DF: integer counts (D, F) of the fine integers of each channel.
        step: number of fine integers that become one symbol.

    Raises:
        ConfigError: the counts are not integers (D, F) of at least 1 with an odd F, or the step is outside 1..F.
    """

    model_id = EntropyModelId.CHANNEL_HISTOGRAMS
    name = "channel-histograms"

    def __init__(self, counts_DF: npt.NDArray[Any], step: int = 1) -> None:
        counts = np.asarray(counts_DF)
        if counts.ndim != 2 or counts.dtype.kind not in "iu" or counts.shape[1] % 2 == 0 or counts.min() < 1:
            raise ConfigError(
                "channel histograms: expected integer counts (D, F) of at least 1 with an odd F, "
                f"got {counts.dtype} {counts.shape}"
            )
        n_fine = counts.shape[1]
        if not 1 <= step <= n_fine:
            raise ConfigError(f"channel histograms: step {step}, expected 1..{n_fine}")
        symbols_F = (np.arange(n_fine) - n_fine // 2 + step // 2) // step
        starts_K = np.flatnonzero(np.diff(symbols_F, prepend=symbols_F[0] - 1))
        self.smallest_symbol = int(symbols_F[0])
        self.counts_DK: IndexArray = np.add.reduceat(counts.astype(np.int64), starts_K, axis=1)

    def tables(self, n_positions: int) -> FrequencyTables:
        """Return tables for the indices of a latent: channel 0 comes first, and each channel is in raster order."""
        return FrequencyTables(self.counts_DK, np.repeat(np.arange(len(self.counts_DK)), n_positions))

    def least_bits(self, n_positions: int) -> float:
        """Return a lower bound of the bits that the indices of `n_positions` positions take."""
        weights_DK = FrequencyTables(self.counts_DK).weights_TK
        return float(-np.log2(weights_DK.max(axis=1) / weights_DK.sum(axis=1)).sum()) * n_positions
