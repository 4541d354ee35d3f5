#!/usr/bin/env python3
"""Each part of the variable-rate recipe on and off: one codec trained on in many ways, compared at equal bytes.

    scripts/ablate.py train --init runs/variable-4 --more-experts runs/expert-b --data camvid:PATH --out runs/ablation
    scripts/ablate.py train ... --only no-features                                            # all by default
    scripts/ablate.py evaluate --data camvid:PATH --out runs/ablation --to docs/camvid/ablation

A variant that is finished is not trained again. `evaluate` gives every codec the same byte budget for every image.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from gosvae.codecs.checkpoint import load_codec_checkpoint
from gosvae.codecs.registry import checkpoint_folder, load_trained_codec
from gosvae.datasets.mixture import load_prepared
from gosvae.datasets.subset import EvenlySpaced
from gosvae.evaluation.protocol import CodecEntry, evaluate
from gosvae.evaluation.results import save_evaluation
from gosvae.experts.registry import load_expert
from gosvae.files import write_atomically
from gosvae.losses.perceptual import load_perceptual

BASE = [
    "stages.0.ramp_steps=1", "stages.0.warmup_steps=20", "stages.0.ema_decay=0.98", "rate.warmup_steps=1",
    "more_perceptual=[stlpips-alex]",
]  # fmt: skip
"""The stage that made the released model of `variable-4`, see `train-camvid.sh`, made short."""
VARIANTS: dict[str, tuple[str, int, list[str]]] = {
    "all": ("everything", 0, []),
    "all-again": ("everything, another seed", 1, []),
    "no-imitation": (
        "no imitation: pixels and perceptual distances alone", 0,
        ["stages.0.weights.jsd=0", "stages.0.weights.features=0"],
    ),
    "no-features": ("no match of the experts' inner features", 0, ["stages.0.weights.features=0"]),
    "one-expert": ("one expert", 0, ["more_experts=[]"]),
    "one-distance": ("one perceptual distance (LPIPS, SqueezeNet)", 0, ["more_perceptual=[]"]),
    "no-lpips": ("no perceptual distance", 0, ["stages.0.weights.lpips=0"]),
    "much-mse": ("ten times the squared error", 0, ["stages.0.weights.mse=60"]),
    "balance": ("a weight for rare classes", 0, ["balance_classes=true"]),
    "cross-entropy": (
        "cross-entropy in place of the Jensen-Shannon divergence", 0,
        ["stages.0.weights.jsd=0", "stages.0.weights.ce=2"],
    ),
    "no-rate": ("no price of bits in training", 0, ["stages.0.weights.rate=0"]),
    "few-channels": ("24 channels at all levels", 0, ["model={}"]),
    "no-losses": ("no lost slices in training", 0, ["losses.share=0"]),
}  # fmt: skip
"""By name: in words, seed, changes of the recipe."""
BUDGETS_KIB = (0.5, 1.0)
UNSEEN_EXPERT = "expert-unet-camvid"


def train(options: argparse.Namespace) -> int:
    """Train the variants that are not finished."""
    settings = {"batch_size": options.batch, "crop_height": options.crop[0], "crop_width": options.crop[1]}
    batches = [f"stages.0.batches.{key}={value}" for key, value in settings.items()]
    init = checkpoint_folder(options.init)
    for name in options.only or VARIANTS:
        _, seed, changes = VARIANTS[name]
        folder = options.out / name
        if (folder / "weights.safetensors").exists():
            continue
        experts = [f"more_experts=[{', '.join(map(str, options.more_experts))}]"]
        steps = [f"stages.0.steps={options.steps}"]
        overrides = [*BASE, *experts, *batches, *steps, *changes]
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
    codecs, minutes = {}, {}
    for name in options.only or VARIANTS:
        folder = options.out / name
        if not (folder / "weights.safetensors").exists():
            print(f"{name}: not trained, left out")
            continue
        minutes[name] = load_codec_checkpoint(folder).provenance["minutes_of_stage"]
        codecs[name] = load_trained_codec(folder)
    dataset = load_prepared(options.data, default_split="val")
    if options.limit:
        dataset = EvenlySpaced(dataset, options.limit)

    def entries(*budgets_kib: float) -> list[CodecEntry]:
        return [
            CodecEntry(f"{name}:{kib}KiB", codec, budget_bytes=int(1024 * kib))
            for name, codec in codecs.items()
            for kib in budgets_kib
        ]

    task = evaluate(entries(*BUDGETS_KIB), dataset, load_expert("embedded"))
    # An expert and a distance that no variant was trained with.
    unseen = evaluate(
        entries(BUDGETS_KIB[-1]), dataset, load_expert(UNSEEN_EXPERT), perceptual=load_perceptual("stlpips-vgg16", None)
    )
    save_evaluation(task, options.to / "task")
    save_evaluation(unseen, options.to / "unseen")
    rows = {row.label: row for row in task.rows}
    others = {row.label: row for row in unseen.rows}
    titles = [f"mIoU, {kib:g} KiB" for kib in BUDGETS_KIB]
    titles += ["mIoU, another expert, 1 KiB", "ST-LPIPS, 1 KiB", "PSNR, 1 KiB"]
    lines = [f"| variant | {' | '.join(titles)} |", "|---|" + "---:|" * len(titles)]
    for name in codecs:
        cells = [f"{rows[f'{name}:{kib}KiB'].miou:.4f}" for kib in BUDGETS_KIB]
        other = others[f"{name}:{BUDGETS_KIB[-1]}KiB"]
        cells += [f"{other.miou:.4f}", f"{other.lpips:.4f}", f"{other.psnr_db:.2f}"]
        lines.append(f"| {VARIANTS[name][0]} | {' | '.join(cells)} |")
    table = "\n".join(lines) + "\n"
    write_atomically(options.to / "table.md", table.encode())
    print(table)
    print(f"minutes of training: {min(minutes.values()):.1f} to {max(minutes.values()):.1f}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train")
    training.add_argument("--data", required=True)
    training.add_argument("--out", type=Path, default=Path("runs/ablation"))
    training.add_argument("--steps", type=int, default=200)
    training.add_argument(
        "--more-experts", type=Path, nargs="*", default=[], help="imitated beside the embedded one, see train-camvid.sh"
    )
    training.add_argument("--init", required=True, help="the codec that all variants start from")
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
    for command in (training, evaluation):
        command.add_argument("--only", nargs="*", choices=list(VARIANTS), help="these variants alone")
    options = parser.parse_args()
    run: int = options.run(options)
    return run


if __name__ == "__main__":
    sys.exit(main())
