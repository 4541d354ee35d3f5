"""`gosvae train-temporal`: train the temporal model of a variable-rate codec on films and on moving stills."""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

from gosvae.cli.options import DATA_HELP, add_run
from gosvae.codecs.registry import DEFAULT_CODEC, checkpoint_folder
from gosvae.codecs.variable import VariableRateCodec
from gosvae.config import apply_overrides, parse, to_tree
from gosvae.datasets.mixture import load_prepared
from gosvae.errors import ConfigError
from gosvae.heap import keep_freed_memory
from gosvae.sender.sources import open_source
from gosvae.tensors import ImageArray
from gosvae.training.machine.config import RunConfig
from gosvae.training.temporal import TemporalRecipe, default_recipe, train_temporal
from gosvae.training.temporal_data import LatentClips, film_clips, still_clips

EXAMPLE = """example:
  gosvae train-temporal gosvae-variable-camvid --films PATH --stills camvid:PATH streets:500 --out runs/temporal

Stop it at any moment; the same command continues it. The model is in two files, temporal.json and
temporal.safetensors, which belong into the folder of the codec.
"""


def add_train_temporal(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae train-temporal`."""
    parser.epilog = EXAMPLE
    parser.add_argument(
        "codec", nargs="?", default=DEFAULT_CODEC, help="a variable-rate codec: a name or a checkpoint folder"
    )
    parser.add_argument(
        "--films", nargs="+", default=[], metavar="FILM",
        help="videos, or folders with the frames of a film in the order of their names",
    )  # fmt: skip
    parser.add_argument(
        "--stills", nargs="+", default=[], metavar="DATA",
        help=f"data sets of pictures that are moved; {DATA_HELP}",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder of the run; default: runs/NAME-temporal")
    parser.add_argument("--steps", type=int, default=3000, metavar="N", help="number of optimiser steps")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="change a value, such as taps=9 or stages.0.learning_rate=1e-3; repeatable",
    )  # fmt: skip
    add_run(parser, precision=False)
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    parser.set_defaults(run=run_train_temporal)


def run_train_temporal(options: argparse.Namespace) -> int:
    """Train a temporal model."""
    keep_freed_memory()
    if not options.films and not options.stills:
        raise ConfigError("a temporal model is trained on sequences: name films, stills, or both", argument="films")
    codec = VariableRateCodec.load(checkpoint_folder(options.codec))
    tree = apply_overrides(to_tree(default_recipe(options.steps)), options.overrides)
    recipe = parse(TemporalRecipe, tree, source="--set")
    names = ("seed", "accelerator", "devices", "workers", "cache_mib")
    run = parse(RunConfig, {"precision": "32", **{name: getattr(options, name) for name in names}}, source="options")
    folder = options.out or Path("runs") / f"{codec.name}-temporal"
    origin = {
        "codec": codec.checkpoint.fingerprint().hex(),
        "films": [Path(name).name for name in options.films],
        "stills": [name.partition(":")[0] for name in options.stills],
        "most_stills": recipe.most_stills,
        "size": list(recipe.size),
        "seed": run.seed,
    }
    clips = LatentClips.made(folder / "latents.npy", codec, _clips(options, recipe, run.seed), origin)
    outcome = train_temporal(
        recipe, codec, clips, origin, run, folder, max_minutes=options.max_minutes, progress=not options.quiet
    )
    if os.environ.get("LOCAL_RANK", "0") == "0":  # only the first of several devices prints
        print(
            f"finished: {folder}" if outcome.complete else f"stopped at step {outcome.step}, to be continued: {folder}"
        )
    return 0


def _clips(options: argparse.Namespace, recipe: TemporalRecipe, seed: int) -> Iterator[list[ImageArray]]:
    """Yield the sequences of films and stills."""
    for film in options.films:
        yield from film_clips(open_source([film], BytesIO()), recipe.size)
    stills: Sequence[str] = options.stills
    sets = (load_prepared(name, default_split="train", centre_crop=False) for name in stills)
    yield from itertools.chain.from_iterable(still_clips(each, recipe.most_stills, recipe.size, seed) for each in sets)
