"""Curves of codecs over their range of qualities, and their BD-rates, for the commands that evaluate."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence

from gosvae.codecs.base import ImageCodec
from gosvae.codecs.classical import load_classical
from gosvae.codecs.variable import VariableRateCodec
from gosvae.errors import ConfigError, GosvaeError
from gosvae.evaluation.bd_rate import CLASSICAL_NAMES, ENVELOPE, bd_rate
from gosvae.evaluation.cells import has_boxes
from gosvae.evaluation.equal_quality import rate_at_quality
from gosvae.evaluation.evaluation import Evaluation

SWEEPS = {
    "jpeg": (3, 5, 8, 12, 20, 35, 60),
    "jpeg-half": (5, 10, 20, 35, 55, 75, 90),
    "jpeg-quarter": (5, 10, 20, 35, 55, 75, 90),
    "webp": (0, 5, 15, 30, 50, 75),
    "avif": (1, 5, 10, 20, 30, 40, 50, 60, 70),
    "avif-half": (5, 15, 30, 45, 60, 75, 90),
    "avif-third": (5, 20, 40, 55, 70, 80, 90),
    "avif-slow": (0, 2, 5, 10, 18, 28, 40, 55, 70),
    "avif-half-slow": (2, 10, 20, 35, 50, 65, 80),
    "avif-third-slow": (5, 20, 40, 55, 70, 80, 90),
    "jpegxl": (5, 10, 20, 30, 40, 55, 70),
    "hevc": (3, 7, 11, 15, 19, 24, 30),
    "vvc": (6, 11, 16, 21, 26, 31, 36),
}
"""Qualities of the rate points of a classical codec's curve."""
LEVELS_SWEPT = (0, 32, 64, 96, 128, 160, 192, 224, 255)
"""Levels of the rate points of a variable-rate codec's curve."""


def image_points(
    name: str, load: Callable[[str], ImageCodec], *, taken: Collection[str | None], levels: Sequence[int] = LEVELS_SWEPT
) -> tuple[str, list[tuple[str, ImageCodec]]]:
    """Return the name of an image codec's curve, and the label and codec of each of its rate points.

    Args:
        name: classical codec or variable-rate codec.
        load: function that loads a trained codec.
        taken: names of the curves that there are already; two runs of the same recipe have the same name.
        levels: levels of a variable-rate codec.

    Raises:
        ConfigError: the rate of the codec is fixed.
    """
    if name in SWEEPS:
        return name, [(f"{name}:{quality}", load_classical(name, quality)) for quality in SWEEPS[name]]
    swept = load(name)
    if not isinstance(swept, VariableRateCodec):
        raise ConfigError(f"--sweep {name}: its rate is fixed; take {', '.join(SWEEPS)} or a variable-rate codec")
    curve = name if swept.name in taken else swept.name
    return curve, [(f"{curve}:{level}", swept.at(level)) for level in levels]


def check_anchor(anchor: str | None, codec_of_curve: Mapping[str | None, str]) -> None:
    """Refuse an anchor that is neither a curve nor the envelope of all rivals.

    Args:
        anchor: name of a curve, `envelope`, or None.
        codec_of_curve: name of the codec of every curve.

    Raises:
        ConfigError: there is no such curve, or no classical codec.
    """
    if not anchor or anchor in codec_of_curve:
        return
    if anchor != ENVELOPE:
        raise ConfigError(
            f"--anchor {anchor} needs its curve: add --sweep {anchor}, name it by --curve, or take --anchor {ENVELOPE}"
        )
    if not CLASSICAL_NAMES.intersection(codec_of_curve.values()):
        raise ConfigError(f"--anchor {ENVELOPE} is that of classical codecs: add --sweep {next(iter(SWEEPS))}")


def print_bd_rates(evaluation: Evaluation, anchor: str) -> None:
    """Print the BD-rate of every curve against the anchor, and the rate of each at 95 % of the uncompressed quality.

    The quality is the mIoU if there are labels, else the agreement; videos are compared by both. Where files of a codec
    are in containers, the BD-rate without their boxes stands beside.
    """
    labelled = evaluation.reference.miou is not None
    for quality in (["miou"] if labelled else []) + (["agreement_miou"] if evaluation.is_video or not labelled else []):
        for name, rows in evaluation.curves().items():
            if name != anchor and len(rows) > 1:
                _print_bd_rate(evaluation, name, anchor, quality)
        _print_rates(evaluation, 0.95 * getattr(evaluation.reference, quality), quality)


def _print_bd_rate(evaluation: Evaluation, name: str, anchor: str, quality: str) -> None:
    try:
        found = bd_rate(evaluation, name, anchor, quality=quality)
        boxes = ""
        if has_boxes(evaluation.rows):
            bare = bd_rate(evaluation, name, anchor, quality=quality, codestreams=True)
            boxes = f", without boxes {bare.percent:+.1f} %"
    except GosvaeError as error:
        print(f"BD-rate of {name} against {anchor}: none ({error})", file=sys.stderr)
        return
    span = f"{quality} {found.quality_from:.3f} to {found.quality_to:.3f}"
    print(f"BD-rate of {name} against {anchor}: {found.percent:+.1f} %{boxes} ({span}). {' '.join(found.notes)}")


def _print_rates(evaluation: Evaluation, target: float, quality: str) -> None:
    unit = "kbit/s" if evaluation.is_video else "KiB"
    print(f"{unit} for 95 % of the uncompressed {quality}, {target:.3f}:")
    for name, rows in evaluation.curves().items():
        if len(rows) > 1:
            rate = rate_at_quality(evaluation, name, target, quality=quality)
            print(f"  {name}: " + ("not between its points" if rate is None else f"{rate:.2f}"))
