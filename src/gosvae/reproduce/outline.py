"""Outline of the plan, which is printed in place of a run."""

from __future__ import annotations

from collections.abc import Sequence

from gosvae.errors import ConfigError
from gosvae.experts.registry import input_size, is_embedded, is_oneformer
from gosvae.reproduce.estimate import estimated_seconds, expert_share, own_short, swin_l_gib
from gosvae.reproduce.job import World
from gosvae.reproduce.plan import RowPlan, Trained, rows_text

_BASIS = {
    "small": "measured on two busy CPU cores with the embedded expert",
    "cpu-long": "from the scale small, measured on two busy CPU cores with the embedded expert",
    "gpu": "assumed for one GPU of the class of an RTX 4090 with the embedded expert, not measured",
    "paper": "assumed for one GPU of the class of an RTX 4090 with OneFormer (Swin-L) as expert, not measured",
}


def print_outline(world: World, rows: Sequence[RowPlan], experiments: Sequence[str]) -> float:
    """Print each row with its steps, what it needs and its estimated hours, and the sum; return the sum."""
    scale = world.job.scale
    share = expert_share(world.job.expert, world.train_images.name)
    told = scale.told(world.job.changes)
    print(f"{', '.join(experiments)} at scale {scale.name}: {rows_text(len(rows))}. {told}")
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
        hours = estimated_seconds(row, scale, steps, images, batch, share) / 3600.0
        total += hours
        print(f"{row.row_id:<24}{steps or '-':>9}{images:>8}{hours:>8.2f}  {note}".rstrip())
    if scale.is_papers and is_oneformer(world.job.expert):
        _print_input(world)
    devices = world.job.run.devices
    shared = f", at least {total / devices:.1f} on {devices} devices" if devices > 1 else ""
    print(f"about {total:.1f} hours altogether{shared} ({_basis(world)})")
    return total


def _print_input(world: World) -> None:
    """Print what the size of OneFormer's input takes."""
    batch, (_, short) = world.job.scale.batch_size, input_size(world.job.expert)
    small, large, whole = swin_l_gib(1, 256, 512), swin_l_gib(1, 1024, 2048), swin_l_gib(batch, 256, 512)
    print(
        f"memory of OneFormer (Swin-L) in float32, extrapolated: {small:.1f} GiB in a micro-batch of one image of "
        f"256x512 pixels, {large:.1f} of 1024x2048; {whole:.1f} for a whole batch of {batch} at 256x512"
    )
    if short is None:
        short = own_short(world.train_images.name)
        print(
            f"OneFormer's image processor enlarges an image of 256x512 pixels to {short}x{2 * short}, which has "
            f"{(short / 256) ** 2:g} times the pixels: ?short=256 behind its name reduces time and memory"
        )


def _basis(world: World) -> str:
    """Return where the times come from, which depends on the expert at the paper's scale."""
    scale, expert = world.job.scale, world.job.expert
    if not scale.is_papers:
        return _BASIS[scale.name]
    if is_embedded(expert):
        return _BASIS["gpu"]
    if is_oneformer(expert):
        short = input_size(expert)[1] or own_short(world.train_images.name)
        return f"{_BASIS[scale.name]}, at {short}x{2 * short} pixels"
    return f"{_BASIS[scale.name]}; the expert here is {expert}, which takes another time"
