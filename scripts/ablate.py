#!/usr/bin/env python3
"""Each part of the variable-rate recipe on and off: a finished codec trained on alike, compared at equal bytes.

    scripts/ablate.py train --data camvid:PATH --out runs/ablation            # all variants, one after the other
    scripts/ablate.py train --data camvid:PATH --out runs/ablation --only no-features
    scripts/ablate.py evaluate --data camvid:PATH --out runs/ablation --to docs/camvid/ablation

A variant that is finished is not trained again. `evaluate` gives every codec the same byte budget for every image.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from gosvae.checkpoint import load_codec_checkpoint
from gosvae.codecs.registry import checkpoint_folder, load_trained_codec
from gosvae.datasets.mixture import load_prepared
from gosvae.datasets.subset import EvenlySpaced
from gosvae.evaluation.protocol import CodecEntry, evaluate
from gosvae.evaluation.results import save_evaluation
from gosvae.experts.registry import load_expert
from gosvae.files import write_atomically
from gosvae.losses.perceptual import load_perceptual

BASE = [
    "stages.0.ramp_steps=1", "stages.0.warmup_steps=20", "stages.0.learning_rate=4e-4", "stages.0.final_rate=0.02",
    "stages.0.ema_decay=0.98", "stages.0.weights.mse=40", "stages.0.weights.lpips=2", "stages.0.weights.jsd=6",
    "stages.0.weights.features=1.5", "stages.0.weights.rate=0.6", "rate.lowest_price=0.01", "rate.highest_price=20",
    "rate.warmup_steps=1", "losses.share=0.2", "perceptual_images=4",
]  # fmt: skip
"""The last stage of the released model, see `train-camvid.sh`."""
VARIANTS: dict[str, tuple[str, int, list[str]]] = {
    "all": ("everything", 0, []),
    "all-again": ("everything, another seed", 1, []),
    "no-features": ("no match of the expert's inner features", 0, ["stages.0.weights.features=0"]),
    "no-balance": ("no weight for rare classes", 0, ["balance_classes=false"]),
    "no-imitation": (
        "no imitation: pixels and LPIPS alone", 0, ["stages.0.weights.jsd=0", "stages.0.weights.features=0"],
    ),
    "no-lpips": ("no LPIPS", 0, ["stages.0.weights.lpips=0"]),
    "no-losses": ("no lost slices in training", 0, ["losses.share=0"]),
    "little-mse": ("squared error at a tenth of its weight", 0, ["stages.0.weights.mse=4"]),
    "cross-entropy": (
        "cross-entropy in place of the Jensen-Shannon divergence", 0,
        ["stages.0.weights.jsd=0", "stages.0.weights.ce=1"],
    ),
}  # fmt: skip
"""By name: in words, seed, changes of the recipe."""
BUDGETS_KIB = (0.5, 1.0)


def train(options: argparse.Namespace) -> int:
    """Train the variants that are not finished."""
    settings = {"batch_size": options.batch, "crop_height": options.crop[0], "crop_width": options.crop[1]}
    batches = [f"stages.0.batches.{key}={value}" for key, value in settings.items()]
    init = checkpoint_folder(options.init)
    model = json.loads((init / "config.json").read_text(encoding="utf-8"))["model"]
    for name in options.only or VARIANTS:
        _, seed, changes = VARIANTS[name]
        folder = options.out / name
        if (folder / "weights.safetensors").exists():
            continue
        overrides = [f"model={json.dumps(model)}", *BASE, *batches, f"stages.0.steps={options.steps}", *changes]
        command = [sys.executable, "-m", "gosvae.cli.main", "train", "gosvae-variable-finetune", "--quiet"]
        command += ["--init", str(init), "--set", f"name={name}"]
        command += ["--data", options.data, "--expert", "embedded", "--lpips", options.lpips, "--out", str(folder)]
        command += ["--weights", str(options.weights)] if options.weights else []
        command += ["--seed", str(seed), "--workers", str(options.workers)]
        command += [part for change in overrides for part in ("--set", change)]
        subprocess.run(command, check=True)
    return 0


def run_evaluate(options: argparse.Namespace) -> int:
    """Evaluate the variants that there are, and write a table."""
    entries, minutes = [], {}
    for name in VARIANTS:
        folder = options.out / name
        if not (folder / "weights.safetensors").exists():
            print(f"{name}: not trained, left out")
            continue
        minutes[name] = load_codec_checkpoint(folder).provenance["minutes_of_stage"]
        codec = load_trained_codec(folder)
        entries += [CodecEntry(f"{name}:{kib}KiB", codec, budget_bytes=int(1024 * kib)) for kib in BUDGETS_KIB]
    dataset = load_prepared(options.data, default_split="val")
    if options.limit:
        dataset = EvenlySpaced(dataset, options.limit)
    perceptual = load_perceptual("stlpips-vgg16", None)
    evaluation = evaluate(entries, dataset, load_expert("embedded"), perceptual=perceptual)
    save_evaluation(evaluation, options.to)
    rows = {row.label: row for row in evaluation.rows}
    budgets = " | ".join(f"mIoU, {kib} KiB" for kib in BUDGETS_KIB)
    lines = [f"| variant | {budgets} | ST-LPIPS, 1 KiB | MSE, 1 KiB |", "|---|" + "---:|" * (len(BUDGETS_KIB) + 2)]
    for name in minutes:
        cells = [f"{rows[f'{name}:{kib}KiB'].miou:.4f}" for kib in BUDGETS_KIB]
        middle = rows[f"{name}:1.0KiB"]
        lines.append(f"| {VARIANTS[name][0]} | {' | '.join(cells)} | {middle.lpips:.4f} | {middle.mse:.5f} |")
    table = "\n".join(lines) + "\n"
    write_atomically(options.to / "table.md", table.encode())
    print(table)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train")
    training.add_argument("--data", required=True)
    training.add_argument("--out", type=Path, default=Path("runs/ablation"))
    training.add_argument("--only", nargs="*", choices=list(VARIANTS))
    training.add_argument("--steps", type=int, default=200)
    training.add_argument("--init", default="gosvae-variable-camvid", help="the codec that all variants start from")
    training.add_argument("--batch", type=int, default=4)
    training.add_argument("--crop", type=int, nargs=2, default=(128, 256))
    training.add_argument("--workers", type=int, default=0)
    training.add_argument("--lpips", default="lpips-squeeze")
    training.add_argument("--weights", type=Path)
    training.set_defaults(run=train)
    evaluation = commands.add_parser("evaluate")
    evaluation.add_argument("--data", required=True)
    evaluation.add_argument("--out", type=Path, default=Path("runs/ablation"))
    evaluation.add_argument("--to", type=Path, default=Path("docs/camvid/ablation"))
    evaluation.add_argument("--limit", type=int)
    evaluation.set_defaults(run=run_evaluate)
    options = parser.parse_args()
    run: int = options.run(options)
    return run


if __name__ == "__main__":
    sys.exit(main())
