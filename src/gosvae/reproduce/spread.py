"""Mean and spread of a quantity over the seeds of a row, and the verdict on a difference of two rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from gosvae.extras import needs

CONFIDENCE = 0.95
FEWEST_SEEDS = 3
"""Number of seeds below which no difference is judged."""

Verdict = Literal["holds", "does not hold", "cannot say"]


@dataclass(frozen=True)
class Spread:
    """Values of one quantity, one for each seed."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        """Mean of the values; None if there are none."""
        return fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the values as a sample; None for fewer than two, or if one is infinite."""
        finite = len(self.values) > 1 and all(map(math.isfinite, self.values))
        return stdev(self.values) if finite else None

    def interval(self) -> tuple[float, float] | None:
        """Return the interval of Student's t in which the mean of many seeds lies, at 95 % confidence.

        Return None for fewer than `FEWEST_SEEDS` values, or if one is infinite.
        """
        mean, deviation, count = self.mean, self.deviation, len(self.values)
        if mean is None or deviation is None or count < FEWEST_SEEDS:
            return None
        with needs("plot", "the interval of a mean"):
            from scipy.stats import t  # imported here: it is slow to load

        half = float(t.ppf(0.5 + CONFIDENCE / 2, count - 1)) * deviation / math.sqrt(count)
        return mean - half, mean + half


def verdict(interval: tuple[float, float] | None, *, larger: bool = True, middle: float = 0.0) -> Verdict:
    """Return what an interval says about the claim that a value is above `middle`, or below it.

    Args:
        interval: interval of the value; None if there are too few seeds, about which nothing is said.
        larger: whether the claim is that the value is above `middle`.
    """
    if interval is None or interval[0] <= middle <= interval[1]:
        return "cannot say"
    return "holds" if (interval[0] > middle) == larger else "does not hold"


def variance_ratio(ours: Sequence[Spread], theirs: Sequence[Spread]) -> tuple[float, tuple[float, float] | None] | None:
    """Return the ratio of two standard deviations over seeds, pooled over several settings, with its interval.

    The interval is that of the F distribution at 95 % confidence; None if a setting has fewer than `FEWEST_SEEDS`
    seeds. Without a spread in one of the two there is no ratio, and the result is None.
    """
    pooled = []
    for spreads in (ours, theirs):
        usable = [spread for spread in spreads if spread.deviation is not None]
        freedom = sum(len(spread.values) - 1 for spread in usable)
        squares = sum((len(s.values) - 1) * s.deviation**2 for s in usable if s.deviation is not None)
        if not freedom or not squares:
            return None
        pooled.append((squares / freedom, freedom))
    (first, first_freedom), (second, second_freedom) = pooled
    ratio = first / second
    if any(len(spread.values) < FEWEST_SEEDS for spread in (*ours, *theirs)):
        return math.sqrt(ratio), None
    with needs("plot", "the interval of a ratio"):
        from scipy.stats import f  # imported here: it is slow to load

    high = float(f.ppf(0.5 + CONFIDENCE / 2, first_freedom, second_freedom))
    low = float(f.ppf(0.5 - CONFIDENCE / 2, first_freedom, second_freedom))
    return math.sqrt(ratio), (math.sqrt(ratio / high), math.sqrt(ratio / low))


def rank_correlation(ours: Sequence[float], paper: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation; None for fewer than three pairs, or if one side is constant."""
    if len(ours) < 3 or len(set(ours)) == 1 or len(set(paper)) == 1:
        return None
    with needs("plot", "a rank correlation"):
        from scipy.stats import spearmanr  # imported here: it is slow to load

    return float(spearmanr(ours, paper).statistic)
