"""`gosvae reproduce`: make the paper's tables and figures, one or all."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from gosvae.cli.loading import add_trust
from gosvae.cli.options import (
    DATA_HELP,
    EXPERT_HELP,
    JUDGING,
    add_any_inception,
    add_geometry,
    add_judging,
    add_perceptual,
    add_run,
    geometry_of,
)
from gosvae.config import parse
from gosvae.errors import ConfigError, unknown_name
from gosvae.experts.registry import check_segmentation
from gosvae.extras import require
from gosvae.losses.perceptual import PERCEPTUAL_NAMES
from gosvae.reproduce.checks import check_job, check_labels
from gosvae.reproduce.job import ADE20K, CITYSCAPES, Job, World, row_and_change
from gosvae.reproduce.keep import Keep
from gosvae.reproduce.lock import alone_in
from gosvae.reproduce.outline import print_outline
from gosvae.reproduce.parts import PAPERS_EXPERIMENTS, Part, Progress, run_parts
from gosvae.reproduce.plan import EXPERIMENTS, SWEEP_SEEDS, RowPlan, all_rows, rows_of, rows_text
from gosvae.reproduce.processes import Summary
from gosvae.reproduce.records import trained_with
from gosvae.reproduce.report import Shown, write_joint_report
from gosvae.reproduce.scales import SCALES, Scale, load_scale
from gosvae.reproduce.trial import print_trials
from gosvae.training.machine.config import RunConfig

DEFAULT_EXPERT = "embedded"
"""Expert of scales below the paper's."""

PAPERS_EXPERTS = {
    CITYSCAPES: "hf:shi-labs/oneformer_cityscapes_swin_large",
    ADE20K: "hf:shi-labs/oneformer_ade20k_swin_large",
}
"""Experts that an error proposes."""

NOT_CHECKED = (
    "Not checked: the expert, files of weights, single images, memory and the time of a step on this machine. "
    "--check does that."
)
"""Sentence of a dry run, which loads nothing except the lists of images."""

EXAMPLE = """examples:
  gosvae reproduce all --scale small --data camvid:PATH --expert embedded --out runs/reproduction
  gosvae reproduce table1 --scale paper --data cityscapes:PATH --expert hf:shi-labs/oneformer_cityscapes_swin_large
  gosvae reproduce fig4 --scale gpu --data camvid:PATH --dry-run
  gosvae reproduce --paper --cityscapes PATH --cityscapes-expert hf:ID --ade20k PATH --ade20k-expert hf:ID

Stop it at any moment; the same command continues, without repeating finished rows. --max-minutes 0 only writes the
report of the rows that are finished.
"""


def add_reproduce(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae reproduce`."""
    parser.epilog = EXAMPLE
    parser.add_argument(
        "experiments", nargs="*", choices=(*EXPERIMENTS, "all"), default="all", metavar="EXPERIMENT",
        help=f"tables and figures of the paper: {', '.join(EXPERIMENTS)}; default: all that the data allow",
    )  # fmt: skip
    parser.add_argument(
        "--scale", choices=list(SCALES),
        help="size of the networks and length of the training; default: small, or paper with --paper",
    )  # fmt: skip
    parser.add_argument("--data", metavar="DATA", help=f"{DATA_HELP}; without a split")
    parser.add_argument("--test-data", metavar="DATA", help="images to measure on; default: the val split of --data")
    parser.add_argument(
        "--expert", metavar="EXPERT",
        help=f"{EXPERT_HELP}; default: {DEFAULT_EXPERT}, but at the scale paper it must be named",
    )  # fmt: skip
    _add_paper(parser)
    add_trust(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/reproduction"),
        metavar="FOLDER",
        help="folder for rows, checkpoints and results",
    )
    parser.add_argument(
        "--report", type=Path, metavar="FOLDER", help="folder for the report and its figures; default: OUT/report"
    )
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N",
        help="number of seeds of each learned row of the tables, which then show mean and spread",
    )  # fmt: skip
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER",
        help="folder that gets a small file of each finished row; rows whose files it has are not made again",
    )  # fmt: skip
    parser.add_argument("--rows", nargs="+", default=[], metavar="ROW", help="make only these rows and what they need")
    parser.add_argument(
        "--leave-out", nargs="+", default=[], metavar="ROW", help="rows not to make, unless another row needs them"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="[ROW:]KEY=VALUE", dest="overrides",
        help="change a value of every recipe, or of one row (which wins), as in vqgan:stages.0.steps=100; repeatable",
    )  # fmt: skip
    parser.add_argument("--picture-data", metavar="DATA", help="images of Fig. 2; default: some of the measured ones")
    parser.add_argument(
        "--pictures", type=int, default=3, metavar="N", help="number of images of Fig. 2, evenly spaced"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan with estimated hours, and stop")
    parser.add_argument(
        "--check", action="store_true",
        help="take a step and measure two images of every row at full size, print memory, batch and hours, and stop",
    )  # fmt: skip
    parser.add_argument("--no-fid", action="store_true", help="measure no FID; at the scale paper it is measured")
    add_any_inception(parser)
    add_run(parser, seed=False)
    add_judging(parser)
    parser.add_argument("--quiet", action="store_true", help="print no lines of progress")
    add_geometry(parser)
    add_perceptual(parser, default="auto")
    parser.add_argument(
        "--train-lpips", choices=("auto", *PERCEPTUAL_NAMES),
        help="perceptual distance to train with; default: the one that rows in OUT were trained with, else --lpips",
    )  # fmt: skip
    parser.set_defaults(run=run_reproduce)


def _add_paper(parser: argparse.ArgumentParser) -> None:
    """Add the options that make the paper's own tables and figures on its two data sets."""
    parser.add_argument(
        "--paper", action="store_true",
        help="make the paper's own set of tables and figures on Cityscapes and ADE20K, in one report",
    )  # fmt: skip
    for name in PAPERS_EXPERTS:
        parser.add_argument(f"--{name}", metavar="FOLDER", help=f"folder of {name}, with --paper")
        parser.add_argument(f"--{name}-expert", metavar="EXPERT", help=f"expert on {name}, with --paper")


def scale_of(options: argparse.Namespace) -> Scale:
    """Return the scale that the options ask for."""
    return load_scale(options.scale or ("paper" if options.paper else "small"))


def expert_of(options: argparse.Namespace) -> str:
    """Return the name of the expert on the data of `--data`.

    Raises:
        ConfigError: none is named, and the scale is the paper's.
    """
    scale = scale_of(options)
    if options.expert is None and scale.is_papers:
        raise ConfigError(
            f"the scale {scale.name} has no default expert: name it, such as {PAPERS_EXPERTS[CITYSCAPES]} for "
            "Cityscapes",
            argument="expert",
        )
    return options.expert or DEFAULT_EXPERT


def job_of(options: argparse.Namespace, data: str, expert: str) -> Job:
    """Return the job that the options ask for, on one data set with its expert.

    Raises:
        ExpertError: a card says that the expert has another task than segmentation.
    """
    check_segmentation(expert)
    names = ("accelerator", "devices", "precision", "workers", "cache_mib", *JUDGING)
    run = {name: getattr(options, name) for name in names}
    return Job(
        data=data,
        expert=expert,
        trust=options.trust,
        scale=scale_of(options),
        fid=not options.no_fid,
        any_inception=options.any_inception,
        test_data=options.test_data,
        changes=tuple(options.overrides),
        geometry=geometry_of(options),
        lpips=options.lpips,
        weights=options.weights,
        train_lpips=options.train_lpips,
        run=parse(RunConfig, run, source="options"),
    )


def experiments_of(options: argparse.Namespace, world: World) -> tuple[str, ...]:
    """Return the tables and figures that are asked for and that the data can make.

    Raises:
        ConfigError: Table II is asked for, and the data is not ADE20K.
    """
    ade20k = world.is_ade20k
    if "all" in options.experiments:
        return tuple(name for name in EXPERIMENTS if name != ("table1" if ade20k else "table2"))
    if "table2" in options.experiments and not ade20k:
        raise ConfigError(
            f"Table II is on ADE20K, got {world.train_images.name!r}: give --data ade20k:PATH, or make table1, which "
            "is the same comparison on any other data"
        )
    return tuple(name for name in EXPERIMENTS if name in options.experiments)


def parts_of(options: argparse.Namespace) -> list[Part]:
    """Return what is made: one part on the data that are named, or with --paper one on each of the paper's data sets.

    Raises:
        ConfigError: options that are missing or do not go together.
    """
    if options.paper:
        return _papers_parts(options)
    given = [f"--{name}" for name in PAPERS_EXPERTS if getattr(options, name) or getattr(options, f"{name}_expert")]
    if given:
        raise ConfigError(f"{given[0]} goes with --paper; without it, name the data with --data")
    if options.data is None:
        raise ConfigError("name the images with --data, or give --paper for the paper's set")
    world = _world(options, job_of(options, options.data, expert_of(options)), options.out)
    return [_part(options, world, experiments_of(options, world), options.out)]


def _papers_parts(options: argparse.Namespace) -> list[Part]:
    given = (("tables and figures", options.experiments != "all"), ("--data", options.data),
             ("--test-data", options.test_data), ("--expert", options.expert))  # fmt: skip
    for name, value in given:
        if value:
            raise ConfigError(f"--paper makes the paper's set on Cityscapes and ADE20K: leave out {name}")
    for name, proposed in PAPERS_EXPERTS.items():
        if getattr(options, name) is None or getattr(options, f"{name}_expert") is None:
            raise ConfigError(f"--paper needs --{name} FOLDER and --{name}-expert EXPERT, such as {proposed}")
    parts = []
    for name, experiments in PAPERS_EXPERIMENTS.items():
        folder = options.out / name
        job = job_of(options, f"{name}:{getattr(options, name)}", getattr(options, f"{name}_expert"))
        parts.append(_part(options, _world(options, job, folder, name), experiments, folder, name))
    return parts


def _keep(options: argparse.Namespace, name: str) -> Keep | None:
    return None if options.keep is None else Keep(options.keep / name)


def _world(options: argparse.Namespace, job: Job, folder: Path, name: str = "") -> World:
    keep = _keep(options, name)
    return World(job, trained_with(folder, () if keep is None else keep.settings()))


def _part(
    options: argparse.Namespace, world: World, experiments: tuple[str, ...], folder: Path, name: str = ""
) -> Part:
    rows = _planned(options, experiments, share=world.share_trainings)
    return Part(world, experiments, rows, folder, name, _keep(options, name))


def _planned(
    options: argparse.Namespace,
    experiments: tuple[str, ...],
    share: Callable[[Sequence[RowPlan]], Sequence[RowPlan]] = tuple,
) -> tuple[RowPlan, ...]:
    """Return the rows that are asked for; with --paper, --rows chooses among those of each data set's own set."""
    return rows_of(
        experiments, options.rows, options.seeds, left_out=options.leave_out, shown_only=options.paper, share=share
    )


def _left_out(options: argparse.Namespace, part: Part) -> list[str]:
    """Return a line for each row that the data of a part cannot make."""
    images = part.world.train_images
    lacks = "files *_gtFine_labelIds.png" if images.name == CITYSCAPES else "label maps"
    return [
        f"{row.row_id} is left out: it is trained on labels, and {images.name} has no {lacks} to train on"
        for row in _planned(options, part.experiments)
        if not part.world.can_make(row)
    ]


def _check_options(options: argparse.Namespace) -> None:
    """Refuse numbers that are too small, and changes of rows that there are not."""
    if options.pictures < 1:
        raise ConfigError(f"--pictures must be at least 1, got {options.pictures}")
    if options.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, got {options.seeds}")
    known = {row.row_id for row in all_rows(max(options.seeds, len(SWEEP_SEEDS)))}
    for change in options.overrides:
        row_id, _ = row_and_change(change)
        if row_id and row_id not in known:
            raise ConfigError(unknown_name("row", row_id, known), argument="overrides")


def _print_plan(options: argparse.Namespace, parts: list[Part]) -> int:
    """Print the outline of all parts with the sum of their hours; return 0."""
    hours = 0.0
    for part in parts:
        check_labels(part.world)
        hours += print_outline(part.world, part.rows, part.experiments)
        for line in _left_out(options, part):
            print(line)
    if len(parts) > 1:
        print(f"about {hours:.1f} hours for {' and '.join(part.name for part in parts)} together")
    print(NOT_CHECKED)
    return 0


def run_reproduce(options: argparse.Namespace) -> int:
    """Make the rows, then the report; return 0 if all rows are done, 1 if some failed, 3 if some are left."""
    _check_options(options)
    parts = parts_of(options)
    if options.dry_run:
        return _print_plan(options, parts)
    require("train", "the training of the rows")
    require("plot", "the report")
    for part in parts:
        for line in _left_out(options, part):
            print(f"gosvae: {line}", file=sys.stderr)
    if options.check:
        for part in parts:
            check_job(part.world, part.rows)
        return max([print_trials(part.world, part.rows) for part in parts])

    def say(line: str) -> None:
        if not options.quiet:
            print(line, flush=True)

    with ExitStack() as locks:
        if options.max_minutes != 0:  # with 0, only the report is written, also beside a process that makes rows
            for part in parts:
                check_job(part.world, part.rows, part.runner(say).todo)
            for part in parts:
                locks.enter_context(alone_in(part.folder))
        return report_status(_make(options, parts, say))


def _make(options: argparse.Namespace, parts: Sequence[Part], say: Callable[[str], None]) -> Summary:
    """Make the rows of all parts, then the report."""
    if "all" in options.experiments and not options.paper and not parts[0].world.is_ade20k:
        say("table2 is left out: it is the comparison of table1 on ADE20K; give --data ade20k:PATH to make it")
    shown = [Shown(part.runner(say), part.experiments, part.name) for part in parts]

    def report() -> None:
        path = write_joint_report(
            shown,
            options.report or options.out / "report",
            picture_data=options.picture_data,
            picture_count=options.pictures,
        )
        say(f"written: {path}")

    progress = Progress(parts, report)
    on_terminal = sys.stderr.isatty() and not options.quiet
    try:
        return run_parts(parts, progress, say, show_bars=on_terminal, max_minutes=options.max_minutes)
    finally:  # after Ctrl-C too: the report shows the rows that are done
        progress.end()


def report_status(summary: Summary) -> int:
    """Print how the run ended and return the exit status."""
    for row_id, reason in summary.failed.items():
        print(f"gosvae: row {row_id} failed: {reason}", file=sys.stderr)
    if summary.standing:
        print(
            "gosvae: measured in another way, and not trained again, since their checkpoints are not in the folder of "
            f"--out: {', '.join(summary.standing)}",
            file=sys.stderr,
        )
    done, left = len(summary.done), len(summary.left)
    are, remain = ("is" if count == 1 else "are" for count in (done, left))
    print(f"{rows_text(done)} {are} done, {len(summary.failed)} failed, {left} {remain} left")
    if summary.failed:
        return 1
    return 3 if summary.left else 0
