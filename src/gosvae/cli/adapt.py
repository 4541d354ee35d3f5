"""`gosvae adapt`: tune a small part of a codec's decoder to another expert; streams stay those of the codec."""

from __future__ import annotations

import argparse
from pathlib import Path

from gosvae.cli.loading import add_loading, verify_of
from gosvae.cli.options import EXPERT_HELP, add_judging
from gosvae.cli.train import add_run_options, report, run_config, training_data
from gosvae.codecs.registry import load_trained_codec
from gosvae.config import apply_overrides, parse, to_tree
from gosvae.errors import ConfigError
from gosvae.heap import keep_freed_memory
from gosvae.recipes.run import load_experts
from gosvae.tasks.group import ExpertGroup, balance
from gosvae.training.adapters import adapt_codec, adapter_stage
from gosvae.training.machine.config import StageConfig

EXAMPLE = """example:
  gosvae adapt gosvae-variable-camvid --expert detector.onnx --data folder:my-images --out runs/adapted
  gosvae evaluate runs/adapted:1KiB --expert detector.onnx --data folder:my-images
"""


def add_adapt(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae adapt`."""
    parser.epilog = EXAMPLE
    parser.add_argument("codec", help="a VQ or variable-rate codec: a name or a checkpoint folder")
    parser.add_argument("--expert", action="append", metavar="EXPERT", help=f"{EXPERT_HELP}; repeatable")
    parser.add_argument("--steps", type=int, default=1000, metavar="N", help="number of optimiser steps")
    parser.add_argument("--rank", type=int, default=4, metavar="R", help="rank of the changes of kernels, 0 to 64")
    add_run_options(parser)
    add_judging(parser)
    add_loading(parser)
    parser.set_defaults(run=run_adapt)


def run_adapt(options: argparse.Namespace) -> int:
    """Train an adapter."""
    keep_freed_memory()
    if not options.expert:
        raise ConfigError("an adapter imitates an expert: name one", argument="expert")
    if not 0 <= options.rank <= 64:
        raise ConfigError(f"a rank of {options.rank}: expected 0 to 64")
    codec = load_trained_codec(options.codec, verify=verify_of(options))
    tree = apply_overrides(to_tree(adapter_stage(options.steps)), options.overrides)
    stage = parse(StageConfig, tree, source="--set")
    folder = options.out or Path("runs") / f"adapter-of-{codec.name}"
    expert, seen = load_experts(options.expert, trust=options.trust), training_data(options, centre_crop=False)
    if isinstance(expert, ExpertGroup):
        balance(expert, training_data(options, centre_crop=True))
    base = Path(options.codec).resolve() if Path(options.codec).is_dir() else options.codec
    outcome = adapt_codec(
        codec,
        str(base),
        expert,
        seen,
        stage,
        run_config(options),
        folder,
        rank=options.rank,
        max_minutes=options.max_minutes,
        progress=not options.quiet,
    )
    file = folder / "adapter.safetensors"
    status = report(outcome, folder)
    if file.is_file():
        print(
            f"adapter: {file.stat().st_size / 1024:.0f} KiB beside {options.codec}; its streams are those of the codec"
        )
    return status
