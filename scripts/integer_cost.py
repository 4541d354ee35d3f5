#!/usr/bin/env python3
"""What 8-bit integers cost a context model: the same training with rounding and without, bits an index on other images.

scripts/integer_cost.py --data camvid:PATH --steps 1500
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

import gosvae.nn.integer
from gosvae.codecs.registry import PAPER_CODEC, load_vq_codec
from gosvae.datasets.loader import TrainingBatches
from gosvae.datasets.mixture import load_prepared
from gosvae.datasets.subset import EvenlySpaced
from gosvae.entropy.context import ContextNetwork
from gosvae.provenance import hardware
from gosvae.seeding import seed_everything
from gosvae.training.entropy import BITS, ContextTask, context_config, default_recipe, initialise


@contextlib.contextmanager
def real_numbers() -> Iterator[None]:
    """Layers that train in integers round nothing: weights, activations and logits are float32."""
    rounding = gosvae.nn.integer.straight_through
    gosvae.nn.integer.straight_through = lambda soft, _: soft  # type: ignore[assignment]
    try:
        yield
    finally:
        gosvae.nn.integer.straight_through = rounding


def trained(options: argparse.Namespace) -> ContextTask:
    """A context model after the recipe's training, of so many steps."""
    seed_everything(0)
    codec = load_vq_codec(options.codec)
    config, digits = context_config(codec.model, {})
    network = ContextNetwork(config)
    initialise(network, codec.model, digits, codec.checkpoint.counts)
    task = ContextTask(network, codec.model, digits)
    stage = default_recipe(options.steps).stages[0]
    data = load_prepared(options.data, default_split="train", cache_bytes=2**30)
    batches = TrainingBatches(data, **stage.batches.model_dump(), seed=0, workers=0, rank=0, world_size=1)
    optimiser = torch.optim.AdamW(network.parameters(), lr=stage.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, stage.learning_rate, options.steps, pct_start=0.1)
    for step, batch in zip(range(options.steps), batches.stream(0), strict=False):
        task.begin_step(0, step)
        loss: Tensor = task(batch.x_B3HW, None, frozenset({BITS}))[BITS]
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}: {float(loss.detach()):.3f} bits", file=sys.stderr, flush=True)
    return task


@torch.no_grad()
def bits_per_index(task: ContextTask, grids_hw: list[Tensor]) -> float:
    """Mean over images; the positions that are drawn are the same for every model."""
    total = 0.0
    for n, indices_hw in enumerate(grids_hw):
        task.begin_step(1, n)
        total += float(task.bits(indices_hw[None])[BITS])
    return total / len(grids_hw)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("codec", nargs="?", default=PAPER_CODEC)
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--limit", type=int, help="judge by so many images, evenly spaced")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    codec = load_vq_codec(options.codec)
    judged = load_prepared(options.data, default_split="val")
    if options.limit:
        judged = EvenlySpaced(judged, options.limit)
    grids_hw = [torch.from_numpy(codec.indices(judged[n].image_uint8_HW3)) for n in range(len(judged))]
    whole = trained(options)
    with real_numbers():
        real = trained(options)
        result = {"real": bits_per_index(real, grids_hw)}
    result |= {"rounded_after_training": bits_per_index(real, grids_hw), "integers": bits_per_index(whole, grids_hw)}
    print(f"{options.codec}, {len(grids_hw)} images, {options.steps} steps; bits an index")
    print(f"  trained and used in float32:            {result['real']:.4f}")
    print(f"  trained in float32, used in integers:   {result['rounded_after_training']:.4f}")
    print(f"  trained and used in integers:           {result['integers']:.4f}")
    if options.json:
        tree = {"codec": options.codec, "steps": options.steps, "images": len(grids_hw), "bits_per_index": result}
        options.json.write_text(json.dumps({"hardware": hardware(), **tree}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
