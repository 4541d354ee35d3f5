"""`gosvae entropy` and `gosvae train-entropy`: compare the entropy models of a codec, and train one."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path

from gosvae.cli.options import DATA_HELP, add_geometry, add_run, geometry_of
from gosvae.codecs.registry import PAPER_CODEC, load_vq_codec
from gosvae.config import apply_overrides, parse, to_tree
from gosvae.datasets.mixture import load_prepared
from gosvae.datasets.subset import EvenlySpaced
from gosvae.evaluation.entropy import entropy_table, measure_entropy
from gosvae.files import json_bytes, write_atomically
from gosvae.heap import keep_freed_memory
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


def add_entropy(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae entropy`."""
    parser.epilog = EXAMPLE
    parser.add_argument("codec", nargs="?", default=PAPER_CODEC, help="a VQ codec: a name or a checkpoint folder")
    parser.add_argument("--data", required=True, metavar="DATA", help=DATA_HELP)
    parser.add_argument("--limit", type=int, metavar="N", help="measure N images only, evenly spaced")
    parser.add_argument("--out", type=Path, metavar="FILE", help="file for the numbers, as JSON")
    add_geometry(parser)
    parser.set_defaults(run=run_entropy)


def add_train_entropy(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae train-entropy`."""
    parser.epilog = TRAIN_EXAMPLE
    parser.add_argument("codec", nargs="?", default=PAPER_CODEC, help="a VQ codec: a name or a checkpoint folder")
    parser.add_argument("--data", required=True, metavar="DATA", help=DATA_HELP)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder of the run; default: runs/NAME-context")
    parser.add_argument("--steps", type=int, default=4000, metavar="N", help="number of optimiser steps")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="change a value, such as model.width=128 or stages.0.learning_rate=1e-3; repeatable",
    )  # fmt: skip
    add_geometry(parser)
    add_run(parser, precision=False)
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    parser.set_defaults(run=run_train_entropy)


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
    keep_freed_memory()
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
    if os.environ.get("LOCAL_RANK", "0") == "0":  # only the first of several devices prints
        print(
            f"finished: {folder}" if outcome.complete else f"stopped at step {outcome.step}, to be continued: {folder}"
        )
    return 0
