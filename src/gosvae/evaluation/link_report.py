"""Markdown tables and plots of a sweep over channels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gosvae.evaluation.link_sweep import AXES, Sweep, SweepRow
from gosvae.evaluation.plots import COLOURS, MARKERS, in_plot
from gosvae.evaluation.tables import in_markdown
from gosvae.extras import needs
from gosvae.units import kib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PER_CENT = ("loss", "burst")
"""Names of the axes that are shown in per cent."""


def link_tables(sweep: Sweep) -> str:
    """Return a table for each axis, with a row for each system and a column for each point, and an explanation."""
    parts = [f"{_caption(sweep)}\n"]
    for axis, systems in _by_axis(sweep).items():
        xs = [row.x for row in next(iter(systems.values()))]
        header = ["system", "KiB", *(_shown(axis, x) for x in xs)]
        lines = [header, ["---", *(["---:"] * (len(header) - 1))]]
        for label, rows in systems.items():
            over = rows[0].over_budget_images
            name = in_markdown(label)
            name += f" (over budget on {over} of {sweep.provenance.image_count} images)" if over else ""
            lines.append([name, f"{kib(rows[0].air_bytes):.2f}", *(_cell(row) for row in rows)])
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        parts.append(f"{quality_title(sweep)}; across: {AXES[axis].title}\n\n{table}\n")
    return "\n".join(parts)


def plot_link(sweep: Sweep, axis: str, paths: Sequence[Path]) -> None:
    """Write the plot of an axis to each path; the ending (`.png`, `.svg`, `.pdf`) chooses the format."""
    with needs("plot", "a plot"):
        from matplotlib import rc_context
        from matplotlib.figure import Figure

    with rc_context({"font.size": 10, "svg.hashsalt": "gosvae", "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(7.2, 5.2), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        for number, (label, rows) in enumerate(_by_axis(sweep)[axis].items()):
            points = [(row.x, value) for row in rows if (value := quality_of(row)) is not None]
            scale = 100 if axis in _PER_CENT else 1
            axes.plot(
                [scale * x for x, _ in points],
                [value for _, value in points],
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                linewidth=1.6,
                label=f"{in_plot(label)} ({kib(rows[0].air_bytes):.2f} KiB)",
            )
        _finish(axes, sweep, axis)
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _finish(axes: Axes, sweep: Sweep, axis: str) -> None:
    """Draw axes, title, reference and legend."""
    source = sweep.provenance
    if axis == "ber":
        axes.set_xscale("symlog", linthresh=1e-6, linscale=0.5)
    if sweep.reference_miou is not None:
        text = f"uncompressed ({sweep.reference_miou:.3f})"
        axes.axhline(sweep.reference_miou, color="#555555", linestyle="--", linewidth=1.2, label=text)
    axes.set_xlabel(AXES[axis].title)
    axes.set_ylabel(quality_title(sweep))
    axes.set_ylim(bottom=0)
    axes.set_title(
        f"{in_plot(source.dataset)}, images: {source.image_count} of {source.geometry}; expert: "
        f"{in_plot(source.expert)}\n"
        "KiB (1024 bytes): mean of an image on the air, headers and repair packets included",
        fontsize=9,
        loc="left",
    )
    axes.grid(which="major", color="#DDDDDD", linewidth=0.7)
    axes.set_axisbelow(True)
    # The legend is below the axes: curves of many systems leave no room between them.
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, fontsize=8)


def quality_title(sweep: Sweep) -> str:
    """Return the name of the quality that `quality_of` returns."""
    if sweep.reference_miou is not None:
        return "mIoU against labels"
    return "agreement (mIoU against the expert's map of the original)"


def quality_of(row: SweepRow) -> float | None:
    """Return the mIoU if there are labels, else the agreement."""
    return row.agreement_miou if row.miou is None else row.miou


def _caption(sweep: Sweep) -> str:
    source = sweep.provenance
    reference = "" if sweep.reference_miou is None else f" uncompressed: {sweep.reference_miou:.4f};"
    return (
        f"{in_markdown(source.dataset)}, {source.image_count} images of {source.geometry} pixels, each sent "
        f"{sweep.repeats} times at each point; expert: {in_markdown(source.expert)};{reference} {source.channel}; "
        "KiB (1024 bytes): mean of an image on the air, packet headers and repair packets included (those of IP and "
        "UDP, and a radio channel's own code, are not). In brackets: share of the images that arrived whole."
    )


def _cell(row: SweepRow) -> str:
    value = quality_of(row)
    return "-" if value is None else f"{value:.4f} ({100 * row.whole:.0f} %)"


def _shown(axis: str, x: float) -> str:
    return f"{100 * x:g} %" if axis in _PER_CENT else f"{x:g}"


def _by_axis(sweep: Sweep) -> dict[str, dict[str, list[SweepRow]]]:
    grouped: dict[str, dict[str, list[SweepRow]]] = {}
    for row in sweep.rows:
        grouped.setdefault(row.axis, {}).setdefault(row.system, []).append(row)
    return grouped
