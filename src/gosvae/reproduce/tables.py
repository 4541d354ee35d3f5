"""Tables I to IV: our numbers, the paper's numbers and their differences, with captions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gosvae.evaluation.rows import FID_NETWORK, UNCOMPRESSED, Row, frechet_title
from gosvae.reproduce.plan import RowPlan
from gosvae.reproduce.results import Group, Result, accuracy_of, frechet_network, group, miou_of, task_quality
from gosvae.reproduce.spread import Spread

DASH = "-"
OURS, PAPER, DIFFERENCE = "ours", "paper", "difference"

Quantity = tuple[Spread, float | None, int]
"""Our values, the paper's value, and the number of digits after the point."""


@dataclass(frozen=True)
class Table:
    """Table as text.

    Attributes:
        name: name on the command line.
        title: heading of the table.
        columns: names (group, column); the name of a group stands once above its columns.
        lines: cells as text, each line as long as `columns`.
        added: whether the paper lacks the line, for each line.
        notes: sentences of the caption.
    """

    name: str
    title: str
    columns: tuple[tuple[str, str], ...]
    lines: tuple[tuple[str, ...], ...]
    added: tuple[bool, ...]
    notes: tuple[str, ...] = ()


def number(value: float | None, digits: int, *, sign: bool = False) -> str:
    """Return a number as text; a dash if it is None."""
    if value is None:
        return DASH
    if not math.isfinite(value):
        return "inf"
    return f"{value:{'+' if sign else ''}.{digits}f}"


def with_spread(spread: Spread, digits: int, *, sign: bool = False) -> str:
    """Return the mean of several seeds and, if there are at least two, their standard deviation as text."""
    deviation = spread.deviation
    return number(spread.mean, digits, sign=sign) + ("" if deviation is None else f" ± {deviation:.{digits}f}")


def compared(quantity: Quantity) -> tuple[str, str, str]:
    """Return our mean with its spread, the paper's value and the difference as text."""
    ours, paper, digits = quantity
    difference = None if ours.mean is None or paper is None else ours.mean - paper
    return with_spread(ours, digits), number(paper, digits), number(difference, digits, sign=True)


def _name(line: Group) -> str:
    name, result = line.plan.title, line.shown
    if result.record is not None and result.trouble:
        name += " (measured in another way)" if result.stands else " (other settings)"
    if result.row is not None and result.row.over_budget_images:
        name += f" (over budget on {result.row.over_budget_images} of {result.row.image_count} images)"
    return name if not result.missing else f"{name} ({result.missing})"


def _effort(line: Group) -> tuple[str, str]:
    """Return the steps, with those of a pre-trained start, and the mean minutes of the row's own training as text."""
    record = line.shown.record
    if record is None or not record.steps:
        return DASH, DASH
    steps = f"{record.own_steps:,}" + (f" after {record.start_steps:,}" if record.start_steps else "")
    return steps, number(line.minutes(), 1)


def _seeds(line: Group) -> str:
    """Return the number of seeds that are done, for a row that has a seed."""
    has_seed = line.shown.record is not None and line.shown.record.seed is not None
    return str(len(line.seeds)) if has_seed or len(line.seeds) > 1 else DASH


def _task(line: Group) -> list[str]:
    paper = line.paper
    quantities = ((line.spread(miou_of), paper.miou, 2), (line.spread(accuracy_of), paper.accuracy, 2))
    return [cell for quantity in quantities for cell in compared(quantity)]


def _millions(row: Row | None) -> float | None:
    return None if row is None or not row.parameters else row.parameters / 1e6


def reference_row(results: Mapping[str, Result], rows: Sequence[RowPlan]) -> Row | None:
    """Return the row of the expert on the originals, from the first row that is done."""
    return next((found for row in rows if (found := results[row.row_id].reference) is not None), None)


def _triple(group: str) -> list[tuple[str, str]]:
    return [(group, OURS), (group, PAPER), (group, DIFFERENCE)]


_TASK_COLUMNS = [*_triple("mIoU (%)"), *_triple("accuracy (%)")]
_EFFORT_COLUMNS = [("training", "steps"), ("training", "minutes"), ("", "seeds")]


def _lines(rows: Sequence[RowPlan], results: Mapping[str, Result], *, last: str | None = None) -> list[Group]:
    """Return the lines of a table: rows of the plan in the paper's order, each with its repetitions."""
    return [group(results, row) for row in in_paper_order([row for row in rows if row.repeats is None], last=last)]


def rate_task_table(
    name: str, title: str, rows: Sequence[RowPlan], results: Mapping[str, Result], notes: Sequence[str]
) -> Table:
    """Return Table I or II: payload, parameters, mIoU, accuracy."""
    columns = [("", "system"), *_triple("KiB"), ("parameters (M)", OURS), ("parameters (M)", PAPER)]
    columns += [*_TASK_COLUMNS, *_EFFORT_COLUMNS]
    lines, added = [], []
    reference = reference_row(results, rows)
    if reference is not None:
        quantities = [(Spread(() if value is None else (value,)), None, 2) for value in task_quality(reference)]
        task = [cell for quantity in quantities for cell in compared(quantity)]
        lines.append((f"{UNCOMPRESSED.capitalize()} (the expert on the originals)", *[DASH] * 5, *task, *[DASH] * 3))
        added.append(True)
    for line in _lines(rows, results):
        size = number(_millions(line.shown.row), 2), number(line.paper.parameters_m, 2)
        rate = compared((line.spread(lambda row: row.total_kib), line.paper.kib, 2))
        lines.append((_name(line), *rate, *size, *_task(line), *_effort(line), _seeds(line)))
        added.append(line.plan.role == "added")
    return Table(name, title, tuple(columns), tuple(lines), tuple(added), tuple(notes))


def ablation_table(rows: Sequence[RowPlan], results: Mapping[str, Result], notes: Sequence[str]) -> Table:
    """Return Table IV: mIoU and accuracy by objective."""
    columns = [("", "system"), ("", "KiB"), *_TASK_COLUMNS, *_EFFORT_COLUMNS]
    lines = []
    for line in _lines(rows, results, last="gosvae-scratch"):
        rate = with_spread(line.spread(lambda row: row.total_kib), 2)
        name = _name(line)
        if line.plan.row_id == "gosvae-scratch":
            name = name.replace(line.plan.title, "GOS-VAE (JSD + LPIPS)")
        lines.append((name, rate, *_task(line), *_effort(line), _seeds(line)))
    title = "Table IV: objective functions"
    return Table("table4", title, tuple(columns), tuple(lines), (False,) * len(lines), tuple(notes))


def visual_table(rows: Sequence[RowPlan], results: Mapping[str, Result], notes: Sequence[str]) -> Table:
    """Return Table III: MSE, Fréchet distance, LPIPS."""
    network = frechet_network(results, rows)
    triples = [_triple("MSE"), _triple(frechet_title(network)), _triple("LPIPS")]
    columns = [("", "system"), *(column for triple in triples for column in triple), *_EFFORT_COLUMNS]
    lines, added = [], []

    def in_column(row: Row) -> float | None:
        return row.frechet_distance if row.frechet_network == network else None

    for line in _lines(rows, results):
        distance = compared((line.spread(in_column), line.paper.fid, 2))
        # A difference between features of different networks has no meaning.
        squared = compared((line.spread(lambda row: row.mse), line.paper.mse, 4))
        is_unscaled = line.plan.plain_id == "gesco-labels"  # the paper's MSE of GESCO has another scale
        cells = [*squared[:2], DASH if is_unscaled else squared[2], *distance[:2]]
        cells += [
            distance[2] if network == FID_NETWORK else DASH,
            *compared((line.spread(lambda row: row.lpips), line.paper.lpips, 3)),
        ]
        lines.append((_name(line), *cells, *_effort(line), _seeds(line)))
        added.append(line.plan.role == "added" or line.paper.fid is None)
    title = "Table III: visual quality"
    return Table("table3", title, tuple(columns), tuple(lines), tuple(added), tuple(notes))


_ORDER = (
    "jpeg autoencoder vqgan gesco-labels gesco vqvae vqvae-residual gosvae-scratch gosvae gosvae-residual "
    "gosvae-ce gosvae-kld vqvae-kld vqvae-lpips gosvae-kld-lpips"
).split()


def in_paper_order(rows: Sequence[RowPlan], *, last: str | None = None) -> list[RowPlan]:
    """Return the paper's rows in its own order, then the rows that it lacks."""

    def place(row: RowPlan) -> tuple[int, int]:
        if row.row_id == last:
            return (1, 0)
        return (0, _ORDER.index(row.row_id)) if row.row_id in _ORDER else (2, 0)

    return sorted(rows, key=place)
