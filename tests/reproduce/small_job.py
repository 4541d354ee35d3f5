"""A reproduction that is made in seconds: the plan's own rows with tiny networks on generated scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gosvae.config import parse
from gosvae.datasets.geometry import GeometryConfig
from gosvae.reproduce.job import Job, World
from gosvae.reproduce.plan import all_rows
from gosvae.reproduce.runner import Runner
from gosvae.reproduce.scales import load_scale
from gosvae.training.machine.config import RunConfig

STEPS = 4
WEIGHTS = "{mse: 1.0, jsd: 1.0, codebook: 1.0, commitment: 0.25}"
CHANGES = (
    "model.autoencoder.width=8",
    "model.autoencoder.hidden_width=4",
    "model.quantizer={kind: vq, codebook_size: 16, code_dim: 4}",
    f"stages.0.steps={STEPS}",
    "stages.0.batches={batch_size: 1, crop_height: 32, crop_width: 32}",
    # LPIPS needs weights that a test does not have.
    f"gosvae-scratch:stages.0.weights={WEIGHTS}",
    f"gosvae:stages.0.weights={WEIGHTS}",
    f"fig4-start-r8-s0:stages.0.weights={WEIGHTS}",
)
ROWS = ("vqvae", "gosvae", "jpeg", "label-map")


def job(*more: str, scale: str = "small", **choices: Any) -> Job:
    """Four scenes of 64x96 pixels, the embedded expert, no LPIPS, if nothing else is chosen."""
    run = {"accelerator": "cpu", "precision": "32", "tensorboard": False}
    own = {
        "data": "streets:4",
        "expert": "embedded",
        "geometry": GeometryConfig(resize_height=64, resize_width=96),
        "lpips": "none",
        "run": parse(RunConfig, run),
        "changes": (*CHANGES, *more),
    }
    return Job(scale=load_scale(scale), **(own | choices))


def runner(folder: Path, *more: str, rows: Sequence[str] = ROWS, lines: list[str] | None = None) -> Runner:
    """A runner of some rows; what it says goes into `lines`."""
    plan = [row for row in all_rows() if row.row_id in rows]
    said: list[str] = [] if lines is None else lines
    return Runner(World(job(*more)), plan, folder, say=said.append)
