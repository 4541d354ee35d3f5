#!/usr/bin/env python3
"""Trains the small network that makes one picture of the two layers of a stream, by imitation.

    scripts/train-fusion.py --data 'camvid:PATH@seen+idd-lite:PATH@seen' --expert expert-camvid --out runs/fusion

The task layer is frozen. Its pictures, at random levels, and those of the detail layer, at random sizes and qualities,
are made once for `--images` images and kept in memory; every step takes random crops of them. The network starts as the
choice of the detail layer. The loss is that of `gosvae.training.judges`: squared error, a perceptual distance, and the
divergence of every expert's classes from those on the original. Without labels.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gosvae.codecs.detail import decode_detail, encode_detail
from gosvae.codecs.fusion import FusionCard, conditions_of, save_fusion
from gosvae.codecs.registry import load_trained_codec
from gosvae.codecs.variable import VariableRateCodec
from gosvae.datasets.base import Dataset
from gosvae.datasets.mixture import load_prepared
from gosvae.experts.registry import load_expert
from gosvae.losses.perceptual import load_perceptual
from gosvae.nn.fusion import FusionConfig, FusionNetwork
from gosvae.provenance import hardware, revision, versions
from gosvae.seeding import seed_everything, torch_generator
from gosvae.tensors import ImageArray
from gosvae.training.judges import Judges
from gosvae.training.views import ViewConfig

LEVELS = (0, 160)
"""Range of the levels of the task layer."""
QUALITIES = {1: (3, 75), 2: (10, 80), 3: (20, 85)}
"""Range of the qualities of the detail layer at each reduction."""
SPEED = 8
VIEWS = ViewConfig(shift=4.0, scale=0.2, blur=0.8)


@dataclass(frozen=True)
class Example:
    """An image with the pictures of its two layers, uint8 (H, W, 3), and the conditions of the second."""

    image: ImageArray
    base: ImageArray
    detail: ImageArray
    conditions: list[float]


def make_examples(dataset: Dataset, task: VariableRateCodec, count: int, seed: int) -> list[Example]:
    """Return examples of random images."""
    generator = torch_generator(seed, "examples")
    order = torch.randperm(len(dataset), generator=generator).tolist()
    examples = []
    for number in range(count):
        image = dataset[order[number % len(order)]].image_uint8_HW3
        level, chosen, place = torch.rand(3, generator=generator).tolist()
        setting = round(LEVELS[0] + level * (LEVELS[1] - LEVELS[0]))
        reduction = 1 if chosen < 0.6 else 2 if chosen < 0.85 else 3
        low, high = QUALITIES[reduction]
        payload = encode_detail(image, reduction, round(low + place * (high - low)), speed=SPEED)
        detail = decode_detail(payload, *image.shape[:2])
        base = task.decompress(task.compress_at(image, setting))
        examples.append(Example(image, base, detail.image_uint8_HW3, conditions_of(detail)))
    return examples


def batch_of(examples: list[Example], count: int, crop_hw: tuple[int, int], generator: torch.Generator) -> list[Tensor]:
    """Return images, bases, details (B, 3, H, W) and conditions (B, P) of random crops; half of them are mirrored."""
    rows: list[list[Tensor]] = []
    for n in torch.randint(len(examples), (count,), generator=generator).tolist():
        example = examples[n]
        height, width = example.image.shape[:2]
        y, x, mirrored = torch.rand(3, generator=generator).tolist()
        top, left = round(y * max(0, height - crop_hw[0])), round(x * max(0, width - crop_hw[1]))
        window = (slice(top, top + crop_hw[0]), slice(left, left + crop_hw[1]))
        crops = [torch.from_numpy(part[window].copy()) for part in (example.image, example.base, example.detail)]
        crops = [(crop.flip(1) if mirrored < 0.5 else crop).permute(2, 0, 1).float() / 255 for crop in crops]
        rows.append([*crops, torch.tensor(example.conditions)])
    return [torch.stack(column) for column in zip(*rows, strict=True)]


def train(network: FusionNetwork, judges: Judges, examples: list[Example], options: argparse.Namespace) -> int:
    """Train until the steps or minutes are over; return the number of steps."""
    weights = {"mse": options.mse, "jsd": 12.0, "lpips": 2.0 if options.lpips else 0.0}
    wanted = frozenset(name for name, weight in weights.items() if weight)
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.learning_rate, weight_decay=1e-4)
    averages = {name: value.detach().clone() for name, value in network.state_dict().items()}
    began_s, done = time.monotonic(), 0.0
    for step in range(options.steps):
        done = max(step / options.steps, (time.monotonic() - began_s) / (60 * options.minutes))
        if done >= 1:
            break
        generator = torch_generator(options.seed, "step", step)
        image, base, detail, conditions = batch_of(examples, options.batch, (128, 256), generator)
        fused = network(base, detail, conditions)
        terms = judges(image, fused, wanted, generator)
        loss = sum(weights[name] * terms[name] for name in wanted)
        assert isinstance(loss, Tensor)
        for group in optimiser.param_groups:
            group["lr"] = (
                options.learning_rate * min(1.0, (step + 1) / 50) * (0.02 + 0.98 * math.cos(done * math.pi / 2) ** 2)
            )
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        decay = min(0.99, (step + 1) / (step + 10))
        for name, value in network.state_dict().items():
            averages[name].lerp_(value, 1 - decay)
        if step % 50 == 0:
            shown = {name: round(float(terms[name].detach()), 5) for name in sorted(wanted)}
            print(
                json.dumps({"step": step, "minutes": round((time.monotonic() - began_s) / 60, 2), **shown}), flush=True
            )
    else:
        step = options.steps
    network.load_state_dict(averages)
    return step


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="images, as for gosvae train")
    parser.add_argument("--task", default="gosvae-variable-camvid", help="codec of the task layer")
    parser.add_argument("--expert", nargs="+", default=["embedded"], help="experts to imitate")
    parser.add_argument("--lpips", help="perceptual distance beside them, such as lpips-squeeze")
    parser.add_argument("--images", type=int, default=400, help="number of examples that are made")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=1e9, help="end after this time")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--mse", type=float, default=20.0, help="weight of the squared error")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="fusion")
    parser.add_argument("--out", type=Path, required=True, help="folder of the network")
    options = parser.parse_args()
    seed_everything(options.seed)
    task = load_trained_codec(options.task)
    assert isinstance(task, VariableRateCodec)
    dataset = load_prepared(options.data, default_split="train")
    examples = make_examples(dataset, task, options.images, options.seed)
    print(f"{len(examples)} examples of {dataset.name}", file=sys.stderr, flush=True)
    perceptual = load_perceptual(options.lpips) if options.lpips else None
    first, *more = (load_expert(name) for name in options.expert)
    judges = Judges(first, perceptual, more_experts=more, perceptual_images=2, views=VIEWS)
    config = FusionConfig(channels=options.channels, blocks=options.blocks)
    network = FusionNetwork(config)
    steps = train(network, judges, examples, options)
    provenance = {
        "dataset": dataset.name, "images": options.images, "steps": steps, "task": task.name,
        "experts": {name: load_expert(name).fingerprint() for name in options.expert}, "perceptual": options.lpips,
        "revision": revision(), "versions": versions(), "hardware": hardware(),
    }  # fmt: skip
    save_fusion(options.out, FusionCard(name=options.name, model=config), network, provenance)
    return 0


if __name__ == "__main__":
    sys.exit(main())
