"""Logits to counts in integers.

Axis legend: N positions, V values.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gosvae.entropy.base import IndexArray

LOGIT_BITS = 4
"""Logits are in units of 2**-4 bit."""
COUNT_BITS = 24
"""The most probable value of a position has the count 2**24."""


def _powers() -> IndexArray:
    """floor(2**24 * 2**(-d / 16)) for d = 0, 1, ... down to 0, by integer square roots: no library's exp is trusted."""
    units = 1 << LOGIT_BITS
    # The 16th root of 2**(16 * 24 - d), rounded down: a square root, rounded down, four times.
    result = []
    for d in range(units * COUNT_BITS + 1):
        value = 1 << (units * COUNT_BITS - d)
        for _ in range(LOGIT_BITS):
            value = math.isqrt(value)
        result.append(value)
    return np.array([*result, 0], np.int64)


COUNTS = _powers()


def counts_of_logits(logits_NV: npt.NDArray[np.integer]) -> IndexArray:
    """Counts (N, V) of integer logits: `COUNTS[largest logit of the row - logit]`, 0 beyond the table."""
    distances_NV = logits_NV.max(axis=1, keepdims=True) - logits_NV
    result: IndexArray = COUNTS.take(distances_NV, mode="clip")
    return result
