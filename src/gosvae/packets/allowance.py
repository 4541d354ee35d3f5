"""Limit on the processor time that repairing packets takes: a share of elapsed time, for each stream and for all."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MOST_STREAMS = 1024
"""Greatest number of streams whose use is remembered; the stream that was idle for the longest time is forgotten first.
"""
_ALL = -1
"""Key of the use of all streams together."""


class Allowance:
    """Token buckets of processor time. A stream that has used more than its share waits until its bucket fills again.

    Args:
        stream_share: greatest share of one processor that a stream may use over time.
        share: greatest share of one processor that all streams together may use over time.
        saved_s: number of seconds of processor time that a stream may use at once; all streams together may use four
            times as many.
        clock: function that returns the elapsed time in seconds.
        timer: function that returns the processor time of this thread in seconds.
    """

    def __init__(
        self,
        stream_share: float = 0.05,
        share: float = 0.2,
        saved_s: float = 0.05,
        *,
        clock: Callable[[], float] = time.monotonic,
        timer: Callable[[], float] = time.thread_time,
    ) -> None:
        self._clock, self._timer = clock, timer
        self._limits = {True: (share, 4 * saved_s), False: (stream_share, saved_s)}
        self._left: OrderedDict[int, tuple[float, float]] = OrderedDict()

    def permits(self, stream_id: int) -> bool:
        """Return whether a stream may use processor time now."""
        return all(self._left_s(key) > 0 for key in (_ALL, stream_id))

    @contextmanager
    def spent_by(self, stream_id: int) -> Iterator[None]:
        """Count the processor time of this thread within the context as used by a stream."""
        began_s = self._timer()
        try:
            yield
        finally:
            spent_s = self._timer() - began_s
            for key in (_ALL, stream_id):
                self._left[key] = self._left_s(key) - spent_s, self._clock()
                self._left.move_to_end(key)
            if len(self._left) > MOST_STREAMS:
                self._left.popitem(last=False)

    def _left_s(self, key: int) -> float:
        """Return the processor time that is left now; below 0 if more was used."""
        share, most_s = self._limits[key == _ALL]
        left_s, then_s = self._left.get(key, (most_s, 0.0))
        return min(most_s, left_s + share * (self._clock() - then_s))
