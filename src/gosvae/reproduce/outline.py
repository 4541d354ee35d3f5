"""Outline of the plan, which is printed in place of a run."""

from __future__ import annotations

from collections.abc import Sequence

from gosvae.errors import ConfigError
from gosvae.reproduce.estimate import estimated_seconds, swin_l_gib
from gosvae.reproduce.job import World
from gosvae.reproduce.plan import RowPlan, Trained, rows_text

_BASIS = {
    "small": "measured on two busy CPU cores with the embedded expert",
    "cpu-long": "from the scale small, measured on two busy CPU cores with the embedded expert",
    "gpu": "assumed for one GPU of the class of an RTX 4090 with the embedded expert, not measured",
    "paper": "assumed for one GPU of the class of an RTX 4090 with OneFormer (Swin-L), not measured",
}


def print_outline(world: World, rows: Sequence[RowPlan], experiments: Sequence[str]) -> None:
    """Print each row with its steps, what it needs and its estimated hours, and the sum."""
    scale = world.job.scale
    print(f"{', '.join(experiments)} at scale {scale.name}: {rows_text(len(rows))}. {scale.sentence}")
    print(f"data: {world.train_images.name}, {len(world.train_images)} images to train on")
    print(f"{'row':<24}{'steps':>9}{'images':>8}{'hours':>8}  needs, at the bytes of, or why it cannot be made")
    total = 0.0
    for row in rows:
        note = ", ".join(row.needs)
        steps, batch, images = 0, None, len(world.images_of(row))
        if isinstance(row.source, Trained):
            steps = world.steps_of(row)
            try:
                changes = world.changes_of(row)
                steps, batch = world.real_steps(row, changes), world.batch_size_of(row)
            except ConfigError as error:
                print(f"{row.row_id:<24}{'-':>9}{'-':>8}{'-':>8}  {error}")
                continue
        hours = estimated_seconds(row, scale, steps, images, batch) / 3600.0
        total += hours
        print(f"{row.row_id:<24}{steps or '-':>9}{images:>8}{hours:>8.2f}  {note}".rstrip())
    if scale.name == "paper":
        small, large, whole = swin_l_gib(1, 256, 512), swin_l_gib(1, 1024, 2048), swin_l_gib(scale.batch_size, 256, 512)
        print(
            f"memory of OneFormer (Swin-L) in float32, extrapolated: {small:.1f} GiB in a micro-batch of one image of "
            f"256x512 pixels, {large:.1f} of 1024x2048; {whole:.1f} for a whole batch of {scale.batch_size} at 256x512"
        )
    devices = world.job.run.devices
    shared = f", at least {total / devices:.1f} on {devices} devices" if devices > 1 else ""
    print(f"about {total:.1f} hours altogether{shared} ({_BASIS[scale.name]})")
