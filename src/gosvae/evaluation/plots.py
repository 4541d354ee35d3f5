"""Rate-task plot: quality of the task against bytes, one curve for each codec."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gosvae.errors import ConfigError, unknown_name
from gosvae.evaluation.evaluation import Evaluation
from gosvae.evaluation.rows import Row
from gosvae.extras import needs
from gosvae.walk import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours of Okabe and Ito, which colour-blind readers can tell apart; markers repeat the difference without colour.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F3C8D", "#80BA5A")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")  # one fewer than colours: 72 different pairs

_AXES = {
    "miou": "mIoU against labels",
    "pixel_accuracy": "pixel accuracy against labels",
    "agreement_miou": "agreement (mIoU against the expert's map of the original)",
    "agreement_accuracy": "share of pixels where the expert sees the same as on the original",
    "psnr_db": "PSNR (dB)",
    "lpips": "perceptual distance (lower is better)",
}


def plot_rate_task(evaluation: Evaluation, paths: Sequence[str | Path], *, quality: str | None = None) -> None:
    """Write the plot to each path; the ending (`.png`, `.svg`, `.pdf`) chooses the format.

    The rate is the mean KiB of complete files, or the kbit/s of videos, on a logarithmic axis. The uncompressed
    reference is a dashed line. The points of a curve are joined; a hollow marker is a point that is over its budget on
    some images.

    Args:
        evaluation: results to plot.
        paths: paths of the plots.
        quality: value of `Row`: miou, pixel_accuracy, agreement_miou, agreement_accuracy, psnr_db or lpips; None takes
            mIoU if there are labels, else the agreement.

    Raises:
        ConfigError: an unknown quality, or one that no codec has.
    """
    with needs("plot", "a plot"):
        from matplotlib import rc_context
        from matplotlib.figure import Figure

    quality = quality or ("miou" if evaluation.reference.miou is not None else "agreement_miou")
    if quality not in _AXES:
        raise ConfigError(unknown_name("quality", quality, _AXES))
    if all(getattr(row, quality) is None for row in evaluation.rows[1:]):
        raise ConfigError(f"no codec has a value for {quality}: choose another of {', '.join(_AXES)}")
    with rc_context({"font.size": 10, "svg.hashsalt": "gosvae", "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(7.2, 4.6), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        _draw_curves(axes, evaluation, quality)
        _draw_reference(axes, getattr(evaluation.reference, quality))
        _label_axes(axes, evaluation, quality)
        for path in map(Path, paths):
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def in_plot(name: str) -> str:
    """Return a name as Matplotlib draws it: without control characters, and a dollar sign begins no formula."""
    return printable(name).replace("$", r"\$")


def _draw_curves(axes: Axes, evaluation: Evaluation, quality: str) -> None:
    for number, (name, rows) in enumerate(evaluation.curves().items()):
        points: list[tuple[float, float, Row]] = [
            (rate, getattr(row, quality), row)
            for row in rows
            if (rate := row.kbit_per_second if evaluation.is_video else row.total_kib) is not None
            and getattr(row, quality) is not None
        ]
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        axes.plot([p[0] for p in points], [p[1] for p in points], color=colour, linewidth=1.6)
        axes.plot([], [], color=colour, marker=marker, linewidth=1.6 if len(points) > 1 else 0, label=in_plot(name))
        for rate, value, row in points:
            face = "white" if row.over_budget_images else colour
            axes.plot(rate, value, marker, color=colour, markerfacecolor=face, markersize=6.5, zorder=3)
    if any(row.over_budget_images for row in evaluation.rows):
        axes.plot([], [], "o", color="grey", markerfacecolor="white", label="over budget on some images")


def _draw_reference(axes: Axes, value: float | None) -> None:
    if value is not None:
        axes.axhline(value, color="#555555", linestyle="--", linewidth=1.2, label=f"uncompressed ({value:.3f})")


def _label_axes(axes: Axes, evaluation: Evaluation, quality: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    source = evaluation.provenance
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    if high < 4 * low:  # matched codecs differ by a few bytes, which must not fill the whole width
        middle = math.sqrt(low * high)
        axes.set_xlim(middle / 2, 2 * middle)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high >= 4 * low else (1.0, 1.5, 2, 3, 4, 5, 6, 8)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    where = "headers included" if source.channel is None else "on the air, headers and repair packets included"
    axes.set_xlabel("kbit/s" if evaluation.is_video else f"KiB per image (1 KiB = 1024 bytes, {where})")
    axes.set_ylabel(f"{source.perceptual} (lower is better)" if quality == "lpips" else _AXES[quality])
    axes.set_title(
        f"{in_plot(source.dataset)}, images: {source.image_count} of {source.geometry}; expert: "
        f"{in_plot(source.expert)}",
        fontsize=10,
        loc="left",
    )
    axes.grid(which="major", color="#DDDDDD", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="best", fontsize=9)
