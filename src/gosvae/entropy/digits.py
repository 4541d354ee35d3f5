"""Digits of indices, so that large codebooks need no large tables.

Axis legend: K codes, D digits, C values of a code vector, N indices.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gosvae.entropy.base import IndexArray
from gosvae.errors import BitstreamError, ConfigError

MOST_VALUES = 1024
"""Largest number of codes of a codebook whose indices are one digit."""

MOST_NUMBERS = 2**20
"""Largest product of the numbers of values of all digits, which bounds the memory of the table of indices."""


class Digits:
    """A one-to-one map from indices in [0, K) to D digits; digit d is in [0, values[d]).

    Raises:
        ConfigError: two indices have the same digits, or a digit is outside its range.
    """

    def __init__(self, table_KD: npt.NDArray[np.integer], values: tuple[int, ...]) -> None:
        table = np.ascontiguousarray(table_KD, dtype=np.int64)
        if table.ndim != 2 or table.shape[1] != len(values) or (table < 0).any() or (table >= np.array(values)).any():
            raise ConfigError(f"digits: a table {table.shape} of digits does not fit the numbers of values {values}")
        self.table_KD, self.values = table, values
        self._basis_D = np.array([math.prod(values[:d]) for d in range(len(values))], np.int64)
        self._index_of = np.full(math.prod(values), -1, np.int64)
        numbers_K = table @ self._basis_D
        self._index_of[numbers_K] = np.arange(len(table))
        if (self._index_of >= 0).sum() != len(table):
            raise ConfigError("digits: two indices have the same digits")

    def __len__(self) -> int:
        return len(self.values)

    def indices(self, digits_ND: IndexArray) -> IndexArray:
        """Return the indices (N,) of digits (N, D).

        Raises:
            BitstreamError: no index has these digits.
        """
        indices_N: IndexArray = self._index_of[digits_ND @ self._basis_D]
        if indices_N.size and indices_N.min() < 0:
            raise BitstreamError("payload decodes to digits that no index has: damaged")
        return indices_N

    def allowed(self, digits_ND: IndexArray) -> npt.NDArray[np.bool_]:
        """Return, bool (N, V), whether each value of the last digit makes an index with the other digits."""
        others_N = digits_ND[:, :-1] @ self._basis_D[:-1]
        numbers_NV = others_N[:, None] + self._basis_D[-1] * np.arange(self.values[-1])
        allowed_NV: npt.NDArray[np.bool_] = self._index_of[numbers_NV] >= 0
        return allowed_NV


def positional(codebook_size: int, values: tuple[int, ...]) -> npt.NDArray[np.uint16]:
    """Return the digits (K, D) of the indices as numbers whose first digit changes the fastest, as in FSQ."""
    numbers = np.arange(codebook_size)
    basis = [math.prod(values[:d]) for d in range(len(values))]
    return np.stack([numbers // b % v for b, v in zip(basis, values, strict=True)], axis=1).astype(np.uint16)


def clustered(vectors_KC: npt.NDArray[np.floating]) -> npt.NDArray[np.uint16]:
    """Return two digits (K, 2) of codes that have no structure: the cluster, and the place within the cluster.

    The clusters are balanced, with ceil(sqrt(K)) codes each: a balanced tree halves the codes repeatedly at the median
    of their main axis. The result is stored with the model, so it need not be the same on every machine.
    """
    vectors = np.asarray(vectors_KC, np.float64)
    size = math.isqrt(len(vectors) - 1) + 1
    ordered = _by_tree(vectors, np.arange(len(vectors)), size)
    places = np.empty(len(vectors), np.int64)
    places[ordered] = np.arange(len(vectors))
    return np.stack([places // size, places % size], axis=1).astype(np.uint16)


def _by_tree(vectors_KC: npt.NDArray[np.float64], members: IndexArray, size: int) -> IndexArray:
    """Return the members in an order in which runs of `size`, aligned to its multiples, are neighbours in space."""
    if len(members) == 1:
        return members
    centred = vectors_KC[members] - vectors_KC[members].mean(axis=0)
    axis = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    ordered = members[np.argsort(centred @ axis, kind="stable")]
    n_clusters = -(-len(members) // size)
    half = n_clusters // 2 * size if n_clusters > 1 else len(members) // 2
    return np.concatenate([_by_tree(vectors_KC, part, size) for part in (ordered[:half], ordered[half:])])
