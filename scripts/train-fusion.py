#!/usr/bin/env python3
"""Train the small network that makes one picture of the two layers of a stream, by imitation.

    scripts/train-fusion.py make --data 'camvid:PATH@seen+idd-lite:PATH@seen' --images 400 --out runs/examples
    scripts/train-fusion.py train --examples runs/examples --minutes 60 --out runs/fusion

`make` writes one file for each image: the image, the picture of the task layer at a random level, and those of the
detail layer at random sizes and qualities. Every tenth image of `--data` is left out, so that settings can be chosen on
images that no training saw. `train` reads random crops of these files, and takes up files
that `make` adds meanwhile. In a part of the crops the network has no task layer. The loss is the divergence of an
expert's classes from those on the original, the squared error, its excess over that of the detail layer alone, and a
perceptual distance. It needs no labels.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gosvae.codecs.detail import decode_detail, encode_detail
from gosvae.codecs.fusion import FusionCard, save_fusion
from gosvae.codecs.registry import load_trained_codec
from gosvae.codecs.variable import VariableRateCodec
from gosvae.datasets.mixture import load_prepared
from gosvae.experts.base import Expert
from gosvae.experts.registry import load_expert
from gosvae.files import json_bytes, write_together
from gosvae.losses.divergence import imitation_loss
from gosvae.losses.perceptual import load_perceptual
from gosvae.nn.fusion import FusionConfig, FusionNetwork, conditions
from gosvae.provenance import hardware, revision, versions
from gosvae.seeding import seed_everything, torch_generator
from gosvae.training.judges import rarity

LEVELS = (16, 110)
"""Range of the levels of the task layer."""
FRAMES = ((1, 6, 40), (1, 24, 64), (2, 16, 60), (2, 40, 88))
"""Reduction and range of the qualities of each of the detail layers of an image."""
SPEEDS = (6, 9)
KEPT_OUT = 10
"""Every such image of the data is left out."""
CROP_HW, SHIFT = (128, 256), 16
"""Size of the crops, and largest shift of the window that an expert sees of them, in pixels."""
FIRST_FOLDER = 0.65
"""Share of the crops from the first folder of examples."""
NO_BASE = 0.3
"""Share of the crops without a task layer."""


def file_bytes(array: np.ndarray) -> bytes:
    """Return the contents of an `.npy` file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@torch.inference_mode()
def make(options: argparse.Namespace) -> int:
    """Write the files of `--images` images, from number `--first` on in a random order."""
    task = load_trained_codec(options.task)
    assert isinstance(task, VariableRateCodec)
    dataset = load_prepared(options.data, default_split="train")
    seen = [n for n in range(len(dataset)) if n % KEPT_OUT]
    order = torch.randperm(len(seen), generator=torch_generator(options.seed, "examples")).tolist()
    for number in range(options.first, min(options.first + options.images, len(order))):
        image = dataset[seen[order[number]]].image_uint8_HW3
        generator = torch_generator(options.seed, "settings", number)
        level, *draws = torch.rand(1 + 2 * len(FRAMES), generator=generator).tolist()
        base = task.decompress(task.compress_at(image, round(LEVELS[0] + level * (LEVELS[1] - LEVELS[0]))))
        pictures, described = [image, base], []
        for n, (reduction, low, high) in enumerate(FRAMES):
            speed = SPEEDS[draws[2 * n] < 0.3]
            quality = round(low + draws[2 * n + 1] * (high - low))
            payload = encode_detail(image, reduction, quality, speed=speed, tuning="machine")
            detail = decode_detail(payload, *image.shape[:2])
            pictures.append(detail.image_uint8_HW3)
            described.append([detail.payload_bytes, detail.quality, detail.reduction])
        files = {
            f"{number:05}.pictures.npy": file_bytes(np.stack(pictures)),
            f"{number:05}.json": json_bytes({"details": described}),
        }
        write_together({options.out / name: data for name, data in files.items()})
    return 0


@dataclass(frozen=True)
class Example:
    """Files of an image, read on demand: image, base and details uint8 (2 + n, H, W, 3)."""

    pictures: np.ndarray
    details: list[list[int]]


def add_examples(folder: Path, known: dict[Path, Example]) -> None:
    """Add the examples of a folder that are not known."""
    for path in sorted(folder.glob("*.json")):
        if path not in known:
            tree = json.loads(path.read_text(encoding="utf-8"))
            pictures = np.load(path.with_suffix(".pictures.npy"), mmap_mode="r")
            known[path] = Example(pictures, tree["details"])


@dataclass(frozen=True)
class Batch:
    """Random crops; see `FusionNetwork.forward`."""

    image_B3HW: Tensor
    base_B3HW: Tensor
    detail_B3HW: Tensor
    condition_BP: Tensor


def batch_of(folders: list[list[Example]], count: int, generator: torch.Generator) -> Batch:
    """Return random crops; half of them are mirrored, and `FIRST_FOLDER` of them come from the first folder."""
    columns: list[list[Tensor]] = [[], [], [], []]
    for _ in range(count):
        y, x, mirrored, chosen, without, place, image = torch.rand(7, generator=generator).tolist()
        rest = math.ceil((place - FIRST_FOLDER) / (1 - FIRST_FOLDER) * (len(folders) - 1))
        examples = folders[max(0, rest)]
        example = examples[int(image * len(examples))]
        height, width = example.pictures.shape[1:3]
        top, left = round(y * (height - CROP_HW[0])) // 4 * 4, round(x * (width - CROP_HW[1])) // 4 * 4
        window = (slice(top, top + CROP_HW[0]), slice(left, left + CROP_HW[1]))
        k = int(chosen * len(example.details))
        payload_bytes, quality, reduction = example.details[k]
        parts = [torch.from_numpy(example.pictures[i][window].copy()) for i in (0, 1, 2 + k)]
        crops = [part.permute(2, 0, 1).float() / 255 for part in parts]
        if without < NO_BASE:
            crops[1] = crops[2]
        if mirrored < 0.5:
            crops = [crop.flip(-1) for crop in crops]
        condition = conditions(8 * payload_bytes / (height * width), quality, reduction, with_base=without >= NO_BASE)
        for column, value in zip(columns, [*crops, torch.tensor(condition)], strict=True):
            column.append(value)
    return Batch(*(torch.stack(column) for column in columns))


def imitation(expert: Expert, batch: Batch, fused_B3HW: Tensor, generator: torch.Generator) -> Tensor:
    """Return the divergence of the expert's classes on the fused crops, each class with a weight by its rarity.

    The expert sees a window at a random place, so that no position of its grid is preferred.
    """
    down, right = (4 * int(4 * draw) for draw in torch.rand(2, generator=generator).tolist())
    height, width = CROP_HW[0] - SHIFT, CROP_HW[1] - SHIFT
    window = (..., slice(down, down + height), slice(right, right + width))
    inner = (..., slice(0, None, 2), slice(0, None, 2))
    with torch.no_grad():
        own_BmHW = expert(batch.image_B3HW[window])[inner]
    seen_BmHW = expert(fused_B3HW[window])[inner]
    return imitation_loss("jsd", own_BmHW, seen_BmHW, rarity(own_BmHW).sqrt())


def excess(batch: Batch, fused_B3HW: Tensor) -> Tensor:
    """Return the squared error over an allowed multiple of that of the detail layer, as a share of the latter.

    The multiple is 1.6 (2 dB) up to 0.25 bits per pixel, falls with the logarithm of the rate, and is 1.15 (0.6 dB)
    from 0.5 bits on.
    """
    own_B, made_B = (
        (picture - batch.image_B3HW).square().mean(dim=(1, 2, 3)) for picture in (batch.detail_B3HW, fused_B3HW)
    )
    log_rate_B = 4.0 * batch.condition_BP[:, 0] - 2.0
    allowed_B = 1.15 + 0.45 * (-1.0 - log_rate_B).clamp(0.0, 1.0)
    return F.relu(made_B / own_B.clamp_min(1e-5) - allowed_B).mean()


def save(options: argparse.Namespace, config: FusionConfig, state: dict[str, Tensor], facts: dict[str, object]) -> None:
    """Write a network with these weights."""
    network = FusionNetwork(config)
    network.load_state_dict(state)
    provenance = {
        "examples": facts["examples"], "steps": facts["steps"], "minutes": facts["minutes"],
        "experts": {name: load_expert(name).fingerprint() for name in options.expert}, "perceptual": options.lpips,
        "seed": options.seed, "revision": revision(), "versions": versions(), "hardware": hardware(),
    }  # fmt: skip
    save_fusion(options.out, FusionCard(name=options.name, model=config), network, provenance)


def train(options: argparse.Namespace) -> int:
    """Train until the minutes are over."""
    seed_everything(options.seed)
    experts = {name: load_expert(name) for name in options.expert}
    perceptual = load_perceptual(options.lpips, options.weights) if options.lpips else None
    config = FusionConfig()
    network = FusionNetwork(config)
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.learning_rate, weight_decay=1e-4)
    averages = {name: value.detach().clone() for name, value in network.state_dict().items()}
    known: list[dict[Path, Example]] = [{} for _ in options.examples]
    began_s, step, saved_s = time.monotonic(), 0, time.monotonic()
    recent: dict[str, float] = {}
    while True:
        minutes = (time.monotonic() - began_s) / 60
        done = minutes / options.minutes
        if step % 100 == 0:
            for folder, examples in zip(options.examples, known, strict=True):
                add_examples(folder, examples)
            counts, folders = [len(examples) for examples in known], [list(examples.values()) for examples in known]
        if done >= 1 or time.monotonic() - saved_s > 240:
            save(options, config, averages, {"examples": counts, "steps": step, "minutes": round(minutes, 1)})
            saved_s = time.monotonic()
        if done >= 1:
            return 0
        generator = torch_generator(options.seed, "step", step)
        name = options.expert[0 if step % 3 else (step // 3) % len(options.expert)]
        batch = batch_of(folders, options.batch, generator)
        fused = network(batch.base_B3HW, batch.detail_B3HW, batch.condition_BP)
        terms = {
            "jsd": options.jsd * imitation(experts[name], batch, fused, generator),
            "mse": options.mse * F.mse_loss(fused, batch.image_B3HW),
            "excess": options.excess * excess(batch, fused),
        }
        if perceptual is not None and step % 4 == 0:
            terms["lpips"] = 2.0 * perceptual(batch.image_B3HW[:1], fused[:1]).mean()
        loss = torch.stack(list(terms.values())).sum()
        rise, fall = min(1.0, (step + 1) / 50), 0.02 + 0.98 * math.cos(done * math.pi / 2) ** 2
        for group in optimiser.param_groups:
            group["lr"] = options.learning_rate * rise * fall
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        decay = min(0.99, (step + 1) / (step + 10))
        for key, value in network.state_dict().items():
            averages[key].lerp_(value, 1 - decay)
        for key, term in terms.items():
            value = float(term.detach())
            recent[key] = value if key not in recent else 0.95 * recent[key] + 0.05 * value
        if step % 25 == 0:
            shown = {key: round(value, 4) for key, value in recent.items()}
            print(json.dumps({"step": step, "minutes": round(minutes, 2), "examples": counts, **shown}), flush=True)
        step += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    making = commands.add_parser("make", help="write the files of images")
    making.add_argument("--data", required=True, help="images, as for gosvae train")
    making.add_argument("--task", default="gosvae-variable-camvid", help="codec of the task layer")
    making.add_argument("--images", type=int, default=400, help="number of images")
    making.add_argument("--first", type=int, default=0, help="number of the first image in the random order")
    making.set_defaults(run=make)
    training = commands.add_parser("train", help="train a network on the files")
    training.add_argument(
        "--examples", type=Path, nargs="+", required=True, help="folders that `make` wrote, the first most"
    )
    training.add_argument("--lpips", help="perceptual distance, such as lpips-squeeze")
    training.add_argument("--weights", type=Path, help="folder of the weights of the perceptual distance")
    training.add_argument("--minutes", type=float, default=60.0, help="end after this time")
    training.add_argument("--batch", type=int, default=2)
    training.add_argument("--jsd", type=float, default=16.0, help="weight of the divergence")
    training.add_argument("--mse", type=float, default=20.0, help="weight of the squared error")
    training.add_argument("--excess", type=float, default=1.0, help="weight of its excess")
    training.add_argument("--learning-rate", type=float, default=1e-3)
    training.add_argument("--name", default="fusion")
    training.set_defaults(run=train)
    training.add_argument("--expert", nargs="+", default=["expert-camvid"], help="experts to imitate, the first most")
    for each in (making, training):
        each.add_argument("--seed", type=int, default=0)
        each.add_argument("--out", type=Path, required=True, help="folder of the results")
    options = parser.parse_args()
    done: int = options.run(options)
    return done


if __name__ == "__main__":
    sys.exit(main())
