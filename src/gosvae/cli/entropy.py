"""`gosvae entropy` and `gosvae train-entropy`: what entropy models make of a codec's indices, and learning one."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gosvae.cli.options import DATA_HELP, Commands, add_geometry, geometry_of
from gosvae.codecs.registry import PAPER_CODEC, load_vq_codec
from gosvae.config import apply_overrides, parse, to_tree
from gosvae.datasets.mixture import load_prepared
from gosvae.datasets.subset import EvenlySpaced
from gosvae.evaluation.entropy import entropy_table, measure_entropy
from gosvae.files import json_bytes, write_atomically
from gosvae.training.entropy import ContextRecipe, default_recipe, train_context
from gosvae.training.machine.config import RunConfig

EXAMPLE = """example:
  gosvae entropy gosvae-camvid --data camvid:PATH --out entropy.json
"""
TRAIN_EXAMPLE = """example:
  gosvae train-entropy gosvae-camvid --data camvid:PATH --out runs/camvid-context
  gosvae entropy runs/camvid-context --data camvid:PATH

Stop it at any moment; the same command continues it.
"""


def add_commands(commands: Commands, formatter: Any) -> None:
    """Add the commands of this module."""
    measure = commands.add_parser(
        "entropy",
        help="measure the entropy models of a codec: bits, bytes, times",
        epilog=EXAMPLE,
        formatter_class=formatter,
    )
    measure.add_argument("codec", nargs="?", default=PAPER_CODEC, help="a VQ codec: a name or a checkpoint folder")
    measure.add_argument("--data", required=True, metavar="DATA", help=DATA_HELP)
    measure.add_argument("--limit", type=int, metavar="N", help="only N images, evenly spaced")
    measure.add_argument("--out", type=Path, metavar="FILE", help="write the numbers as JSON")
    add_geometry(measure)
    measure.set_defaults(run=run_entropy)

    train = commands.add_parser(
        "train-entropy",
        help="train a context model on a codec's indices: fewer bytes for the same picture",
        epilog=TRAIN_EXAMPLE,
        formatter_class=formatter,
    )
    train.add_argument("codec", nargs="?", default=PAPER_CODEC, help="a VQ codec: a name or a checkpoint folder")
    train.add_argument("--data", required=True, metavar="DATA", help=DATA_HELP)
    train.add_argument("--out", type=Path, metavar="FOLDER", help="of the run; default: runs/NAME-context")
    train.add_argument("--steps", type=int, default=4000, help="of the optimiser")
    train.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="change a value, such as model.width=128 or stages.0.learning_rate=1e-3; repeatable",
    )  # fmt: skip
    add_geometry(train)
    train.add_argument("--max-minutes", type=float, help="stop cleanly after so long; the same command continues")
    train.add_argument("--seed", type=int, default=0, help="of initial weights, order and augmentation")
    train.add_argument("--accelerator", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to train")
    train.add_argument("--devices", type=int, default=1, help="how many of them")
    train.add_argument("--workers", type=int, default=0, help="processes that decode images")
    train.add_argument("--cache-mib", type=int, default=1024, help="memory for decoded images")
    train.add_argument("--quiet", action="store_true", help="no progress bar")
    train.set_defaults(run=run_train_entropy)


def run_entropy(options: argparse.Namespace) -> int:
    """Measure the entropy models of a codec."""
    codec = load_vq_codec(options.codec)
    dataset = load_prepared(options.data, default_split="val", geometry=geometry_of(options))
    chosen = EvenlySpaced(dataset, len(dataset) if options.limit is None else max(0, options.limit))
    grids = (codec.indices(chosen[i].image_uint8_HW3) for i in range(len(chosen)))
    report = measure_entropy(codec.name, dataset.name, grids, codec.entropy_models)
    print(entropy_table(report), end="")
    if options.out is not None:
        write_atomically(options.out, json_bytes(asdict(report)))
    return 0


def run_train_entropy(options: argparse.Namespace) -> int:
    """Train a context model."""
    codec = load_vq_codec(options.codec)
    tree = apply_overrides(to_tree(default_recipe(options.steps)), options.overrides)
    recipe = parse(ContextRecipe, tree, source="--set")
    seen = load_prepared(
        options.data,
        default_split="train",
        geometry=geometry_of(options),
        centre_crop=False,
        cache_bytes=options.cache_mib * 2**20,
    )
    names = ("seed", "accelerator", "devices", "workers", "cache_mib")
    run = parse(RunConfig, {"precision": "32", **{name: getattr(options, name) for name in names}}, source="options")
    folder = options.out or Path("runs") / f"{codec.name}-context"
    outcome = train_context(
        recipe, codec, seen, run, folder, max_minutes=options.max_minutes, progress=not options.quiet
    )
    if os.environ.get("LOCAL_RANK", "0") == "0":  # one of several devices speaks for all
        print(
            f"finished: {folder}" if outcome.complete else f"stopped at step {outcome.step}, to be continued: {folder}"
        )
    return 0
