"""Lossless coding of class maps in passes over finer and finer grids, many pixels of a pass together.

The first pixel is coded alone. A grid of step s then gets the pixels between its columns, after them those between its
rows, and has the step s / 2. A pixel has six neighbours among the pixels before its pass, the nearest first. It is
coded as the number of its class among the different ones of the neighbours, or as none of them, and then by its class.
The probabilities come from counts in two contexts: which of the two nearest and which of all six are equal.

All arithmetic is in integers and vectorised, so that the time is in proportion to the pixels whatever the map is.
`class_map_scan` takes fewer bytes for most maps, but its time depends on the map.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gosvae.entropy.base import FrequencyTables, IndexArray, SymbolTables
from gosvae.entropy.coder import BatchReader, BatchWriter

ClassMapBytes = npt.NDArray[np.uint8]
"""Class of every pixel, uint8 (H, W)."""

_NEIGHBOURS = 6
_SYMBOLS = _NEIGHBOURS + 1
"""Number of symbols of a pixel: one for each different class of the neighbours, and the last for none of them."""
_RADIX = np.cumprod([1, 1, 2, 3, 4, 5])
"""Place values of a pattern: the number of neighbour j among the different classes is at most j."""
_PATTERNS = 720
_KINDS = 6
"""Number of kinds of passes with contexts of their own: columns or rows, at the steps 2, 4, and all larger ones."""
_CHUNK_PIXELS = 4096
"""Largest number of pixels, in whole rows of a pass where a row has fewer, between two steps of learning.

Streams depend on it.
"""
_LARGEST_WEIGHT = 2**24 - 2**8
"""Largest weight of a symbol, of 2**24: a pixel takes at least 1/45000 bit."""
_PRIOR = 4
"""Weight of the context of two neighbours, in pixels of the context of six."""
_MOST_COUNT = 2**12
"""Largest sum of the counts of a context; they are halved when they reach it."""
_SHARE_BITS = 11
_START_COUNTS = np.array([24, 8, 2, 1, 1, 1, 1], np.int64)
"""Counts of a context of two neighbours before its first pixel."""


@dataclass(frozen=True)
class _Chunk:
    """Pixels that are coded together: some rows and all columns of a pass.

    Attributes:
        kind: kind of the pass.
        rows_h, columns_w: coordinates of the pixels.
        neighbours: pairs of the rows and the columns of each of the six neighbours.
    """

    kind: int
    rows_h: IndexArray
    columns_w: IndexArray
    neighbours: tuple[tuple[IndexArray, IndexArray], ...]


def _inside(places: IndexArray, length: int, other: IndexArray) -> IndexArray:
    """Return coordinates; those outside [0, length) are replaced by the other ones."""
    return np.where((places < 0) | (places >= length), other, places)


def _chunks(height: int, width: int) -> Iterator[_Chunk]:
    """Yield all pixels but the first, in the order of coding."""
    half = 1 << max((max(height, width) - 1).bit_length() - 1, 0)
    while half:
        step, level = 2 * half, min(half.bit_length() - 1, 2)
        for between_rows in (False, True):
            all_rows = np.arange(half if between_rows else 0, height, step)
            columns = np.arange(0, width, half) if between_rows else np.arange(half, width, step)
            if not all_rows.size or not columns.size:
                continue
            n_rows = max(1, _CHUNK_PIXELS // columns.size)
            for rows in (all_rows[first : first + n_rows] for first in range(0, all_rows.size, n_rows)):
                left, right = columns - half, columns + half
                if between_rows:
                    up, down = rows - half, _inside(rows + half, height, rows - half)
                    left, right = _inside(left, width, columns), _inside(right, width, columns)
                    near = ((up, columns), (down, columns))
                else:
                    up, down = _inside(rows - step, height, rows), _inside(rows + step, height, rows)
                    right = _inside(right, width, left)
                    near = ((rows, left), (rows, right))
                diagonal = ((up, left), (up, right), (down, left), (down, right))
                yield _Chunk(2 * level + between_rows, rows, columns, (*near, *diagonal))
        half //= 2


class _PassCoder:
    """A pass through all chunks, in which encoder and decoder do the same.

    Args:
        class_map_HW: the map, which a decoder fills.
        class_count: number of classes.
        data: bytes to decode; None for an encoder.
    """

    def __init__(self, class_map_HW: ClassMapBytes, class_count: int, data: bytes | None) -> None:
        self.map_HW, self.class_count, self.data = class_map_HW, class_count, data
        self.writer = BatchWriter()
        self.reader = None if data is None else BatchReader(data)
        self.class_counts_1m = np.full((1, class_count), 2, np.int64)
        self.near_counts = np.tile(_START_COUNTS, (_KINDS * 2, 1))
        self.counts = np.zeros((_KINDS * _PATTERNS, _SYMBOLS), np.int64)
        self.kinds: set[int] = set()

    def run(self) -> bytes:
        """Code the map and return its bytes.

        Raises:
            AssertionError: the bytes that are decoded are not those of a map.
        """
        first = self._classes(self.map_HW[:1, :1].reshape(-1))
        if self.reader is not None:
            self.map_HW[0, 0] = first[0]
        for chunk in _chunks(*self.map_HW.shape):
            self._chunk(chunk)
        return self.writer.finish()

    def _symbols(self, symbols_N: IndexArray, tables: FrequencyTables | SymbolTables) -> IndexArray:
        """Code symbols, which a decoder does not know, and return them."""
        if self.reader is not None and self.data is not None:
            symbols_N = self.reader.read(len(symbols_N), tables)
        self.writer.write(symbols_N, tables)
        if self.data is not None and self.writer.least_bytes > len(self.data):
            raise AssertionError  # everything further would be decoded from the zeros after the end
        return symbols_N

    def _classes(self, classes_N: npt.NDArray[np.integer]) -> IndexArray:
        """Code classes that no neighbour has, and learn them."""
        found_N = self._symbols(classes_N.astype(np.int64), FrequencyTables(self.class_counts_1m.copy()))
        self.class_counts_1m[0] += 4 * np.bincount(found_N, minlength=self.class_count)
        return found_N

    def _chunk(self, chunk: _Chunk) -> None:
        """Code the pixels of a chunk."""
        self._begin(chunk.kind)
        area = np.ix_(chunk.rows_h, chunk.columns_w)
        classes_6N = np.stack([self.map_HW[np.ix_(*place)].reshape(-1) for place in chunk.neighbours])
        ranks_6N = _ranks(classes_6N)
        near_N = 2 * chunk.kind + ranks_6N[1]
        full_N = _PATTERNS * chunk.kind + _RADIX @ ranks_6N
        values_N = self.map_HW[area].reshape(-1)
        symbols_N = np.zeros(values_N.size, np.int64)
        if self.reader is None:
            same_6N = classes_6N == values_N
            first_N = same_6N.argmax(axis=0)
            symbols_N = np.where(same_6N.any(axis=0), ranks_6N[first_N, np.arange(first_N.size)], _NEIGHBOURS)
        symbols_N = self._symbols(symbols_N, self._tables(near_N, full_N))
        has_N = ranks_6N == symbols_N
        known_N = has_N.any(axis=0)
        if (symbols_N[~known_N] != _NEIGHBOURS).any():
            raise AssertionError  # there are not so many classes among the neighbours
        values_N = np.where(known_N, classes_6N[has_N.argmax(axis=0), np.arange(values_N.size)], values_N)
        if not known_N.all():
            values_N[~known_N] = self._classes(values_N[~known_N])
            if (classes_6N[:, ~known_N] == values_N[~known_N]).any():
                raise AssertionError  # a neighbour has the class
        if self.reader is not None:
            self.map_HW[area] = values_N.reshape(chunk.rows_h.size, chunk.columns_w.size)
        self._learn(self.near_counts, near_N, symbols_N)
        self._learn(self.counts, full_N, symbols_N)

    def _begin(self, kind: int) -> None:
        """Let a kind of passes that comes for the first time begin with the counts of the step before."""
        if kind not in self.kinds and kind + 2 in self.kinds:
            for counts_TK in (self.near_counts, self.counts):
                of_kinds = counts_TK.reshape(_KINDS, -1)
                of_kinds[kind] = of_kinds[kind + 2]
        self.kinds.add(kind)

    def _tables(self, near_N: IndexArray, full_N: IndexArray) -> SymbolTables:
        """Return the tables of pixels in their contexts of two and of six neighbours."""
        near_totals = self.near_counts.sum(axis=1, keepdims=True)
        shares = (self.near_counts << _SHARE_BITS) // near_totals
        return SymbolTables((self.counts[full_N] << _SHARE_BITS) + _PRIOR * shares[near_N] + 1, _LARGEST_WEIGHT)

    def _learn(self, counts_TK: IndexArray, contexts_N: IndexArray, symbols_N: IndexArray) -> None:
        """Add symbols to the counts of their contexts; counts that grow too large are halved."""
        size = counts_TK.size
        seen = np.bincount(contexts_N * _SYMBOLS + symbols_N, minlength=size).reshape(counts_TK.shape)
        counts_TK += seen
        large_T = counts_TK.sum(axis=1) >= _MOST_COUNT
        while large_T.any():
            counts_TK[large_T] = (counts_TK[large_T] + 1) >> 1
            large_T = counts_TK.sum(axis=1) >= _MOST_COUNT


def _ranks(classes_6N: ClassMapBytes) -> IndexArray:
    """Return the number of each neighbour's class among the different classes, int64 (6, N), in their order."""
    ranks_6N = np.zeros(classes_6N.shape, np.int64)
    different_N = np.ones(classes_6N.shape[1], np.int64)
    for j in range(1, len(classes_6N)):
        rank_N = different_N.copy()
        for i in range(j - 1, -1, -1):
            rank_N = np.where(classes_6N[j] == classes_6N[i], ranks_6N[i], rank_N)
        ranks_6N[j] = rank_N
        different_N += rank_N == different_N
    return ranks_6N


def encode_passes(class_map_HW: ClassMapBytes, class_count: int) -> bytes:
    """Return the bytes of a map with values in [0, class_count), at least one pixel and two classes."""
    return _PassCoder(class_map_HW, class_count, None).run()


def decode_passes(data: bytes, shape_hw: tuple[int, int], class_count: int) -> tuple[ClassMapBytes, bytes] | None:
    """Return the map of these bytes, uint8 (H, W), and the bytes that `encode_passes` makes of it; None for no map."""
    class_map_HW = np.zeros(shape_hw, np.uint8)
    try:
        return class_map_HW, _PassCoder(class_map_HW, class_count, data).run()
    except AssertionError:  # of constriction too
        return None
