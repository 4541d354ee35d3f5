#!/usr/bin/env python3
"""Train one variable-rate codec further in several ways, each with one part of the recipe changed, and compare them.

    scripts/ablate.py train --init runs/any-rate --more-experts runs/expert-b --data camvid:PATH --out runs/ablation
    scripts/ablate.py evaluate --data camvid:PATH --out runs/ablation --to results/ablation

`train` continues where it was stopped and skips variants that are finished; `--only NAME ...` chooses some of them.
`evaluate` gives every codec the same number of bytes for every image, and writes `table.md`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gosvae
from gosvae.codecs.registry import checkpoint_folder, load_trained_codec
from gosvae.datasets.mixture import load_prepared
from gosvae.datasets.subset import EvenlySpaced
from gosvae.evaluation.protocol import CodecEntry, evaluate
from gosvae.evaluation.results import save_evaluation
from gosvae.experts.registry import load_expert
from gosvae.files import write_atomically
from gosvae.losses.perceptual import load_perceptual
from gosvae.training.machine.config import RunConfig

BASE = (
    "stages.0.ramp_steps=1", "stages.0.warmup_steps=20", "stages.0.ema_decay=0.98", "rate.warmup_steps=1",
    "more_perceptual=[stlpips-alex]", "stages.0.batches={batch_size: 4, crop_height: 128, crop_width: 256}",
)  # fmt: skip
"""Changes of the recipe `gosvae-variable-finetune` that all variants share."""
VARIANTS: dict[str, tuple[str, list[str]]] = {
    "all": ("everything", []),
    "all-again": ("everything, another seed", []),
    "no-imitation": (
        "no imitation: pixels and perceptual distances alone",
        ["stages.0.weights.jsd=0", "stages.0.weights.features=0"],
    ),
    "no-features": ("no match of the experts' inner features", ["stages.0.weights.features=0"]),
    "one-expert": ("one expert", ["more_experts=[]"]),
    "one-distance": ("one perceptual distance", ["more_perceptual=[]"]),
    "no-lpips": ("no perceptual distance", ["stages.0.weights.lpips=0"]),
    "much-mse": ("ten times the squared error", ["stages.0.weights.mse=60"]),
    "balance": ("a weight for rare classes", ["balance_classes=true"]),
    "cross-entropy": (
        "cross-entropy in place of the Jensen-Shannon divergence",
        ["stages.0.weights.jsd=0", "stages.0.weights.ce=2"],
    ),
    "no-rate": ("no price of bits in training", ["stages.0.weights.rate=0"]),
    "no-erasures": ("no lost slices in training", ["erasures.share=0"]),
}
"""Description of each variant, and its changes of the recipe, by name."""
BUDGETS_KIB = (0.5, 1.0)
UNSEEN_EXPERT, UNSEEN_DISTANCE = "expert-unet-camvid", "stlpips-vgg16"
"""Judges that no variant is trained with."""


def run_train(options: argparse.Namespace) -> None:
    """Train the variants that are not finished."""
    experts = f"more_experts=[{', '.join(map(str, options.more_experts))}]"
    for name in options.only or VARIANTS:
        changes = [f"name={name}", experts, *BASE, f"stages.0.steps={options.steps}", *VARIANTS[name][1]]
        gosvae.train(
            "gosvae-variable-finetune",
            options.data,
            expert="embedded",
            out=options.out / name,
            overrides=changes,
            lpips="lpips-squeeze",
            weights=options.weights,
            init=checkpoint_folder(options.init),
            run=RunConfig(seed=int(name == "all-again")),
        )


def run_evaluate(options: argparse.Namespace) -> None:
    """Evaluate the variants that are trained, and write a table."""
    names = [name for name in options.only or VARIANTS if (options.out / name / "weights.safetensors").exists()]
    codecs = {name: load_trained_codec(options.out / name) for name in names}
    dataset = load_prepared(options.data, default_split="val")
    dataset = EvenlySpaced(dataset, options.limit) if options.limit else dataset

    def entries(*budgets_kib: float) -> list[CodecEntry]:
        return [
            CodecEntry(f"{name}:{kib}KiB", codec, budget_bytes=int(1024 * kib))
            for name, codec in codecs.items()
            for kib in budgets_kib
        ]

    task = evaluate(entries(*BUDGETS_KIB), dataset, load_expert("embedded"))
    distance = load_perceptual(UNSEEN_DISTANCE, None)
    unseen = evaluate(entries(BUDGETS_KIB[-1]), dataset, load_expert(UNSEEN_EXPERT), perceptual=distance)
    save_evaluation(task, options.to / "task")
    save_evaluation(unseen, options.to / "unseen")
    rows, others = ({row.label: row for row in one.rows} for one in (task, unseen))
    titles = [*(f"mIoU, {kib:g} KiB" for kib in BUDGETS_KIB), "mIoU, another expert, 1 KiB", "ST-LPIPS", "PSNR"]
    lines = [f"| variant | {' | '.join(titles)} |", "|---|" + "---:|" * len(titles)]
    for name in names:
        cells = [f"{rows[f'{name}:{kib}KiB'].miou:.4f}" for kib in BUDGETS_KIB]
        other = others[f"{name}:{BUDGETS_KIB[-1]}KiB"]
        cells += [f"{other.miou:.4f}", f"{other.lpips:.4f}", f"{other.psnr_db:.2f}"]
        lines.append(f"| {VARIANTS[name][0]} | {' | '.join(cells)} |")
    table = "\n".join(lines) + "\n"
    write_atomically(options.to / "table.md", table.encode())
    print(table, end="")


def main() -> None:
    """Parse the command line and run one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    training, evaluation = commands.add_parser("train"), commands.add_parser("evaluate")
    for command in (training, evaluation):
        command.add_argument("--data", required=True)
        command.add_argument("--out", type=Path, default=Path("runs/ablation"), help="folder of the variants")
        command.add_argument("--only", nargs="*", choices=list(VARIANTS), help="variants to take; default: all")
    training.add_argument("--init", required=True, help="codec that all variants start from")
    training.add_argument("--more-experts", nargs="*", default=[], help="experts to imitate beside the embedded one")
    training.add_argument("--steps", type=int, default=200, help="number of steps of each variant")
    training.add_argument("--weights", type=Path, help="folder of the weights of LPIPS-Squeeze")
    training.set_defaults(run=run_train)
    evaluation.add_argument("--to", type=Path, default=Path("results/ablation"), help="folder of the results")
    evaluation.add_argument("--limit", type=int, help="number of images, evenly spaced; default: all")
    evaluation.set_defaults(run=run_evaluate)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
