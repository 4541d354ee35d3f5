"""Bjontegaard delta rate (BD-rate): mean difference in bytes between two codecs at the same quality.

Source: G. Bjontegaard, VCEG-M33, 2001; computed by the library `bjontegaard` (FAU Erlangen-Nuremberg).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gosvae.codecs.classical import CLASSICAL_CODECS
from gosvae.codecs.classical_video import VIDEO_CODECS
from gosvae.errors import ConfigError, unknown_name
from gosvae.evaluation.evaluation import Evaluation
from gosvae.evaluation.rows import Row
from gosvae.extras import needs

MIN_POINTS = 4
GOOD_POINTS = 6
GOOD_OVERLAP = 0.75

ENVELOPE = "envelope"
"""Anchor that takes, at every quality, the rival that needs the fewest bytes."""
CLASSICAL_NAMES = frozenset({*CLASSICAL_CODECS, *VIDEO_CODECS})
"""Names of the classical image and video codecs, which are the rivals."""

QUALITIES = {
    "miou": lambda row: row.miou,
    "agreement_miou": lambda row: row.agreement_miou,
    "pixel_accuracy": lambda row: row.pixel_accuracy,
    "psnr_db": lambda row: row.psnr_db,
}
"""Qualities that a BD-rate can be taken on; in each of them, more is better."""


@dataclass(frozen=True)
class BdRate:
    """BD-rate of a curve against an anchor.

    Attributes:
        percent: mean difference in bytes at equal quality, in per cent; negative if the curve needs fewer than the
            anchor.
        quality_from, quality_to: range of quality that both curves reach, over which the mean is taken.
        notes: reasons for caution, one sentence each.
    """

    percent: float
    quality_from: float
    quality_to: float
    notes: tuple[str, ...]


def bd_rate(
    evaluation: Evaluation, curve: str, anchor: str, *, quality: str = "miou", codestreams: bool = False
) -> BdRate:
    """Return the BD-rate of a curve against an anchor, by the mean bytes of complete files.

    Args:
        evaluation: results.
        curve: name of a curve.
        anchor: name of another curve, or `envelope` for the lower envelope of all other rivals, see `rival_curves`:
            their points taken together, of which those remain that no other one beats in bytes and quality.
        quality: key of `QUALITIES`.
        codestreams: whether bytes are counted without the boxes of containers.

    Raises:
        ConfigError: an unknown curve or quality, a point without the quality, no rivals, or as `bd_rate_of_points`.
    """
    if quality not in QUALITIES:
        raise ConfigError(unknown_name("quality", quality, QUALITIES))
    curves = evaluation.curves()
    if anchor == ENVELOPE and ENVELOPE not in curves:
        names = rival_curves(evaluation)
        rivals = [row for name in names if name != curve for row in curves[name]]
        if names == [curve]:
            raise ConfigError(
                f"the {ENVELOPE} of a rival leaves out the rival itself, and {curve!r} is the only classical codec: "
                "evaluate another one"
            )
        if not rivals:
            raise ConfigError(f"the evaluation has no classical codecs, whose envelope is the anchor {ENVELOPE!r}")
        curves = {**curves, ENVELOPE: tuple(rivals)}
    for name in (curve, anchor):
        if name not in curves:
            raise ConfigError(unknown_name("curve", name, curves))
    test, against = (_points(curves[name], quality, codestreams=codestreams) for name in (curve, anchor))
    return bd_rate_of_points(test, against, names=(curve, anchor))


def rival_curves(evaluation: Evaluation) -> list[str]:
    """Return the names of the curves of classical image and video codecs, in the order of the evaluation."""
    curves = evaluation.curves().items()
    return [name for name, rows in curves if all(row.codec in CLASSICAL_NAMES for row in rows)]


def _points(rows: Sequence[Row], quality: str, *, codestreams: bool = False) -> list[tuple[float, float]]:
    """Return bytes and quality of the rows."""
    found = []
    for row in rows:
        value, n_bytes = QUALITIES[quality](row), row.codestream_bytes if codestreams else row.total_bytes
        if value is None or not np.isfinite(value):
            raise ConfigError(f"{row.label!r} has no finite {quality}: choose another of {', '.join(QUALITIES)}")
        if n_bytes is None:
            raise ConfigError(f"{row.label!r} has no bytes without containers: count complete files")
        found.append((n_bytes, value))
    return found


def bytes_at_quality(rows: Sequence[Row], target: float, *, quality: str = "miou") -> float | None:
    """Return the mean bytes at which a curve reaches a quality, None if it does not reach it or begins above it.

    The logarithm of the rate is interpolated (PCHIP) between the points of the upper envelope; nothing is extrapolated.

    Raises:
        ConfigError: an unknown quality, or a point without it.
    """
    with needs("plot", "the rate at a quality"):
        from scipy.interpolate import PchipInterpolator

    if quality not in QUALITIES:
        raise ConfigError(unknown_name("quality", quality, QUALITIES))
    rates, qualities = np.array(upper_envelope(_points(rows, quality))).T
    if not qualities[0] <= target <= qualities[-1]:
        return None
    if len(rates) == 1:
        return float(rates[0])
    return float(np.exp(PchipInterpolator(qualities, np.log(rates))(target)))


def bd_rate_of_points(
    test: Sequence[tuple[float, float]],
    anchor: Sequence[tuple[float, float]],
    *,
    names: tuple[str, str] = ("test", "anchor"),
) -> BdRate:
    """Return the BD-rate of `(rate, quality)` points, with rates in any unit, the same for both curves.

    The quality on a task need not rise everywhere, but the logarithm of the rate must be a function of the quality. So
    each curve is reduced to its upper envelope: a point that costs as much as another one, or more, and is not better,
    is left out. This favours a noisy curve a little; a note gives the number of such points. Points are joined by a
    monotone cubic (PCHIP), and the mean is taken over the range of quality that both envelopes reach.

    Raises:
        ConfigError: a curve has fewer than 4 points left or a rate that is not positive, or the curves have no common
            range of quality.
    """
    with needs("plot", "a BD-rate"):
        from bjontegaard import bd_rate as library_bd_rate  # imports SciPy and matplotlib

    notes: list[str] = []
    envelopes = []
    for name, points in zip(names, (test, anchor), strict=True):
        envelope = upper_envelope(points)
        if len(envelope) < MIN_POINTS:
            raise ConfigError(
                f"BD-rate needs {MIN_POINTS} rate points at least, {name!r} has {len(envelope)} on its upper envelope "
                f"(of {len(points)}): evaluate it at more rates"
            )
        if len(envelope) < len(points):
            notes.append(f"{len(points) - len(envelope)} of {len(points)} points of {name} lie below its envelope.")
        if len(envelope) < GOOD_POINTS:
            notes.append(f"{name} has {len(envelope)} points; {GOOD_POINTS} or more are good practice.")
        envelopes.append(np.array(envelope))
    low = max(envelope[0, 1] for envelope in envelopes)
    high = min(envelope[-1, 1] for envelope in envelopes)
    if high <= low:
        ranges = ", ".join(f"{n!r} {e[0, 1]:.4g} to {e[-1, 1]:.4g}" for n, e in zip(names, envelopes, strict=True))
        raise ConfigError(f"BD-rate needs a common range of quality, got {ranges}: evaluate at rates that overlap")
    share = (high - low) / (max(e[-1, 1] for e in envelopes) - min(e[0, 1] for e in envelopes))
    if share < GOOD_OVERLAP:
        notes.append(f"The curves share {share:.0%} of their range of quality.")
    (rate, quality), (anchor_rate, anchor_quality) = (envelope.T for envelope in envelopes)
    percent = library_bd_rate(
        anchor_rate, anchor_quality, rate, quality, method="pchip", require_matching_points=False, min_overlap=0
    )
    return BdRate(float(percent), float(low), float(high), tuple(notes))


def upper_envelope(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the `(rate, quality)` points that are better than every point of lower or equal rate, by rising rate.

    Raises:
        ConfigError: a rate that is not positive.
    """
    envelope: list[tuple[float, float]] = []
    for rate, quality in sorted(points, key=lambda point: (point[0], -point[1])):
        if not rate > 0:
            raise ConfigError(f"BD-rate needs positive rates (it takes their logarithm), got {rate}")
        if not envelope or quality > envelope[-1][1]:
            envelope.append((rate, quality))
    return envelope
