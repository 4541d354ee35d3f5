"""Entropy model of fixed-length codes: every index takes ceil(log2 K) bits, whatever the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gosvae.entropy.base import (
    MAX_CODEBOOK_SIZE,
    FrequencyTables,
    IndexArray,
    TableModel,
    check_indices,
    check_shape,
)
from gosvae.entropy.ids import EntropyModelId
from gosvae.errors import BitstreamError, ConfigError


class FixedLength(TableModel):
    """Use this when the size of a stream must be known in advance.

    Compared with `StaticHistogram` and all other models, it needs no statistics, and typical images take more bytes. It
    is also the fallback for images that take more bytes with another model.

    All K indices count as equally probable and are coded with the same number of bits.

    Raises:
        ConfigError: K is not in 1..65536.
    """

    model_id = EntropyModelId.FIXED_LENGTH
    name = "fixed-length"

    def __init__(self, codebook_size: int) -> None:
        if not 1 <= codebook_size <= MAX_CODEBOOK_SIZE:
            raise ConfigError(f"codebook size {codebook_size}: expected 1..{MAX_CODEBOOK_SIZE}")
        self.codebook_size = codebook_size
        self.bits_per_index = (codebook_size - 1).bit_length()

    def tables(self, shape_hw: tuple[int, int]) -> FrequencyTables:
        """Return one table of 2**bits equal counts, so that an index costs whole bits."""
        check_shape(shape_hw)
        return FrequencyTables(np.ones((1, 2**self.bits_per_index), np.int64))

    def estimated_bits(self, indices_hw: npt.NDArray[Any]) -> float:
        """Return `h * w * ceil(log2 K)`, which is exact."""
        return float(check_indices(indices_hw, self.codebook_size).size * self.bits_per_index)

    def pack(self, symbols_N: IndexArray) -> bytes:
        """Return the indices as big-endian numbers of `bits_per_index` bits, with zero bits at the end."""
        bits_N32 = np.unpackbits(symbols_N.astype(">u4").view(np.uint8).reshape(-1, 4), axis=1)
        return np.packbits(bits_N32[:, 32 - self.bits_per_index :]).tobytes()

    def unpack(self, data: bytes, n_symbols: int) -> IndexArray:
        """Return the indices from which `pack` made these bytes.

        Raises:
            BitstreamError: the length is wrong, an index is outside [0, K), or a bit after the last index is set.
        """
        n_bits = n_symbols * self.bits_per_index
        expected = -(-n_bits // 8)
        if len(data) != expected:
            raise BitstreamError(f"payload of {len(data)} bytes where {n_symbols} fixed-length indices take {expected}")
        bits = np.unpackbits(np.frombuffer(data, np.uint8))
        bits_N32 = np.zeros((n_symbols, 32), np.uint8)
        bits_N32[:, 32 - self.bits_per_index :] = bits[:n_bits].reshape(n_symbols, self.bits_per_index)
        symbols_N: IndexArray = np.packbits(bits_N32, axis=1).view(">u4").reshape(-1).astype(np.int64)
        if bits[n_bits:].any() or symbols_N.max() >= self.codebook_size:
            raise BitstreamError(f"payload is not {n_symbols} fixed-length indices below {self.codebook_size}: damaged")
        return symbols_N
