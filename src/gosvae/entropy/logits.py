"""Conversion of logits to counts, in integers.

Axis legend: N positions, V values.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gosvae.entropy.base import IndexArray

LOGIT_BITS = 4
"""Number of fractional bits of logits, which are in units of 2**-4 bit."""
COUNT_BITS = 24
"""Binary logarithm of the count of a position's most probable value, 2**24."""


def _powers() -> IndexArray:
    """Return floor(2**24 * 2**(-d / 16)) for d = 0, 1, ... until it is 0.

    Integer square roots give the same values on every machine; the `exp` of a library may not.
    """
    units = 1 << LOGIT_BITS
    # The 16th root of 2**(16 * 24 - d), rounded down, is four square roots, each rounded down.
    result = []
    for d in range(units * COUNT_BITS + 1):
        value = 1 << (units * COUNT_BITS - d)
        for _ in range(LOGIT_BITS):
            value = math.isqrt(value)
        result.append(value)
    return np.array([*result, 0], np.int64)


COUNTS = _powers()
"""Counts by the distance of a logit from the largest logit of its position."""


def counts_of_logits(logits_NV: npt.NDArray[np.integer]) -> IndexArray:
    """Return the counts (N, V) of integer logits: `COUNTS[largest logit of the row - logit]`, or 0 beyond the table."""
    distances_NV = np.maximum.reduce(logits_NV, axis=1, keepdims=True) - logits_NV
    result: IndexArray = COUNTS.take(distances_NV, mode="clip")
    return result
