"""Order in which a grid of indices is coded: a coarse lattice first, then refinements, in quincunx order.

A lattice of spacing 2s is refined to spacing s: the centres of its squares first, then the middles of its horizontal
and vertical edges. In the last refinement, which has three quarters of all positions, vertical edges come after
horizontal ones and see them; in the others both are one pass. All positions of a pass are coded at once; each sees
positions of the passes before, on several sides.

Axis legend: N positions of a pass, T taps (neighbours that a position sees), h and w latent positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate

import numpy as np
import numpy.typing as npt

KINDS = 3
"""Number of kinds of parts in a refinement; each kind has its own taps, scaled by the spacing."""
_REACH = 3
"""Largest distance of a tap on each axis, in spacings."""


@dataclass(frozen=True)
class Part:
    """A pass, or a part of one.

    Attributes:
        step, top, left: steps and offsets of the positions, which are (`top` + i * `step`, `left` + j * `step`).
        kind: 0 for centres, 1 for horizontal edges, 2 for vertical edges; None for the first pass, which sees nothing.
        level: number of the refinement; 0 is the coarsest.
        spacing: distance between neighbouring positions that are known after the refinement, s.
        sees_edges: whether a part of kind 2 sees the horizontal edges of its refinement.
    """

    step: int
    top: int
    left: int
    kind: int | None = None
    level: int = 0
    spacing: int = 0
    sees_edges: bool = True

    def positions(self, shape_hw: tuple[int, int]) -> npt.NDArray[np.int64]:
        """Return the raster numbers (N,) of the positions in a grid, in raster order; the result may be empty."""
        height, width = shape_hw
        rows = np.arange(self.top, height, self.step, dtype=np.int64)
        columns = np.arange(self.left, width, self.step, dtype=np.int64)
        return (rows[:, None] * width + columns).reshape(-1)


@cache
def taps(kind: int, most: int) -> tuple[tuple[int, int], ...]:
    """Return the offsets (dy, dx), in spacings, of the nearest known positions (at most `most`) that a part sees.

    Points of the refined lattice whose coordinates are (even, even) belong to the coarse lattice and are known from the
    start. Points with (odd, odd) are known after kind 0, points with (even, odd) after kind 1.
    """
    target = ((1, 1), (0, 1), (1, 0))[kind]
    known = ((0, 0), (1, 1), (0, 1))[: kind + 1]
    span = range(-_REACH, _REACH + 1)
    offsets = [(dy, dx) for dy in span for dx in span if ((target[0] + dy) % 2, (target[1] + dx) % 2) in known]
    nearest = sorted(offsets, key=lambda offset: (offset[0] ** 2 + offset[1] ** 2, offset))
    return tuple(nearest[:most])


def reach(refinements: int) -> int:
    """Return the greatest distance of a tap on each axis, in positions."""
    return _REACH << max(0, refinements - 1)


def is_edge(kind: int, offset: tuple[int, int]) -> bool:
    """Return whether a tap of a vertical edge (kind 2) is on a horizontal edge of the same refinement."""
    return kind == 2 and offset[0] % 2 == 1 and offset[1] % 2 == 1


def passes(refinements: int) -> tuple[tuple[Part, ...], ...]:
    """Return `2 + 2 * refinements` passes that cover every position once; the first lattice has spacing 2**refinements.

    Parts of one pass do not see each other: taps on positions that are not decoded yet count as outside of the grid.
    """
    coarse = 2**refinements
    result: list[tuple[Part, ...]] = [(Part(coarse, 0, 0),)]
    for level in range(refinements):
        step, last = coarse >> level, level == refinements - 1
        s = step // 2
        centres = Part(step, s, s, 0, level, s)
        horizontal = Part(step, 0, s, 1, level, s)
        vertical = Part(step, s, 0, 2, level, s, sees_edges=last)
        result += [(centres,), (horizontal,), (vertical,)] if last else [(centres,), (horizontal, vertical)]
    return tuple(result)


@dataclass(frozen=True, eq=False)
class Run:
    """Positions that are evaluated at once: up to a chunk of one part of a pass in each of several grids.

    Attributes:
        part: part of the pass.
        pieces: number of the image and raster numbers of the positions, for each grid that has some.
        numbers: all these positions, as `Planes` numbers them.
    """

    part: Part
    pieces: list[tuple[int, npt.NDArray[np.int64]]]
    numbers: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Planes:
    """Grids (h, w) that are coded together; their positions are numbered grid by grid, each in raster order.

    Attributes:
        shapes: height and width of each grid.
        first_image: number of the image of the first grid.
        first_position: number of the first position, where the grids are a part of several.
    """

    shapes: tuple[tuple[int, int], ...]
    first_image: int = 0
    first_position: int = 0

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Number of positions before each grid, and of all positions."""
        return tuple(accumulate((height * width for height, width in self.shapes), initial=0))

    def runs(self, part: Part, most: int) -> Iterator[Run]:
        """Yield the positions of a part of a pass, at most `most` of each grid at a time."""
        positions = [part.positions(shape_hw) for shape_hw in self.shapes]
        for first in range(0, max(map(len, positions)), most):
            chunks = [(grid, where[first : first + most]) for grid, where in enumerate(positions) if len(where) > first]
            numbers = np.concatenate([where + self.starts[grid] for grid, where in chunks])
            yield Run(part, [(self.first_image + grid, where) for grid, where in chunks], numbers)

    def padded(self, margin: int) -> Padded:
        """Return where the positions are in a flat array in which `margin` positions are around each grid."""
        stride, row, places = max(width for _, width in self.shapes) + margin, margin, []
        for height, width in self.shapes:
            rows = np.arange(row, row + height, dtype=np.int64)
            places.append(((rows * stride)[:, None] + np.arange(margin, margin + width)).reshape(-1))
            row += height + margin
        return Padded(np.concatenate(places), stride, row * stride + margin)


@dataclass(frozen=True, eq=False)
class Padded:
    """Places of positions in a flat array of grids with margins; see `Planes.padded`.

    Grids are one above the other with one margin between them. The margin on the right of a row is that on the left of
    the next row.

    Attributes:
        places_N: place of each position.
        stride: distance between the same columns of two rows.
        size: length of the flat array.
    """

    places_N: npt.NDArray[np.int64]
    stride: int
    size: int


def planes_together(shapes: Sequence[tuple[int, int]], most: int) -> Iterator[Planes]:
    """Yield the grids in order, as many together as have up to `most` positions, and at least one."""
    first, position = 0, 0
    while first < len(shapes):
        last, end = first, position
        while last < len(shapes) and (last == first or end + math.prod(shapes[last]) - position <= most):
            end += math.prod(shapes[last])
            last += 1
        yield Planes(tuple(shapes[first:last]), first, position)
        first, position = last, end
