"""Fig. 3, the training curves of JSD and LPIPS, and Fig. 4, the task against the compression ratio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gosvae.extras import needs
from gosvae.reproduce.plan import CURVES, STRIDES, RowPlan
from gosvae.reproduce.results import Result, task_quality

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "svg.hashsalt": "gosvae",
    "axes.spines.top": False,
    "axes.spines.right": False,
}
COLOURS = {"jsd": "#D55E00", "lpips": "#0072B2"}
# Okabe and Ito's colours, as in the package's other plots; markers repeat the difference without colour.
_CURVE_STYLE: dict[Any, Any] = {CURVES[0]: ("#0072B2", "s"), CURVES[1]: ("#D55E00", "o"), CURVES[2]: ("#009E73", "^")}
_JITTER = {CURVES[0]: 0.97, CURVES[1]: 1.0, CURVES[2]: 1.03}
"""Factor of r by which the points of different curves are moved apart."""


@dataclass(frozen=True)
class Correlation:
    """Pearson's correlation of two training curves.

    Attributes:
        raw: correlation of the logged values, each of one batch.
        smoothed: correlation of their moving means over `window` logged steps.
        points: number of logged steps.
    """

    raw: float
    smoothed: float
    window: int
    points: int


def training_curves(log: Sequence[Mapping[str, Any]]) -> tuple[Floats, Floats, Floats]:
    """Return steps, JSD (nats) and LPIPS of the logged steps that have both."""
    both = [line for line in log if "jsd" in line and "lpips" in line]
    columns = [np.array([float(line[name]) for line in both]) for name in ("step", "jsd", "lpips")]
    return columns[0], columns[1], columns[2]


def moving_mean(values: Floats, window: int) -> Floats:
    """Return the means over `window` neighbouring values, only where all of them exist."""
    return np.convolve(values, np.ones(window) / window, mode="valid")


def correlation(jsd: Floats, lpips: Floats) -> Correlation | None:
    """Return the correlation of the curves, smoothed over a twentieth of the training; None for fewer than 3 points."""
    window = max(1, len(jsd) // 20)
    if len(jsd) - window + 1 < 3:
        return None
    smooth = np.corrcoef(moving_mean(jsd, window), moving_mean(lpips, window))[0, 1]
    return Correlation(float(np.corrcoef(jsd, lpips)[0, 1]), float(smooth), window, len(jsd))


def plot_training(log: Sequence[Mapping[str, Any]], path: Path, title: str) -> Correlation | None:
    """Write Fig. 3 as PNG and return the correlation; None, without a file, if the log has too few steps."""
    with needs("plot", "a figure"):
        from matplotlib import rc_context
        from matplotlib.figure import Figure

    step, jsd, lpips = training_curves(log)
    found = correlation(jsd, lpips)
    if found is None:
        return None
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.0), dpi=150, layout="constrained")
        left = figure.add_subplot()
        right = left.twinx()
        middle = (found.window - 1) // 2
        for axes, name, values in ((left, "jsd", jsd), (right, "lpips", lpips)):
            smooth = moving_mean(values, found.window)
            axes.plot(step, values, color=COLOURS[name], alpha=0.25, linewidth=0.8)
            axes.plot(step[middle : middle + len(smooth)], smooth, color=COLOURS[name], linewidth=1.8)
            axes.set_ylim(0, 1.1 * float(np.quantile(values, 0.995)))
        left.set_xlabel("optimiser step")
        left.set_ylabel("JSD (nats)", color=COLOURS["jsd"])
        right.set_ylabel("LPIPS", color=COLOURS["lpips"])
        right.spines["right"].set_visible(True)
        left.set_title(title, fontsize=10, loc="left")
        _save(figure, path)
    return found


def plot_ratios(rows: Sequence[RowPlan], results: Mapping[str, Result], path: Path, title: str) -> bool:
    """Write Fig. 4 as PNG, with a point for each seed and lines through the means; return whether there are points."""
    with needs("plot", "a figure"):
        from matplotlib import rc_context
        from matplotlib.figure import Figure

    measured = [row for row in rows if results[row.row_id].row is not None]
    if not measured:
        return False
    with rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.2), dpi=150, layout="constrained")
        panels = figure.subplots(1, 2)
        for axes, number, label in zip(panels, (0, 1), ("mIoU (%)", "pixel accuracy (%)"), strict=True):
            for curve in CURVES:
                _draw_curve(axes, curve, [row for row in measured if row.curve == curve], results, number)
            reference = results[measured[0].row_id].reference
            value = None if reference is None else task_quality(reference)[number]
            if value is not None:
                axes.axhline(value, color="#555555", linestyle="--", linewidth=1.2, label="uncompressed")
                axes.annotate(
                    f"{value:.1f}", (1, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=9
                )
            axes.set_xscale("log", base=2)
            axes.set_xticks(STRIDES, [str(stride) for stride in STRIDES])
            axes.set_xlabel("r, pixels per latent position on each axis")
            axes.set_ylabel(label)
            axes.set_ylim(bottom=0)
            axes.grid(which="major", color="#DDDDDD", linewidth=0.7)
            axes.set_axisbelow(True)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=4, fontsize=9)
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
        _save(figure, path)
    return True


def _draw_curve(axes: Axes, curve: str, rows: Sequence[RowPlan], results: Mapping[str, Result], number: int) -> None:
    colour, marker = _CURVE_STYLE[curve]
    by_stride: dict[int, list[float]] = {}
    for row in rows:
        measured = results[row.row_id].row
        value = None if measured is None else task_quality(measured)[number]
        if value is not None and row.stride is not None:
            by_stride.setdefault(row.stride, []).append(value)
    strides = sorted(by_stride)
    places = [stride * _JITTER[curve] for stride in strides]
    for place, stride in zip(places, strides, strict=True):
        values = by_stride[stride]
        axes.plot([place] * len(values), values, marker, color=colour, markersize=6, alpha=0.75, linestyle="none")
    means = [float(np.mean(by_stride[stride])) for stride in strides]
    axes.plot(places, means, color=colour, marker=marker, markersize=3, linewidth=1.6, label=curve)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
