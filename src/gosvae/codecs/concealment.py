"""Concealment of lost indices, by the context model's most probable ones or by the nearest known ones.

Axis legend: H and W pixels, h and w latent positions, N positions that are guessed together.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from gosvae.entropy.context import ContextModel

MOST_RINGS = 16
"""Number of latent positions from the edge of a hole inwards that the context model fills.

Deeper positions get the nearest known index, which is as good a guess there and bounds the work.
"""
SWEEPS = 2
"""Largest number of passes that guess again with the other guesses as neighbours (iterated conditional modes, Besag
1986)."""

IndexArray = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Scalar = TypeVar("Scalar", np.int64, np.bool_)
_BESIDE = ((-1, 0), (1, 0), (0, -1), (0, 1))


def conceal_indices(indices_hw: IndexArray, known_hw: Mask, context: ContextModel | None) -> IndexArray:
    """Return indices, int64 (h, w): the known ones, and guesses for the others.

    Holes are filled from their edges inwards. Each position has the index that the context model finds most probable
    given the neighbours that are known or filled already; then each guess is made again, given the others.

    Args:
        indices_hw: indices, with any value where they are not known.
        known_hw: positions that are known, at least one.
        context: context model; None gives every position the index of the nearest known one (by steps along the axes).
    """
    indices_hw, known_hw = indices_hw.copy(), known_hw.copy()
    lost_N = np.flatnonzero(~known_hw)
    if context is not None:
        for _ in range(MOST_RINGS):
            ring_N = np.flatnonzero(~known_hw & _beside(known_hw))
            if not len(ring_N):
                break
            indices_hw.reshape(-1)[ring_N] = context.most_probable(indices_hw, known_hw, ring_N)
            known_hw.reshape(-1)[ring_N] = True
    filled_hw = nearest_known(indices_hw, known_hw)
    if context is not None and len(lost_N):
        for _ in range(SWEEPS):
            guesses_N = context.most_probable(filled_hw, np.ones_like(known_hw), lost_N)
            if np.array_equal(guesses_N, filled_hw.reshape(-1)[lost_N]):
                break
            filled_hw.reshape(-1)[lost_N] = guesses_N
    return filled_hw


def nearest_known(indices_hw: IndexArray, known_hw: Mask) -> IndexArray:
    """Return the indices (h, w); an unknown one is that of the nearest known position, by steps along the axes."""
    indices_hw, known_hw = indices_hw.copy(), known_hw.copy()
    while not known_hw.all():
        found_hw = known_hw.copy()
        for dy, dx in _BESIDE:
            there_hw = _shifted(known_hw, dy, dx) & ~found_hw
            indices_hw[there_hw] = _shifted(indices_hw, dy, dx)[there_hw]
            found_hw |= there_hw
        known_hw = found_hw
    return indices_hw


def concealed_pixels(known_hw: Mask, stride: int, height: int, width: int) -> Mask:
    """Return the pixels, bool (height, width), whose latent position is not known."""
    return (~known_hw).repeat(stride, axis=0).repeat(stride, axis=1)[:height, :width]


def _beside(known_hw: Mask) -> Mask:
    """Return the positions with a known one above, below, left or right."""
    beside_hw: Mask = np.logical_or.reduce([_shifted(known_hw, dy, dx) for dy, dx in _BESIDE])
    return beside_hw


def _shifted(grid_hw: npt.NDArray[Scalar], dy: int, dx: int) -> npt.NDArray[Scalar]:
    """Return the values at (y - dy, x - dx), with zeros outside of the grid."""
    height, width = grid_hw.shape
    result = np.zeros_like(grid_hw)
    result[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = grid_hw[
        max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)
    ]
    return result
