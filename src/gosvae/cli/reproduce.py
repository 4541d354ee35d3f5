"""`gosvae reproduce`: make the paper's tables and figures, one or all."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gosvae.cli.loading import add_trust
from gosvae.cli.options import (
    DATA_HELP,
    EXPERT_HELP,
    add_any_inception,
    add_geometry,
    add_perceptual,
    add_run,
    geometry_of,
)
from gosvae.config import parse
from gosvae.errors import ConfigError
from gosvae.extras import require
from gosvae.losses.perceptual import PERCEPTUAL_NAMES
from gosvae.reproduce.checks import check_job
from gosvae.reproduce.job import Job, World
from gosvae.reproduce.outline import print_outline
from gosvae.reproduce.plan import EXPERIMENTS, rows_of
from gosvae.reproduce.records import trained_with
from gosvae.reproduce.report import write_report
from gosvae.reproduce.runner import Runner, Summary
from gosvae.reproduce.scales import SCALES, load_scale
from gosvae.reproduce.trial import print_trials
from gosvae.training.machine.config import RunConfig

DEFAULT_EXPERT = "embedded"
"""Expert of scales below the paper's."""

EXAMPLE = """examples:
  gosvae reproduce all --scale small --data camvid:PATH --expert embedded --out runs/reproduction
  gosvae reproduce table1 --scale paper --data cityscapes:PATH --expert hf:shi-labs/oneformer_cityscapes_swin_large
  gosvae reproduce fig4 --scale gpu --data camvid:PATH --dry-run

Stop it at any moment; the same command continues, without repeating finished rows. --max-minutes 0 only writes the
report of the rows that are finished.
"""


def add_reproduce(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae reproduce`."""
    parser.epilog = EXAMPLE
    parser.add_argument(
        "experiments", nargs="+", choices=(*EXPERIMENTS, "all"), metavar="EXPERIMENT",
        help=f"tables and figures of the paper: {', '.join(EXPERIMENTS)}, or all",
    )  # fmt: skip
    parser.add_argument(
        "--scale", choices=list(SCALES), default="small", help="size of the networks and length of the training"
    )
    parser.add_argument("--data", required=True, metavar="DATA", help=f"{DATA_HELP}; without a split")
    parser.add_argument("--test-data", metavar="DATA", help="images to measure on; default: the val split of --data")
    parser.add_argument(
        "--expert", metavar="EXPERT",
        help=f"{EXPERT_HELP}; default: {DEFAULT_EXPERT}, but at the scale paper it must be named",
    )  # fmt: skip
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
        help="number of seeds of each learned row of the tables, which then show mean and spread; default 1",
    )  # fmt: skip
    parser.add_argument("--rows", nargs="+", default=[], metavar="ROW", help="make only these rows and what they need")
    parser.add_argument(
        "--set", action="append", default=[], metavar="[ROW:]KEY=VALUE", dest="overrides",
        help="change a value of every recipe, or of one row's, such as vqgan:stages.0.steps=100; repeatable",
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
    parser.add_argument("--quiet", action="store_true", help="print no lines of progress")
    add_geometry(parser)
    add_perceptual(parser, default="auto")
    parser.add_argument(
        "--train-lpips", choices=("auto", *PERCEPTUAL_NAMES),
        help="perceptual distance to train with; default: the one that rows in OUT were trained with, else --lpips",
    )  # fmt: skip
    parser.set_defaults(run=run_reproduce)


def job_of(options: argparse.Namespace) -> Job:
    """Return the job that the options ask for."""
    run = {name: getattr(options, name) for name in ("accelerator", "devices", "precision", "workers", "cache_mib")}
    scale = load_scale(options.scale)
    if options.expert is None and scale.is_papers:
        raise ConfigError(
            f"the scale {scale.name} has no default expert: name it, such as "
            "hf:shi-labs/oneformer_cityscapes_swin_large for Cityscapes",
            argument="expert",
        )
    return Job(
        data=options.data,
        expert=options.expert or DEFAULT_EXPERT,
        trust=options.trust,
        scale=scale,
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


def run_reproduce(options: argparse.Namespace) -> int:
    """Make the rows, then the report; return 0 if all rows are done, 1 if some failed, 3 if some are left."""
    if options.pictures < 1:
        raise ConfigError(f"--pictures must be at least 1, got {options.pictures}")
    if options.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, got {options.seeds}")
    world = World(job_of(options), trained_with(options.out))
    experiments = experiments_of(options, world)
    planned = rows_of(experiments, options.rows, options.seeds)
    rows = world.share_trainings([row for row in planned if world.can_make(row)])
    if options.dry_run:
        print_outline(world, rows, experiments)
        return 0
    require("train", "the training of the rows")
    require("plot", "the report")
    if options.check:
        return print_trials(world, rows)
    if options.max_minutes != 0:  # with 0, only the report is written
        check_job(world, rows)
    on_terminal = sys.stderr.isatty() and not options.quiet

    def say(line: str) -> None:
        if not options.quiet:
            print(line, flush=True)

    for row in planned:
        if not world.can_make(row):
            say(f"{row.row_id} is left out: it is trained on labels, and {world.train_images.name} has none")
    if "all" in options.experiments and not world.is_ade20k:
        say("table2 is left out: it is the comparison of table1 on ADE20K; give --data ade20k:PATH to make it")
    runner = Runner(world, rows, options.out, say=say, show_bars=on_terminal)

    def report() -> None:
        path = write_report(
            runner,
            experiments,
            options.report or options.out / "report",
            picture_data=options.picture_data,
            picture_count=options.pictures,
        )
        say(f"written: {path}")

    complete: set[str] = set()
    rows_in = {name: [row.row_id for row in rows if name in row.experiments] for name in experiments}

    def on_row(so_far: Summary) -> None:
        """Write the report when a further table or figure is complete; the end of the run writes the last one."""
        over = {*so_far.done, *so_far.failed}
        ready = {name for name, ids in rows_in.items() if ids and over.issuperset(ids)}
        if ready > complete and len(over) < len(rows):
            report()
        complete.update(ready)

    summary = Summary()
    try:
        summary = runner.run(max_minutes=options.max_minutes, on_row=on_row)
    finally:  # after Ctrl-C too: the report shows the rows that are done
        report()
    return report_status(summary)


def report_status(summary: Summary) -> int:
    """Print how the run ended and return the exit status."""
    for row_id, reason in summary.failed.items():
        print(f"gosvae: row {row_id} failed: {reason}", file=sys.stderr)
    print(f"{len(summary.done)} rows are done, {len(summary.failed)} failed, {len(summary.left)} are left")
    if summary.failed:
        return 1
    return 3 if summary.left else 0
