"""`gosvae train`, `gosvae train-expert`, `gosvae adapt-expert` and `gosvae export`: make codecs and experts."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from gosvae.cli.loading import add_no_verify, add_trust, verify_of
from gosvae.cli.options import (
    DATA_HELP,
    EXPERT_HELP,
    JUDGING,
    add_geometry,
    add_judging,
    add_perceptual,
    add_run,
    geometry_of,
)
from gosvae.codecs.checkpoint import load_codec_checkpoint, save_codec
from gosvae.codecs.registry import checkpoint_folder, load_trained_codec
from gosvae.config import apply_overrides, parse, to_tree
from gosvae.datasets.base import Dataset
from gosvae.datasets.mixture import load_prepared
from gosvae.errors import ConfigError
from gosvae.experts.registry import load_expert
from gosvae.heap import keep_freed_memory
from gosvae.recipes import load_recipe
from gosvae.recipes.run import train
from gosvae.training.adaptation import adapt_expert, adaptation_stage
from gosvae.training.experts import ExpertRecipe, train_expert
from gosvae.training.machine.config import RunConfig, StageConfig
from gosvae.training.machine.loop import Outcome

TRAIN_EXAMPLE = """example:
  gosvae train gosvae --data camvid:PATH --expert embedded --out runs/mine
  gosvae train gosvae --data folder:my-images --expert hf:shi-labs/oneformer_cityscapes_swin_large
  gosvae train gosvae --data folder:my-images --expert map=embedded --expert boxes=detector.onnx:0.5

Stop it at any moment; the same command continues it.
"""


def add_train(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae train`."""
    parser.epilog = TRAIN_EXAMPLE
    parser.add_argument("recipe", help="name of a recipe (see gosvae list) or a YAML file")
    add_run_options(parser)
    parser.add_argument(
        "--expert",
        action="append",
        metavar="EXPERT",
        help=f"{EXPERT_HELP}; repeatable, with names and weights: NAME=EXPERT:WEIGHT",
    )
    add_trust(parser)
    parser.add_argument("--init", metavar="CHECKPOINT", help="start from the weights of this codec: a name or a folder")
    add_perceptual(parser, default="auto")
    add_judging(parser)
    parser.set_defaults(run=run_train)


def add_train_expert(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae train-expert`."""
    parser.add_argument(
        "recipe", nargs="?", default="expert-compact", help="expert-compact, expert-unet, expert-dense or a YAML file"
    )
    add_run_options(parser)
    parser.set_defaults(run=run_train_expert)


def add_adapt_expert(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae adapt-expert`."""
    parser.add_argument("codec", help="a VQ or variable-rate codec: a name or a checkpoint folder")
    parser.add_argument("--expert", default="embedded", metavar="EXPERT", help="expert that gosvae train-expert made")
    parser.add_argument("--steps", type=int, default=2000, metavar="N", help="number of optimiser steps")
    add_run_options(parser)
    parser.set_defaults(run=run_adapt_expert)


def add_export(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae export`."""
    parser.add_argument("checkpoint", type=Path, help="folder of a finished codec, such as runs/mine/stages/pixels")
    parser.add_argument("out", type=Path, help="folder to make")
    add_no_verify(parser)
    parser.add_argument("--name", help="new name of the codec; it does not change the fingerprint")
    parser.add_argument(
        "--eight-bit-decoder",
        action="store_true",
        help="store the decoder's kernels in 8 bits: half the size, the same streams",
    )
    parser.set_defaults(run=run_export)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add `--data`, `--out`, `--set` and the options of a run."""
    parser.add_argument("--data", required=True, metavar="DATA", help=DATA_HELP)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder of the run; default: runs/NAME")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="change a value of the recipe, such as model.autoencoder.stride=8 or stages.0.steps=100; repeatable",
    )  # fmt: skip
    add_geometry(parser)
    add_run(parser)
    parser.add_argument(
        "--changed-data", action="store_true", help="continue a run although its images have changed since its start"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")


def run_config(options: argparse.Namespace) -> RunConfig:
    """Return the settings of the run that the options ask for."""
    tree = {
        name: getattr(options, name) for name in ("seed", "accelerator", "devices", "precision", "workers", "cache_mib")
    }
    tree |= {name: getattr(options, name) for name in JUDGING if name in options}
    tree["changed_data"] = options.changed_data
    return parse(RunConfig, tree, source="options")


def training_data(options: argparse.Namespace, *, centre_crop: bool) -> Dataset:
    """Return the images of `--data`, whole or as they are used."""
    return load_prepared(
        options.data,
        default_split="train",
        geometry=geometry_of(options),
        centre_crop=centre_crop,
        cache_bytes=0 if centre_crop else options.cache_mib * 2**20,
    )


def report(outcome: Outcome, folder: Path) -> int:
    """Print how a training ended; return the exit status."""
    if os.environ.get("LOCAL_RANK", "0") != "0":  # only the first of several devices prints
        return 0
    if outcome.complete:
        print(f"finished: {folder}")
    else:
        print(f"stopped at step {outcome.step}; the same command continues: {folder}")
        if (folder / "weights.safetensors").is_file():
            print(f"the unfinished result can be used: {folder}")
    return 0


def run_train(options: argparse.Namespace) -> int:
    """Train a codec."""
    keep_freed_memory()
    folder = options.out or Path("runs") / load_recipe(options.recipe, options.overrides).name
    outcome = train(
        options.recipe,
        options.data,
        expert=options.expert,
        trust=options.trust,
        out=folder,
        overrides=options.overrides,
        geometry=geometry_of(options),
        lpips=options.lpips,
        weights=options.weights,
        init=None if options.init is None else checkpoint_folder(options.init),
        run=run_config(options),
        max_minutes=options.max_minutes,
        progress=not options.quiet,
        tell=None if options.quiet or os.environ.get("LOCAL_RANK", "0") != "0" else partial(print, flush=True),
    )
    return report(outcome, folder)


def run_train_expert(options: argparse.Namespace) -> int:
    """Train an expert."""
    keep_freed_memory()
    recipe = load_recipe(options.recipe, options.overrides)
    if not isinstance(recipe, ExpertRecipe):
        raise ConfigError(f"recipe {options.recipe!r} makes a codec: use gosvae train")
    folder = options.out or Path("runs") / recipe.name
    used = training_data(options, centre_crop=True)[0].image_uint8_HW3
    outcome = train_expert(
        recipe,
        training_data(options, centre_crop=False),
        (used.shape[0], used.shape[1]),
        run_config(options),
        folder,
        max_minutes=options.max_minutes,
        progress=not options.quiet,
    )
    return report(outcome, folder)


def run_adapt_expert(options: argparse.Namespace) -> int:
    """Adapt an expert to a codec."""
    keep_freed_memory()
    codec = load_trained_codec(options.codec)
    tree = apply_overrides(to_tree(adaptation_stage(options.steps)), options.overrides)
    stage = parse(StageConfig, tree, source="--set")
    folder = options.out or Path("runs") / f"expert-at-{codec.name}"
    outcome = adapt_expert(
        codec,
        load_expert(options.expert),
        training_data(options, centre_crop=False),
        stage,
        run_config(options),
        folder,
        max_minutes=options.max_minutes,
        progress=not options.quiet,
    )
    return report(outcome, folder)


def run_export(options: argparse.Namespace) -> int:
    """Copy a finished codec."""
    checkpoint = load_codec_checkpoint(options.checkpoint, verify=verify_of(options))
    if options.name:
        checkpoint = replace(checkpoint, card=checkpoint.card.model_copy(update={"name": options.name}))
    save_codec(options.out, checkpoint, eight_bit_decoder=options.eight_bit_decoder)
    size = (options.out / "weights.safetensors").stat().st_size
    mark = load_codec_checkpoint(options.out).fingerprint()[:8].hex()
    print(f"{checkpoint.card.name}: {options.out} ({size / 2**20:.2f} MiB, fingerprint {mark})")
    return 0
