"""The order in which a grid of indices is coded: a coarse lattice first, then refinements, each in three passes.

A lattice of spacing 2s is refined to spacing s: the centres of its squares first, then the middles of its horizontal
edges, then those of its vertical edges (quincunx order). All positions of a pass are coded at once; each sees
positions of the passes before, on several sides.

Axis legend: N positions of a pass, T taps (neighbours that a position sees), h and w latent positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

KINDS = 3
"""Geometries of a pass within a refinement; they have one set of taps each, scaled by the spacing."""
_REACH = 3
"""A tap is at most so many spacings away on each axis."""


@dataclass(frozen=True)
class Pass:
    """Positions (`top` + i * `step`, `left` + j * `step`), and what they see.

    Attributes:
        kind: 0 centres, 1 horizontal, 2 vertical edges; None for the first pass, which sees nothing.
        level: which refinement, 0 is the coarsest.
        spacing: s, between the positions that are known after the refinement.
    """

    step: int
    top: int
    left: int
    kind: int | None = None
    level: int = 0
    spacing: int = 0

    def positions(self, shape_hw: tuple[int, int]) -> npt.NDArray[np.int64]:
        """Raster numbers (N,) of the positions in a grid, in raster order; there may be none."""
        height, width = shape_hw
        rows = np.arange(self.top, height, self.step, dtype=np.int64)
        columns = np.arange(self.left, width, self.step, dtype=np.int64)
        return (rows[:, None] * width + columns).reshape(-1)


def taps(kind: int, most: int) -> tuple[tuple[int, int], ...]:
    """Offsets (dy, dx), in spacings, of the known positions that a pass of this kind sees: the nearest, at most `most`.

    Of the points of the refined lattice, those with coordinates (even, even) seen from the coarse lattice are known
    from the start, (odd, odd) after kind 0, (even, odd) after kind 1.
    """
    target = ((1, 1), (0, 1), (1, 0))[kind]
    known = ((0, 0), (1, 1), (0, 1))[: kind + 1]
    span = range(-_REACH, _REACH + 1)
    offsets = [(dy, dx) for dy in span for dx in span if ((target[0] + dy) % 2, (target[1] + dx) % 2) in known]
    nearest = sorted(offsets, key=lambda offset: (offset[0] ** 2 + offset[1] ** 2, offset))
    return tuple(nearest[:most])


def reach(refinements: int) -> int:
    """The greatest distance of a tap, on each axis."""
    return _REACH << max(0, refinements - 1)


def passes(refinements: int) -> tuple[Pass, ...]:
    """`1 + 3 * refinements` passes that cover every position once; the first lattice has spacing 2**refinements."""
    coarse = 2**refinements
    result = [Pass(coarse, 0, 0)]
    for level in range(refinements):
        step = coarse >> level
        s = step // 2
        for kind, (top, left) in enumerate(((s, s), (0, s), (s, 0))):
            result.append(Pass(step, top, left, kind, level, s))
    return tuple(result)
