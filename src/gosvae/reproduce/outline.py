"""Outline of the plan, which is printed in place of a run."""

from __future__ import annotations

from collections.abc import Sequence

from gosvae.errors import ConfigError
from gosvae.reproduce.estimate import estimated_seconds
from gosvae.reproduce.job import World
from gosvae.reproduce.plan import RowPlan, Trained

_BASIS = {
    "small": "measured on two busy CPU cores with the embedded expert",
    "cpu-long": "from the scale small, measured on two busy CPU cores with the embedded expert",
    "gpu": "assumed for one GPU of the class of an RTX 4090 with the embedded expert, not measured",
    "paper": "assumed for one GPU of the class of an RTX 4090 with OneFormer (Swin-L), not measured",
}


def print_outline(world: World, rows: Sequence[RowPlan], experiments: Sequence[str]) -> None:
    """Print each row with its steps, what it needs and its estimated hours, and the sum."""
    scale = world.job.scale
    print(f"{', '.join(experiments)} at scale {scale.name}: {len(rows)} rows. {scale.sentence}")
    print(f"data: {world.train_images.name}, {len(world.train_images)} images to train on")
    print(f"{'row':<24}{'steps':>9}{'images':>8}{'hours':>8}  needs, at the bytes of, or why it cannot be made")
    total = 0.0
    for row in rows:
        note = ", ".join(row.needs)
        steps, images = 0, len(world.images_of(row))
        if isinstance(row.source, Trained):
            steps = world.steps_of(row)
            try:
                changes = world.changes_of(row)
                steps = world.real_steps(row, changes)
            except ConfigError as error:
                print(f"{row.row_id:<24}{'-':>9}{'-':>8}{'-':>8}  {error}")
                continue
        hours = estimated_seconds(row, scale, steps, images) / 3600.0
        total += hours
        print(f"{row.row_id:<24}{steps or '-':>9}{images:>8}{hours:>8.2f}  {note}".rstrip())
    print(f"about {total:.1f} hours altogether ({_BASIS[scale.name]})")
