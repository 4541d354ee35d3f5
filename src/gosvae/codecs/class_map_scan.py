"""Lossless coding of class maps pixel by pixel, which takes the fewest bytes; its time depends on the map.

Pixels are coded row by row. Where the left, upper left, upper and upper right neighbours agree, one flag says that all
pixels up to the next edge of the row above have the same class. Elsewhere the classes of the neighbours are candidates,
nearest first, and one flag for each says whether the pixel has it. The flags are coded in contexts of 4, 8 and 14
neighbours (which of them are equal) and of the classes themselves, mixed as in `entropy.mixing`. The coder needs no
training.

The method is our own, after the context templates of JBIG (ITU-T T.82) and the run mode of JPEG-LS (ITU-T T.87).
CamVid's 101 validation maps (256x512 pixels, 12 classes) take 1.1 KiB on average, half as much as lossless JPEG XL.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from gosvae.entropy.mixing import (
    Counter,
    SymbolCoder,
    SymbolReader,
    SymbolWriter,
    Weights,
    code_bit,
    new_counter,
    new_weights,
)

ClassMapBytes = npt.NDArray[np.uint8]
"""Class of every pixel, uint8 (H, W)."""

_TEMPLATE = ((-1, 0), (0, -1), (-1, -1), (1, -1), (-2, 0), (0, -2), (1, -2), (-2, -1), (2, -1), (-1, -2), (-3, 0),
             (0, -3), (-2, -2), (2, -2))  # fmt: skip
"""Neighbours (x, y) of a pixel, nearest first."""
_PATTERNS = (4, 8, 14)
"""Numbers of neighbours that make each pattern context."""
_MAX_CANDIDATES = 4
_MAX_CONTEXTS = 1 << 17
"""Largest number of contexts with separate counters, which bounds the memory.

Further contexts, which occur only in maps like noise, share one counter for each decision.
"""
_MAX_REMEMBERED = 1 << 14
"""Number of neighbourhoods whose contexts are kept; it affects the speed only, and no byte."""
_FREE_EFFORT, _EFFORT_OF_PIXEL = 6400, 1.0
"""Effort that a map may take, and additional effort for each pixel.

The unit is the work for one bit. A map of more effort, such as noise, is coded in passes.
"""
_ROW_EFFORT, _CANDIDATE_EFFORT, _CONTEXT_EFFORT, _CLASS_EFFORT = 1, 3, 1, 18
"""Effort of a row, of a candidate in a neighbourhood that is not remembered, of a new context of such a candidate, and
of a class that no neighbour has."""
_LEFT, _RIGHT, _TOP = 3, 2, 3
"""Widths of the margins that the template needs."""


def encode_scan(class_map_HW: ClassMapBytes, class_count: int) -> bytes | None:
    """Return the bytes of a map with values in [0, class_count), or None if it takes more effort than a reader spends.

    The map has at least one pixel and two classes.
    """
    writer = SymbolWriter()
    try:
        _MapCoder(writer, class_map_HW.shape, class_count).run(class_map_HW.tobytes())
    except EffortError:
        return None
    return writer.finish()


def decode_scan(data: bytes, shape_hw: tuple[int, int], class_count: int) -> tuple[ClassMapBytes, bytes] | None:
    """Return the map of these bytes, uint8 (H, W), and the bytes that `encode_scan` makes of it; None for no map.

    Raises:
        EffortError: the bytes take more effort than the size of the map allows.
    """
    reader = SymbolReader(data)
    try:
        class_map_HW = _MapCoder(reader, shape_hw, class_count).run(None)
    except AssertionError:  # bytes that no encoder makes
        return None
    return class_map_HW, reader.finish()


@dataclass(slots=True)
class _Decision:
    """A candidate class, with the counters and weights that code whether the pixel has it."""

    candidate: int
    counters: list[Counter]
    weights: Weights


class EffortError(Exception):
    """A map that takes more effort than its size allows."""


class _MapCoder:
    """A single pass through a map, in which a writer or a reader goes through the same decisions.

    The map is in a buffer with margins: the class 0 above, the first class of the row above at the left, the last class
    of the row at the right. The writer fills it as the reader does, so that it cannot look ahead.
    """

    def __init__(self, coder: SymbolCoder, shape_hw: tuple[int, int], class_count: int) -> None:
        self.coder = coder
        self.height, self.width = shape_hw
        self.class_count = class_count
        self.stride = self.width + _LEFT + _RIGHT
        self.pixels = bytearray(self.stride * (self.height + _TOP))
        self.offsets = [x + y * self.stride for x, y in _TEMPLATE]
        self.counters: defaultdict[Hashable, Counter] = defaultdict(new_counter)
        self.weights: defaultdict[Hashable, Weights] = defaultdict(partial(new_weights, len(_PATTERNS) + 2))
        self.flag_weights: defaultdict[int, Weights] = defaultdict(partial(new_weights, 4))
        self.new_class_counts: defaultdict[int, list[int]] = defaultdict(lambda: [2] * class_count)
        self.decisions: dict[bytes, list[_Decision]] = {}
        self.left = _FREE_EFFORT + _EFFORT_OF_PIXEL * self.height * self.width

    def spend(self, effort: int) -> None:
        """Count the effort of what follows.

        Raises:
            EffortError: the map takes more than its size allows.
        """
        self.left -= effort
        if self.left < 0:
            raise EffortError

    def run(self, source: bytes | None) -> ClassMapBytes:
        """Return the map; `source` holds its classes for a writer and is None for a reader."""
        pixels, stride = self.pixels, self.stride
        for y in range(self.height):
            self.spend(_ROW_EFFORT)
            start = (y + _TOP) * stride + _LEFT
            pixels[start - _LEFT : start] = pixels[start - stride : start - stride + 1] * _LEFT
            row = None if source is None else source[y * self.width : (y + 1) * self.width]
            x = 0
            while x < self.width:
                here, above = start + x, start + x - stride
                left = pixels[here - 1]
                if pixels[above - 1] == pixels[above] == pixels[above + 1] == left:
                    x += self._stretch(here, self.width - x, None if row is None else row[x:])
                else:
                    pixels[here] = self._pixel(here, 0 if row is None else row[x])
                    x += 1
            pixels[start + self.width : start + stride - _LEFT] = pixels[start + self.width - 1 :][:1] * _RIGHT
        rows = np.frombuffer(pixels, np.uint8).reshape(-1, stride)[_TOP:]
        return np.ascontiguousarray(rows[:, _LEFT : _LEFT + self.width])

    def _stretch(self, here: int, n_left: int, row: bytes | None) -> int:
        """Code equal pixels up to the next edge of the row above or the first other pixel, and return their number."""
        self.spend(1)
        pixels, stride = self.pixels, self.stride
        above, above2 = here - stride, here - 2 * stride
        known = pixels[here - 1]
        alike = bytes((known,))
        ahead = pixels[above + 1 : above + 1 + n_left]
        length = max(1, n_left - len(ahead.lstrip(alike)))
        run = 0 if row is None else length - len(row[:length].lstrip(alike))
        edges = (pixels[above2 - 1 : above2 + 2] == alike * 3, pixels[here - 2] == known)
        size = length.bit_length()
        contexts: tuple[Hashable, ...] = ((size, edges), (size, known), (size, known, edges), (known, edges))
        counters = [self.counters["stretch", context] for context in contexts]
        if code_bit(self.coder, counters, self.flag_weights[size], run == length):
            pixels[here : here + length] = alike * length
            return length
        run = self.coder.uniform(length, run)
        pixels[here : here + run] = alike * run
        pixels[here + run] = self._new_class([known], known, 0 if row is None else row[run])
        return run + 1

    def _pixel(self, here: int, value: int) -> int:
        """Code one pixel by its neighbours and return its class."""
        pixels, stride = self.pixels, self.stride
        above, above2 = here - stride, here - 2 * stride
        around = bytes(
            pixels[here - 3 : here]
            + pixels[above - 2 : above + 3]
            + pixels[above2 - 2 : above2 + 3]
            + pixels[above2 - stride : above2 - stride + 1]
        )
        decisions = self.decisions.get(around)
        if decisions is None:
            if len(self.decisions) >= _MAX_REMEMBERED:
                self.decisions.clear()
            decisions = self.decisions[around] = self._decisions([pixels[here + offset] for offset in self.offsets])
        self.spend(len(decisions))
        for decision in decisions:
            candidate = decision.candidate
            if code_bit(self.coder, decision.counters, decision.weights, value == candidate):
                return candidate
        return self._new_class([decision.candidate for decision in decisions], self.class_count, value)

    def _decisions(self, neighbours: list[int]) -> list[_Decision]:
        """Return the candidates among neighbours (in the order of the template) with their counters and weights."""
        classes = list(dict.fromkeys(neighbours))
        self.spend(_CANDIDATE_EFFORT * min(len(classes), _MAX_CANDIDATES))
        rank_of = {number: rank for rank, number in enumerate(classes)}
        pattern = bytes([rank_of[neighbour] for neighbour in neighbours])
        near, middle = pattern[: _PATTERNS[0]], pattern[: _PATTERNS[1]]
        left, above, above_left, above_right = neighbours[:4]
        corner = (left == above_left) + 2 * (above == above_left)
        edges = (left == above, above == above_right, left == above_left)
        decisions = []
        for rank, candidate in enumerate(classes[:_MAX_CANDIDATES]):
            following = classes[rank + 1] if rank + 1 < len(classes) else None
            counters = [
                self._counter((0, rank, near)),
                self._counter((1, rank, middle)),
                self._counter((2, rank, pattern)),
                self._counter((3, rank, candidate, following, near)),
                self._counter((4, rank, left, above, above_right, corner)),
            ]
            decisions.append(_Decision(candidate, counters, self.weights[rank, edges]))
        return decisions

    def _counter(self, context: tuple[Hashable, ...]) -> Counter:
        """Return the counter of a context, which begins with its place in the list of contexts of a decision."""
        counter = self.counters.get(context)
        if counter is None:
            self.spend(_CONTEXT_EFFORT)
            counter = self.counters[context if len(self.counters) < _MAX_CONTEXTS else context[0]]
        return counter

    def _new_class(self, excluded: list[int], context: int, value: int) -> int:
        """Code a class that is not in `excluded` and return it."""
        self.spend(_CLASS_EFFORT + self.class_count // 16)
        counts = self.new_class_counts[context]
        others = [number for number in range(self.class_count) if number not in excluded]
        if not others:
            raise AssertionError  # only bytes that no encoder makes say "none" where all classes were offered
        position = others.index(value) if value in others else 0
        found = others[self.coder.weighted([counts[number] for number in others], position)]
        counts[found] += 5
        return found
