"""Limits on unknown clients of a receiver: number of their lines in the log, and delays after wrong tokens."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable

MOST_SOURCES = 1024
"""Greatest number of source addresses that are remembered; the one that was silent for longest is forgotten first."""
WINDOW_S = 60.0
"""Seconds over which the events of a source address are counted; then the count begins again at 0."""
LINES_OF_SOURCE = 5
"""Greatest number of lines about a source address in `WINDOW_S`."""
LINES = 100
"""Greatest number of lines about all source addresses in `WINDOW_S`."""
FIRST_DELAY_S = 0.1
"""Delay in seconds of the answer to the second wrong token of a source address; it doubles with each further one."""
MOST_DELAY_S = 5.0
"""Longest delay in seconds of the answer to a wrong token."""
MOST_WAITING = 64
"""Greatest number of answers to wrong tokens that wait at the same time; further ones are given at once."""


class _Window:
    """Number of events of each source address since its window began."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def count(self, source: str) -> tuple[int, int]:
        """Count an event; return its number in the window, from 1, and the number of events in the window before."""
        now_s = self._clock()
        began_s, count = self._counts.get(source, (now_s, 0))
        before = 0
        if now_s - began_s > WINDOW_S:
            began_s, before, count = now_s, count, 0
        self._counts[source] = began_s, count + 1
        self._counts.move_to_end(source)
        if len(self._counts) > MOST_SOURCES:
            self._counts.popitem(last=False)
        return count + 1, before


class LimitedLog:
    """Warnings about strangers, of which only a few of each source address are written.

    Args:
        log: logger that writes them.
        clock: clock in seconds that never goes back.
    """

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._of_source, self._of_all = _Window(clock), _Window(clock)

    def refused(self, source: str, why: str) -> None:
        """Write that a source address was refused, unless the limit on such lines is reached."""
        number, before = self._of_source.count(source)
        if number > LINES_OF_SOURCE:
            return
        total, _ = self._of_all.count("")
        if total > LINES:
            return
        left_out = before - LINES_OF_SOURCE
        note = f" ({left_out} more before that)" if left_out > 0 else ""
        note += "; further lines are left out for a minute" if number == LINES_OF_SOURCE or total == LINES else ""
        self._log.warning("refused %s: %s%s", source, why, note)


class Backoff:
    """Delays of the answers to wrong tokens, longer for each wrong token of a source address.

    Args:
        clock: clock in seconds that never goes back.

    Attributes:
        waiting: number of answers that wait now, counted by the caller.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._wrong = _Window(clock)
        self.waiting = 0

    def delay_s(self, source: str) -> float:
        """Count a wrong token and return the seconds that its answer waits."""
        number, _ = self._wrong.count(source)
        if number < 2 or self.waiting >= MOST_WAITING:
            return 0.0
        return float(min(MOST_DELAY_S, FIRST_DELAY_S * 2 ** min(number - 2, 16)))
