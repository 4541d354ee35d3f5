"""Report of a reproduction: `report.html` (one file), `report.md` with its figures, and `rows.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gosvae.evaluation.rows import Provenance
from gosvae.files import write_atomically, write_json
from gosvae.quantizers import VqConfig
from gosvae.reproduce import captions, effort
from gosvae.reproduce.claims import claims_table
from gosvae.reproduce.figures import plot_ratios, plot_training
from gosvae.reproduce.grid import draw_grid
from gosvae.reproduce.paper import FIG3_CORRELATION, FIG4_WORST_MIOU
from gosvae.reproduce.pictures import make_pictures
from gosvae.reproduce.plan import CURVES, EXPERIMENTS, Borrowed, RowPlan, rows_text
from gosvae.reproduce.render import Picture, Section, html_page, markdown_report
from gosvae.reproduce.results import Result, gather, task_quality
from gosvae.reproduce.runner import Runner
from gosvae.reproduce.scales import recipe_of
from gosvae.reproduce.tables import (
    DASH,
    Table,
    ablation_table,
    number,
    rate_task_table,
    visual_table,
)
from gosvae.training.vq import VqRecipe

TITLE = "Reproduction of the paper's comparison"


@dataclass(frozen=True)
class Shown:
    """Tables and figures of one data set in a report.

    Attributes:
        runner: runner of their rows.
        experiments: names of the tables and figures.
        name: name of the data set in `rows.json` and in headings that another data set has too; empty if there is none.
    """

    runner: Runner
    experiments: tuple[str, ...]
    name: str = ""


def write_report(
    runner: Runner,
    experiments: Sequence[str],
    folder: Path,
    *,
    picture_data: str | None = None,
    picture_count: int = 3,
) -> Path:
    """Write the report of the rows that are done so far and return the path of its HTML page.

    Args:
        experiments: tables and figures that it shows.
        picture_data, picture_count: images of Fig. 2, see `pictures.make_pictures`.

    Raises:
        WriteError: no space or no permission.
    """
    shown = (Shown(runner, tuple(experiments)),)
    return write_joint_report(shown, folder, picture_data=picture_data, picture_count=picture_count)


def write_joint_report(
    shown: Sequence[Shown], folder: Path, *, picture_data: str | None = None, picture_count: int = 3
) -> Path:
    """Write one report of several data sets, in the paper's order; otherwise as `write_report`."""
    results = {part.name: gather(part.runner, part.runner.rows) for part in shown}
    folder.mkdir(parents=True, exist_ok=True)
    claims = [(part, claims_table(results[part.name], part.runner.world.paper_set)) for part in shown]
    sections: list[Section] = [_named(table, part.name) for part, table in claims if table is not None]
    for name in EXPERIMENTS:
        parts = [part for part in shown if name in part.experiments]
        for part in parts:
            made = _section(name, part.runner, results[part.name], folder, picture_data, picture_count)
            sections += [_named(section, part.name if len(parts) > 1 else "") for section in made]
    introduction = _introduction([result for found in results.values() for result in found.values()])
    for part in shown:
        told = captions.fairness(part.runner.world, results[part.name])
        introduction += [f"{part.name}: {line}" if part.name else line for line in told]
    write_atomically(folder / "report.md", markdown_report(TITLE, introduction, sections).encode())
    rows = [
        {**({"data": part.name} if part.name else {}), **_compact(results[part.name][row.row_id])}
        for part in shown
        for row in part.runner.rows
    ]
    write_json(folder / "rows.json", rows)
    page = folder / "report.html"
    write_atomically(page, html_page(TITLE, introduction, sections, folder).encode())
    return page


def _named(section: Section, data: str) -> Section:
    """Return a section with the name of its data set in the heading, if it needs one."""
    if not data:
        return section
    head, colon, rest = section.title.partition(":")
    return replace(section, name=f"{section.name}-{data}", title=f"{head} ({data}){colon}{rest}")


def _introduction(results: Sequence[Result]) -> list[str]:
    shown, done = ([r for r in results if r.record is not None], [r for r in results if r.is_done])
    minutes = sum(r.record.training_minutes + r.record.evaluation_minutes for r in done if r.record is not None)
    lines = [
        "Chao et al., Task-Driven Semantic Quantization and Imitation Learning for Goal-Oriented Communications "
        "(arXiv:2502.17842): our numbers, the paper's numbers, and the differences. Data, expert and length of "
        "training differ as each caption says, so a difference from the paper does not show that either side is "
        "better. Rows of one column can be compared with each other as far as their spread over the seeds allows.",
        f"{len(done)} of {rows_text(len(results))} are done, in {minutes / 60.0:.1f} hours of training and measuring.",
    ]
    sources = [result.evaluation.provenance for result in shown if result.evaluation is not None]
    if sources:
        dates = sorted({source.date_utc[:10] for source in sources})
        lines.append(
            f"{_revisions(shown)}; {_versions(sources)}; measured "
            + (f"on {dates[0]}." if len(dates) == 1 else f"from {dates[0]} to {dates[-1]}.")
        )
    return lines


def _versions(sources: Sequence[Provenance]) -> str:
    """Return the versions of all packages; of one that changed between rows, each version."""
    found: dict[str, dict[str, None]] = {}
    for source in sources:
        for name, value in source.versions.items():
            found.setdefault(name, {})[value] = None
    return ", ".join(f"{name} {' and '.join(values)}" for name, values in sorted(found.items()))


def _revisions(shown: Sequence[Result]) -> str:
    """Return the revisions that measured the rows; there are several if the program changed between calls."""
    evaluations = [result.evaluation for result in shown if result.evaluation is not None]
    counts = Counter(evaluation.provenance.revision or "unknown" for evaluation in evaluations)
    if len(counts) == 1:
        return f"Revision {next(iter(counts))}"
    return "Revisions " + ", ".join(f"{revision} ({rows_text(count)})" for revision, count in counts.items())


def _section(
    name: str,
    runner: Runner,
    results: Mapping[str, Result],
    folder: Path,
    picture_data: str | None,
    picture_count: int,
) -> list[Section]:
    """Return a table or figure of the paper with its caption."""
    rows = [row for row in runner.rows if name in row.experiments]
    world = runner.world
    notes = [
        *captions.seeds(results, rows),
        *captions.setting(world, results, rows),
        *captions.gesco(world, rows),
        *captions.troubles(results, rows),
    ]
    if name in ("table1", "table2"):
        where = "Table II (ADE20K)" if name == "table2" else "Table I"
        notes += [captions.RATES, *([captions.PAPER_RATES] if name == "table1" else []), captions.LABEL_MAP]
        return [rate_task_table(name, f"{where}: payload, parameters, task", rows, results, notes)]
    if name == "table3":
        return [visual_table(rows, results, [*notes, captions.frechet(results, rows), captions.VISUAL])]
    if name == "table4":
        weights = effort.codebook_weights(world, results, rows)
        return [ablation_table(rows, results, [captions.ablation(world, rows), *filter(None, [weights]), *notes])]
    if name == "fig2":
        return [_pictures(runner, rows, results, folder, picture_data, picture_count)]
    if name == "fig3":
        return [_training_curves(runner, results, folder)]
    return _ratios(runner, rows, results, folder, notes)


def _pictures(
    runner: Runner,
    rows: Sequence[RowPlan],
    results: Mapping[str, Result],
    folder: Path,
    picture_data: str | None,
    picture_count: int,
) -> Picture:
    made = make_pictures(
        runner, [row for row in rows if results[row.row_id].row is not None], picture_data, picture_count
    )
    title, alternative = "Fig. 2: reconstructions and the expert's maps", "Reconstructions with the expert's maps"
    if not made.rows:
        return Picture("fig2", title, None, alternative, tuple(filter(None, [made.remark])))
    draw_grid(made, folder / "fig2.webp")
    notes = (
        f"Images: {made.source}. Each system has its reconstruction, the expert's map below it, and magnified small "
        "objects in frames of matching colours, which a rule finds in the map of the original. The bytes are those of "
        f"the shown image. {made.remark}".strip(),
    )
    return Picture("fig2", title, "fig2.webp", alternative, (*notes, *captions.gesco(runner.world, rows)))


def _training_curves(runner: Runner, results: Mapping[str, Result], folder: Path) -> Picture:
    result, title = results.get("gosvae-scratch"), "Fig. 3: training curves of JSD and LPIPS"
    alternative = "JSD and LPIPS against the optimiser step"
    if result is None or result.record is None:
        return Picture("fig3", title, None, alternative)
    if not runner.folder_of("gosvae-scratch").checkpoint.exists():
        why = f"{result.plan.title} has no training curves here: its numbers come from a kept file, which has none."
        return Picture("fig3", title, None, alternative, (why,))
    log = runner.folder_of("gosvae-scratch").log()
    name = f"{result.plan.title}, {runner.world.train_images.name}"
    found = plot_training(log, folder / "fig3.png", name)
    if found is None:
        return Picture("fig3", title, None, alternative, ("The training has too few logged steps with both terms.",))
    note = (
        f"Pearson's correlation of the two curves: {found.smoothed:.3f} of the moving means over {found.window} logged "
        f"steps (thick lines), {found.raw:.3f} of the {found.points} logged values themselves, each of one batch (thin "
        f"lines). The paper: {FIG3_CORRELATION}, on ADE20K, without saying for which points and with which smoothing."
    )
    return Picture("fig3", title, "fig3.png", alternative, (note,))


def _ratios(
    runner: Runner, rows: Sequence[RowPlan], results: Mapping[str, Result], folder: Path, notes: Sequence[str]
) -> list[Section]:
    sweep = [row for row in rows if row.curve is not None]
    title, alternative = "Fig. 4: the task against the compression ratio r", "mIoU and accuracy against r"
    measured = [row for row in sweep if results[row.row_id].row is not None]
    if not measured or not plot_ratios(sweep, results, folder / "fig4.png", _sweep_title(runner, measured)):
        return [Picture("fig4", title, None, alternative)]
    images, seeds = len(runner.world.images_of(sweep[0])), len({row.seed for row in measured})
    qualities = [(task_quality(found)[0], row) for row in measured if (found := results[row.row_id].row) is not None]
    worst = min(((value, row.title) for value, row in qualities if value is not None), default=None)
    own = [
        f"A point is one training with one seed ({seeds} seeds), and a line goes through their means, on "
        f"{images} images. Compare the points with rows of the tables at equal steps only.",
        f"The paper reports unstable training from scratch at high r, mIoU down to {FIG4_WORST_MIOU} % on Cityscapes."
        + ("" if worst is None else f" Our lowest: {worst[0]:.1f} % ({worst[1]})."),
    ]
    picture = Picture("fig4", title, "fig4.png", alternative, (*own, *notes))
    return [picture, _ratio_table(sweep, results)]


def _sweep_title(runner: Runner, sweep: Sequence[RowPlan]) -> str:
    """Return the data set, the size of the codebook and the architecture of the points of Fig. 4."""
    row = sweep[0]
    if isinstance(row.source, Borrowed):
        owner = row.source.row
        row = next(other for other in runner.rows if other.row_id == owner)
    recipe = recipe_of(row, runner.world.changes_of(row))
    parts = [runner.world.test_images.name]
    if isinstance(recipe, VqRecipe) and isinstance(recipe.model.quantizer, VqConfig):
        parts += [f"K={recipe.model.quantizer.codebook_size}", recipe.model.autoencoder.architecture]
    return ", ".join(parts)


def _ratio_table(rows: Sequence[RowPlan], results: Mapping[str, Result]) -> Table:
    """Return the points of Fig. 4 as numbers: the value of each seed, by curve and stride."""
    columns = [("", "system"), ("", "r"), ("", "KiB"), ("mIoU (%)", "mean"), ("mIoU (%)", "seeds")]
    columns += [("accuracy (%)", "mean"), ("accuracy (%)", "seeds"), ("training", "minutes")]
    lines = []
    for curve in CURVES:
        for stride in sorted({row.stride for row in rows if row.stride is not None}):
            points = [results[row.row_id] for row in rows if (row.curve, row.stride) == (curve, stride)]
            done = [(p.row, p.record) for p in points if p.row is not None and p.record is not None]
            cells = [_mean([row.total_kib for row, _ in done], 2)]
            for number_of in (0, 1):
                values = [task_quality(row)[number_of] for row, _ in done]
                cells += [_mean(values, 2), ", ".join(number(value, 1) for value in values) or DASH]
            minutes = ", ".join(number(record.training_minutes if record.steps else None, 1) for _, record in done)
            lines.append((curve, str(stride), *cells, minutes or DASH))
    return Table("fig4-numbers", "Fig. 4 in numbers", tuple(columns), tuple(lines), (False,) * len(lines))


def _mean(values: Sequence[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    return number(sum(known) / len(known) if known else None, digits)


def _compact(result: Result) -> dict[str, Any]:
    """Return a row for `rows.json`: settings, effort and measured means, without the results of single images."""
    measured = None if result.row is None else asdict(result.row)
    if measured is not None:
        measured.pop("class_iou")
    return {
        "row": result.plan.row_id,
        "title": result.plan.title,
        "state": result.missing or "done",
        "trouble": result.trouble,
        "record": None if result.record is None else asdict(result.record),
        "measured": measured,
        "paper": {key: value for key, value in asdict(result.paper).items() if value is not None},
    }
