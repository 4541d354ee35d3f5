"""The three sizes of the plan: `small` for two CPU cores, `gpu` for one GPU, `paper` for the paper's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gosvae.config import to_tree
from gosvae.errors import ConfigError, unknown_name
from gosvae.quantizers import VqConfig
from gosvae.recipes import Recipe, load_recipe
from gosvae.reproduce.plan import RowPlan, Trained
from gosvae.training.machine.config import StageConfig
from gosvae.training.vq import VqRecipe


@dataclass(frozen=True)
class Scale:
    """How large and how long everything is.

    Attributes:
        table_steps: optimiser steps of every learned row of the tables; None takes the paper's epochs.
        sweep_steps: the same for the points of Fig. 4.
        batch_size: images a step. crop_height, crop_width: what is cut from each; None takes whole images.
        sweep_images: images that a point of Fig. 4 is measured on, evenly spaced; None takes all.
        histogram_pixels: see `RunConfig`.
        changes: `key=value` overrides by recipe, or by row id; of a row where both are there.
        sentence: what differs from the paper, for captions.
    """

    name: str
    table_steps: int | None
    sweep_steps: int | None
    batch_size: int
    crop_height: int | None
    crop_width: int | None
    sweep_images: int | None
    histogram_pixels: int
    changes: Mapping[str, tuple[str, ...]]
    sentence: str


_SMALL_RESIDUAL = (
    "model.autoencoder={architecture: residual, stride: 4, width: 80, blocks: 1}",
    "model.quantizer={kind: vq, codebook_size: 2048, code_dim: 48, revive_below: 0.03}",
)
_SMALL_VQGAN = (
    "model.autoencoder={architecture: vqgan, stride: 4, width: 16, multipliers: [1, 2, 6], blocks: 1, "
    "decoder_blocks: 1, attention: false}",
    "stages.0.learning_rate=5.0e-4",
    "stages.0.adversary.width=32",
)
_SMALL_GESCO = (
    "model={patch: 4, width: 32, multipliers: [1, 2, 3], blocks: 1, attention_strides: [4], head_width: 32, "
    "spade_width: 32, learned_variance: false, schedule: cosine, prediction: image, sampler: ddim, "
    "sampling_steps: 15, guidance: 1.5}",
    "stages.0.weights={denoising: 1.0}",
    "stages.0.learning_rate=1.0e-3",
)
_NO_REVIVAL = ("model.quantizer.revive_below=0",)
_REVIVING = (
    "vqvae vqvae-residual vqvae-kld vqvae-lpips vqgan "
    "gosvae-scratch gosvae-finetune gosvae-ce gosvae-kld gosvae-kld-lpips"
)

SCALES: Mapping[str, Scale] = MappingProxyType(
    {
        "small": Scale(
            name="small",
            table_steps=500,
            sweep_steps=150,
            batch_size=4,
            crop_height=128,
            crop_width=256,
            sweep_images=34,
            histogram_pixels=16_000_000,
            changes=MappingProxyType(
                {
                    "vqvae-residual": _SMALL_RESIDUAL,
                    "gosvae-residual": _SMALL_RESIDUAL,
                    "vqgan": _SMALL_VQGAN,
                    "gesco": _SMALL_GESCO,
                }
            ),
            sentence=(
                "Every learned row has the same number of optimiser steps; the residual models, VQ-GAN and GESCO are "
                "smaller than the paper's, and GESCO draws in 15 steps (guidance 1.5) where the paper takes 100. Dead "
                "codes of the VQ rows come back first after 173 steps (VQ-GAN 68), in Fig. 4 after 19: much of so "
                "short a training goes by before the codebook is in use."
            ),
        ),
        "gpu": Scale(
            name="gpu",
            table_steps=20_000,
            sweep_steps=6_000,
            batch_size=8,
            crop_height=256,
            crop_width=512,
            sweep_images=None,
            histogram_pixels=60_000_000,
            changes=MappingProxyType({}),
            sentence="Every learned row has the same number of optimiser steps; networks have the paper's sizes.",
        ),
        "paper": Scale(
            name="paper",
            table_steps=None,
            sweep_steps=None,
            batch_size=8,
            crop_height=None,
            crop_width=None,
            sweep_images=None,
            histogram_pixels=60_000_000,
            changes=MappingProxyType(dict.fromkeys(_REVIVING.split(), _NO_REVIVAL)),
            sentence="Networks and epochs are the paper's; batch (8 images) and learning rates are ours.",
        ),
    }
)


def load_scale(name: str) -> Scale:
    """A scale by name.

    Raises:
        ConfigError: an unknown name.
    """
    if name not in SCALES:
        raise ConfigError(unknown_name("scale", name, SCALES))
    return SCALES[name]


def planned_steps(row: RowPlan, scale: Scale, image_count: int, *, ade20k: bool) -> int:
    """Optimiser steps of a row's own training, over all its stages; 0 where it trains nothing.

    Args:
        image_count: of the training images, which the paper's epochs are counted in.
        ade20k: the paper's lengths for ADE20K instead of those for Cityscapes.
    """
    if not isinstance(row.source, Trained):
        return 0
    fixed = scale.sweep_steps if row.source.sweep else scale.table_steps
    if fixed is not None:
        return fixed
    length = row.source.length
    if length.steps is not None:
        return length.steps[ade20k]
    assert length.epochs is not None
    return -(-length.epochs[ade20k] * image_count // scale.batch_size)


def changes_of(row: RowPlan, scale: Scale, steps: int, more: tuple[str, ...] = ()) -> list[str]:
    """All `key=value` overrides of a row's recipe; the stages share the steps as they do in the recipe.

    Args:
        more: the user's, which win.

    Raises:
        ConfigError: the recipe is not in this version of the package, or a key or value is impossible.
    """
    source = row.source
    assert isinstance(source, Trained)
    own = [*source.changes, *scale.changes.get(row.row_id, scale.changes.get(source.recipe, ()))]
    recipe = load_recipe(source.recipe, own)
    # A change that sets a whole quantizer would undo an earlier change inside it: the order is plan, scale, user.
    lengths = _shares([stage.steps for stage in recipe.stages], steps)
    for number, (stage, length) in enumerate(zip(recipe.stages, lengths, strict=True)):
        own.append(f"stages.{number}.steps={length}")
        for key, value in (("batch_size", scale.batch_size), *_crop(scale)):
            own.append(f"stages.{number}.batches.{key}={value}")
        own += [f"stages.{number}.{key}={value}" for key, value in _schedule(stage, length).items()]
        adversary = to_tree(stage).get("adversary")
        if adversary and adversary["start_step"]:
            own.append(f"stages.{number}.adversary.start_step={adversary['start_step'] * length // stage.steps}")
    own += _revival(recipe, steps)
    own += more
    load_recipe(source.recipe, own)  # so that what is impossible shows before anything is trained
    return own


def _revival(recipe: Recipe, steps: int) -> list[str]:
    """Dead codes come back eight times in trainings that are too short for two of the recipe's own returns.

    At its `usage_decay` of 0.98 a code counts as dead after 173 steps: a training of 150 would never see one come back.
    """
    quantizer = recipe.model.quantizer if isinstance(recipe, VqRecipe) else None
    if not isinstance(quantizer, VqConfig) or quantizer.revive_below == 0:
        return []
    if quantizer.usage_decay**steps <= quantizer.revive_below**2:
        return []
    return [f"model.quantizer.usage_decay={quantizer.revive_below ** (8.0 / steps):.4f}"]


def _schedule(stage: StageConfig, steps: int) -> dict[str, float]:
    """Warm-up, ramp and averaging of a stage that is shorter than its recipe's.

    A moving average remembers 1 / (1 - decay) steps: over a tenth of the training it still forgets the start.
    """
    return {
        "warmup_steps": min(stage.warmup_steps, steps // 12),
        "ramp_steps": min(stage.ramp_steps, steps // 12),
        "ema_decay": max(0.0, min(stage.ema_decay, 1.0 - 10.0 / steps)),
    }


def _crop(scale: Scale) -> list[tuple[str, str]]:
    sides = (("crop_height", scale.crop_height), ("crop_width", scale.crop_width))
    return [(key, "null" if value is None else str(value)) for key, value in sides]


def _shares(lengths: list[int], total: int) -> list[int]:
    """`total` steps in the proportions of `lengths`, each at least 1; the last takes what rounding leaves."""
    shares = [max(1, round(total * length / sum(lengths))) for length in lengths]
    shares[-1] = max(1, total - sum(shares[:-1]))
    return shares


def recipe_of(row: RowPlan, changes: list[str]) -> Recipe:
    """The recipe of a row with its overrides; raises as `load_recipe`."""
    assert isinstance(row.source, Trained)
    return load_recipe(row.source.recipe, changes)


def recipe_tree(row: RowPlan, changes: list[str]) -> dict[str, object]:
    """The same as plain values for settings and keys, without the texts, which no number follows from.

    Defaults are left out, so that a setting that a later version adds does not make rows that are done foreign.
    """
    tree = recipe_of(row, changes).model_dump(mode="json", exclude_defaults=True)
    return {key: value for key, value in tree.items() if key not in ("name", "description", "reference")}
