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
from functools import partial
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from gosvae.entropy.mixing import (
    Counters,
    SymbolCoder,
    SymbolReader,
    SymbolWriter,
    Weights,
    code_bit,
    code_bit_of_five,
    new_weights,
)

ClassMapBytes = npt.NDArray[np.uint8]
"""Class of every pixel, uint8 (H, W)."""

_TEMPLATE = ((-1, 0), (0, -1), (-1, -1), (1, -1), (-2, 0), (0, -2), (1, -2), (-2, -1), (2, -1), (-1, -2), (-3, 0),
             (0, -3), (-2, -2), (2, -2))  # fmt: skip
"""Neighbours (x, y) of a pixel, nearest first."""
_FROM_BELOW = sorted(_TEMPLATE, key=lambda place: (-place[1], place[0]))
_NEAREST_FIRST = itemgetter(*map(_FROM_BELOW.index, _TEMPLATE))
"""Function that puts the neighbours, read row by row from below, into the order of the template."""
_PATTERNS = (4, 8, 14)
"""Numbers of neighbours that make each pattern context."""
_MAX_CANDIDATES = 4
_MAX_CONTEXTS = 1 << 17
"""Largest number of contexts with separate counters, which bounds the memory.

Further contexts, which occur only in maps like noise, share one counter for each decision.
"""
_STRETCH_CONTEXTS = 4
"""Number of contexts of a stretch."""
_MAX_REMEMBERED = 1 << 14
"""Number of neighbourhoods whose contexts are kept; it affects the speed only, and no byte."""
_FREE_EFFORT, _EFFORT_OF_PIXEL = 5000, 1
"""Effort that a map may take, and additional effort for each pixel.

The unit is the work for one flag of a pixel. A map of more effort, such as noise, is coded in passes.
"""
_ROW_EFFORT, _STRETCH_EFFORT, _PIXEL_EFFORT, _CLASS_EFFORT, _CLASSES_OF_EFFORT = 1, 2, 1, 8, 8
"""Effort of a row, of a stretch, of a pixel beside its flags, and of a class that no neighbour has; number of classes
of the map that make the latter greater by 1."""
_NEIGHBOURHOOD_EFFORT, _CANDIDATE_EFFORT, _CONTEXT_EFFORT = 3, 4, 1
"""Effort of a neighbourhood that is not remembered, of a candidate that is tried there first, and of each new context
of such a candidate."""
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


class EffortError(Exception):
    """A map that takes more effort than its size allows."""


_Decision = tuple[int, tuple[int, ...], Weights]
"""A candidate class, with the numbers of the counters and the weights that code whether the pixel has it."""


class _Neighbourhood:
    """Classes of the neighbours of a pixel, and the decisions about its class.

    Attributes:
        classes: different classes, nearest first.
        pattern: numbers of the neighbours' classes among the different ones, in the order of the template.
        nearest: classes of the four nearest neighbours.
        n_candidates: number of classes that are tried.
        decisions: those about the first candidates; each is made when it is first needed.
    """

    __slots__ = ("classes", "decisions", "n_candidates", "nearest", "pattern")

    def __init__(self, classes: list[int], pattern: bytes, nearest: tuple[int, ...]) -> None:
        self.classes, self.pattern, self.nearest = classes, pattern, nearest
        self.n_candidates = min(len(classes), _MAX_CANDIDATES)
        self.decisions: list[_Decision] = []


_CLASSES = [bytes((number,)) for number in range(256)]


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
        self.counters, self.counter_of = Counters(), dict[Hashable, int]()
        self.weights: defaultdict[Hashable, Weights] = defaultdict(partial(new_weights, len(_PATTERNS) + 2))
        self.flag_weights: defaultdict[int, Weights] = defaultdict(partial(new_weights, _STRETCH_CONTEXTS))
        self.new_class_counts: defaultdict[int, list[int]] = defaultdict(lambda: [2] * class_count)
        self.neighbourhoods: dict[bytes, _Neighbourhood] = {}
        self.undecided: list[_Neighbourhood] = []
        self.most_contexts = 0
        self.stretches: dict[int, tuple[tuple[int, ...], Weights]] = {}
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
        pixels, stride, width = self.pixels, self.stride, self.width
        edges = [width + 1]  # where a pixel of the row differs from the one at its left; at last, beyond the margin
        for y in range(self.height):
            self.spend(_ROW_EFFORT)
            start = (y + _TOP) * stride + _LEFT
            pixels[start - _LEFT : start] = pixels[start - stride : start - stride + 1] * _LEFT
            row = None if source is None else source[y * width : (y + 1) * width]
            edges_above, edges, place = edges, [], 0
            x = 0
            while x < width:
                here = start + x
                above = here - stride
                left = pixels[here - 1]
                if pixels[above - 1] == pixels[above] == pixels[above + 1] == left:
                    while edges_above[place] <= x:
                        place += 1
                    length = edges_above[place] - 1 - x
                    x += self._stretch(here, left, length, None if row is None else row[x : x + length])
                    if pixels[start + x - 1] != left:
                        edges.append(x - 1)
                else:
                    value = pixels[here] = self._pixel(here, 0 if row is None else row[x])
                    if value != left:
                        edges.append(x)
                    x += 1
            edges.append(width + 1)
            pixels[start + width : start + stride - _LEFT] = pixels[start + width - 1 : start + width] * _RIGHT
        self.spend(0)
        rows = np.frombuffer(pixels, np.uint8).reshape(-1, stride)[_TOP:]
        return np.ascontiguousarray(rows[:, _LEFT : _LEFT + width])

    def _stretch(self, here: int, known: int, length: int, row: bytes | None) -> int:
        """Code the pixels up to the next edge of the row above or the first other pixel, and return their number.

        Args:
            here: place of the first pixel in the buffer.
            known: class of its neighbours.
            length: number of pixels up to the next edge of the row above.
            row: classes of these pixels, for a writer.
        """
        self.spend(_STRETCH_EFFORT)
        pixels, alike = self.pixels, _CLASSES[known]
        run = 0 if row is None else length - len(row.lstrip(alike))
        above2 = here - 2 * self.stride
        edges = (
            pixels[above2 - 1] == pixels[above2] == pixels[above2 + 1] == known,
            pixels[here - 2] == known,
        )
        size = length.bit_length()
        number = size << 10 | known << 2 | edges[0] << 1 | edges[1]
        if number not in self.stretches:
            self._expect(_STRETCH_CONTEXTS)
            contexts: tuple[Hashable, ...] = ((size, edges), (size, known), (size, known, edges), (known, edges))
            found = tuple([self._counter(("stretch", context)) for context in contexts])
            self.stretches[number] = found, self.flag_weights[size]
        chosen, weights = self.stretches[number]
        if code_bit(self.coder, self.counters, chosen, weights, run == length):
            pixels[here : here + length] = alike * length
            return length
        run = self.coder.uniform(length, run)
        pixels[here : here + run] = alike * run
        pixels[here + run] = self._new_class([known], known, 0 if row is None else row[run])
        return run + 1

    def _pixel(self, here: int, value: int) -> int:
        """Code one pixel by its neighbours and return its class."""
        pixels, stride = self.pixels, self.stride
        above = here - stride
        above2 = above - stride
        around = bytes(
            pixels[here - 3 : here]
            + pixels[above - 2 : above + 3]
            + pixels[above2 - 2 : above2 + 3]
            + pixels[above2 - stride : above2 - stride + 1]
        )
        self.spend(_PIXEL_EFFORT)
        neighbourhood = self.neighbourhoods.get(around)
        if neighbourhood is None:
            neighbourhood = self._new_neighbourhood(around)
        for candidate, chosen, weights in neighbourhood.decisions:
            self.left -= 1  # checked at the next pixel
            if code_bit_of_five(self.coder, self.counters, chosen, weights, value == candidate):
                return candidate
        while len(neighbourhood.decisions) < neighbourhood.n_candidates:
            candidate, chosen, weights = self._decide(neighbourhood)
            self.left -= 1
            if code_bit_of_five(self.coder, self.counters, chosen, weights, value == candidate):
                return candidate
        excluded = [candidate for candidate, _, _ in neighbourhood.decisions]
        return self._new_class(excluded, self.class_count, value)

    def _new_neighbourhood(self, around: bytes) -> _Neighbourhood:
        """Return and remember a neighbourhood, given the classes of its pixels from the left and from below."""
        self.spend(_NEIGHBOURHOOD_EFFORT)
        neighbours = _NEAREST_FIRST(around)
        classes = list(dict.fromkeys(neighbours))
        pattern = bytes(map(classes.index, neighbours))
        neighbourhood = _Neighbourhood(classes, pattern, neighbours[:4])
        if len(self.neighbourhoods) >= _MAX_REMEMBERED:
            self.neighbourhoods.clear()
        self.neighbourhoods[around] = neighbourhood
        self.undecided.append(neighbourhood)
        self._expect((len(_PATTERNS) + 2) * neighbourhood.n_candidates)
        return neighbourhood

    def _expect(self, n_contexts: int) -> None:
        """Make all counters of the neighbourhoods as soon as there could be the largest number of contexts.

        Before that, the contexts of a candidate that is never tried have no effect.
        """
        self.most_contexts += n_contexts
        if self.most_contexts < _MAX_CONTEXTS:
            return
        for neighbourhood in self.undecided:
            while len(neighbourhood.decisions) < neighbourhood.n_candidates:
                self._decide(neighbourhood)
        self.undecided.clear()

    def _decide(self, neighbourhood: _Neighbourhood) -> _Decision:
        """Add the decision about the next candidate of a neighbourhood, with its counters and weights."""
        self.spend(_CANDIDATE_EFFORT)
        rank, classes, pattern = len(neighbourhood.decisions), neighbourhood.classes, neighbourhood.pattern
        candidate = classes[rank]
        following = classes[rank + 1] if rank + 1 < len(classes) else None
        near = pattern[: _PATTERNS[0]]
        left, above, above_left, above_right = neighbourhood.nearest
        above_left_is_left = left == above_left
        found = []
        for context in (
            (0, rank, near),
            (1, rank, pattern[: _PATTERNS[1]]),
            (2, rank, pattern),
            (3, rank, candidate, following, near),
            (4, rank, left, above, above_right, above_left_is_left + 2 * (above == above_left)),
        ):
            number = self.counter_of.get(context)
            if number is None:
                self.left -= _CONTEXT_EFFORT
                number = self._counter(context if len(self.counters) < _MAX_CONTEXTS else context[0])
            found.append(number)
        decision = (
            candidate,
            tuple(found),
            self.weights[rank, (left == above, above == above_right, above_left_is_left)],
        )
        neighbourhood.decisions.append(decision)
        return decision

    def _counter(self, context: Hashable) -> int:
        """Return the number of the counter of a context, which is added if there is none."""
        number = self.counter_of.get(context)
        if number is None:
            number = self.counter_of[context] = self.counters.add()
        return number

    def _new_class(self, excluded: list[int], context: int, value: int) -> int:
        """Code a class that is not in `excluded` and return it."""
        self.spend(_CLASS_EFFORT + self.class_count // _CLASSES_OF_EFFORT)
        counts = self.new_class_counts[context]
        others, other_counts = list(range(self.class_count)), counts.copy()
        for number in sorted(excluded, reverse=True):
            del others[number], other_counts[number]
        if not others:
            raise AssertionError  # only bytes that no encoder makes say "none" where all classes were offered
        # A reader's value may be excluded, and is ignored.
        position = max(0, value - sum(number <= value for number in excluded))
        found = others[self.coder.weighted(other_counts, position)]
        counts[found] += 5
        return found
