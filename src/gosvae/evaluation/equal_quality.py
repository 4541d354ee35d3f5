"""Rates of codecs at equal quality, beside the fewest that a rival needs."""

from __future__ import annotations

from collections.abc import Sequence

from gosvae.evaluation.bd_rate import bytes_at_quality, rival_curves
from gosvae.evaluation.evaluation import Evaluation
from gosvae.evaluation.tables import markdown_of
from gosvae.units import kib


def rate_at_quality(evaluation: Evaluation, curve: str, target: float, *, quality: str) -> float | None:
    """Return the rate at which a curve reaches a quality, in KiB per image, or in kbit/s for videos.

    None means that it does not reach the quality, or begins above it; see `bytes_at_quality` for the interpolation.

    Raises:
        ConfigError: as `bytes_at_quality`.
    """
    rows = evaluation.curves()[curve]
    n_bytes = bytes_at_quality(rows, target, quality=quality)
    if n_bytes is None or not evaluation.is_video:
        return None if n_bytes is None else kib(n_bytes)
    # All rows are of the same frames, so that one factor holds for every rate.
    row = next(row for row in rows if row.total_bytes)
    return n_bytes * (row.kbit_per_second or 0.0) / (row.total_bytes or 1.0)


def equal_quality_table(evaluation: Evaluation, targets: Sequence[float], *, quality: str = "agreement_miou") -> str:
    """Return a Markdown table with a line for each target: the rates of all curves, and how many times fewer ours are.

    The last columns divide the lowest rate of a rival by the rate of each other curve.

    Args:
        evaluation: results.
        targets: qualities.
        quality: key of `QUALITIES`.

    Raises:
        ConfigError: as `bytes_at_quality`.
    """
    curves = [name for name, rows in evaluation.curves().items() if len(rows) > 1]
    rivals = [name for name in rival_curves(evaluation) if name in curves]
    others = [name for name in curves if name not in rivals]
    unit = "kbit/s" if evaluation.is_video else "KiB"
    header = [quality, *(f"{name}, {unit}" for name in curves), *(f"best rival / {name}" for name in others if rivals)]
    lines = []
    for target in targets:
        rates = {name: rate_at_quality(evaluation, name, target, quality=quality) for name in curves}
        best = min((rate for name in rivals if (rate := rates[name]) is not None), default=None)
        ratios = [best / rate if best is not None and (rate := rates[name]) else None for name in others if rivals]
        cells = [*rates.values(), *ratios]
        lines.append([f"{target}", *("-" if value is None else f"{value:.2f}" for value in cells)])
    return markdown_of(header, lines)
