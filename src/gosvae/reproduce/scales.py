"""Scales of the plan: `small` and the longer `cpu-long` for a CPU, `gpu` for one GPU, `paper` for the paper's sizes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from gosvae.config import to_tree
from gosvae.errors import ConfigError, unknown_name
from gosvae.quantizers import VqConfig
from gosvae.recipes import Recipe, load_recipe
from gosvae.reproduce.plan import Borrowed, RowPlan, Trained
from gosvae.training.machine.config import StageConfig
from gosvae.training.vq import VqRecipe


@dataclass(frozen=True)
class Scale:
    """Scale of a reproduction: sizes of networks and lengths of trainings.

    Attributes:
        table_steps: number of optimiser steps of every learned row of the tables; None takes the paper's epochs.
        sweep_steps: number of optimiser steps of the points of Fig. 4; None takes the paper's epochs.
        batch_size: number of images in a batch.
        crop_height, crop_width: size of the crops; None takes whole images.
        sweep_images: number of images, evenly spaced, that a point of Fig. 4 is measured on; None takes all.
        histogram_pixels: number of pixels for the histogram, see `RunConfig`.
        changes: overrides `key=value` by recipe or by row id; those of the row win.
        sentence: sentence for captions that says what differs from the paper, without the user's overrides.
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

    def __getstate__(self) -> dict[str, object]:
        """Return a state that another process can read."""
        return {**self.__dict__, "changes": dict(self.changes)}

    def told(self, changes: Sequence[str]) -> str:
        """Return the sentence for captions, with a further one if the user has overrides."""
        return f"{self.sentence} Changes of the user come on top: {', '.join(changes)}." if changes else self.sentence

    @property
    def is_papers(self) -> bool:
        """Whether the scale is the paper's own, where every substitute for what the paper uses must be named."""
        return self.name == "paper"


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
_SMALL_CHANGES = MappingProxyType(
    {
        "vqvae-residual": _SMALL_RESIDUAL,
        "gosvae-residual": _SMALL_RESIDUAL,
        "vqgan": _SMALL_VQGAN,
        "gesco": _SMALL_GESCO,
    }
)
_SMALL_SENTENCE = "At this scale the residual models, VQ-GAN and GESCO are smaller than the paper's."
_NO_REVIVAL = ("model.quantizer.revive_below=0",)
_REVIVING = (
    "vqvae vqvae-residual vqvae-kld vqvae-lpips vqgan "
    "gosvae-scratch gosvae-finetune gosvae-ce gosvae-kld gosvae-kld-lpips"
)

_SMALL = Scale(
    name="small",
    table_steps=500,
    sweep_steps=150,
    batch_size=4,
    crop_height=128,
    crop_width=256,
    sweep_images=34,
    histogram_pixels=16_000_000,
    changes=_SMALL_CHANGES,
    sentence=_SMALL_SENTENCE,
)

SCALES: Mapping[str, Scale] = MappingProxyType(
    {
        "small": _SMALL,
        "cpu-long": replace(_SMALL, name="cpu-long", table_steps=10_000, sweep_steps=2_000),
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
            sentence="At this scale networks have the paper's sizes.",
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
            sentence="At this scale networks and epochs are the paper's; batch and learning rates are ours.",
        ),
    }
)


def load_scale(name: str) -> Scale:
    """Return a scale by name.

    Raises:
        ConfigError: an unknown name.
    """
    if name not in SCALES:
        raise ConfigError(unknown_name("scale", name, SCALES))
    return SCALES[name]


def planned_steps(row: RowPlan, scale: Scale, image_count: int, *, ade20k: bool, batch_size: int | None = None) -> int:
    """Return the number of optimiser steps of a row's own training, over all stages; 0 if it trains nothing.

    Args:
        image_count: number of training images, from which the steps of the paper's epochs follow.
        ade20k: whether to take the paper's lengths for ADE20K instead of those for Cityscapes.
        batch_size: number of images of a step, from which the steps of the paper's epochs follow too; None takes that
            of the scale.
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
    return -(-length.epochs[ade20k] * image_count // (batch_size or planned_batch(row, scale, ade20k=ade20k)))


def planned_batch(row: RowPlan, scale: Scale, *, ade20k: bool) -> int:
    """Return the number of images in a batch of a trained row, before the user's overrides."""
    own = row.source.batch if isinstance(row.source, Trained) and scale.is_papers else None
    return scale.batch_size if own is None else own[ade20k]


def changes_of(
    row: RowPlan, scale: Scale, steps: int, more: tuple[str, ...] = (), *, ade20k: bool = False
) -> list[str]:
    """Return all overrides `key=value` of a row's recipe; stages have the same shares of the steps as in the recipe.

    Args:
        more: overrides of the user, which win.
        ade20k: whether the row is trained as the paper does on ADE20K.

    Raises:
        ConfigError: the recipe is not in this version of the package, or a key or value is impossible.
    """
    source = row.source
    assert isinstance(source, Trained)
    own = [*source.changes, *scale.changes.get(row.plain_id, scale.changes.get(source.recipe, ()))]
    own += source.on_ade20k if ade20k else ()
    batch_size = planned_batch(row, scale, ade20k=ade20k)
    recipe = load_recipe(source.recipe, own)
    # A change that sets a whole quantizer would undo an earlier change inside it: the order is plan, scale, user.
    lengths = _shares([stage.steps for stage in recipe.stages], steps)
    for number, (stage, length) in enumerate(zip(recipe.stages, lengths, strict=True)):
        own.append(f"stages.{number}.steps={length}")
        for key, value in (("batch_size", batch_size), *_crop(scale)):
            own.append(f"stages.{number}.batches.{key}={value}")
        own += [f"stages.{number}.{key}={value}" for key, value in _schedule(stage, length).items()]
        adversary = to_tree(stage).get("adversary")
        if adversary and adversary["start_step"]:
            own.append(f"stages.{number}.adversary.start_step={adversary['start_step'] * length // stage.steps}")
    own += _revival(recipe, steps)
    own += more
    load_recipe(source.recipe, own)  # so that impossible values are found before anything is trained
    return own


def _revival(recipe: Recipe, steps: int) -> list[str]:
    """Return overrides that revive dead codes eight times, if a training is too short to revive them twice otherwise.

    With the `usage_decay` of 0.98 a code counts as dead after 173 steps, so 150 steps would never revive one.
    """
    quantizer = recipe.model.quantizer if isinstance(recipe, VqRecipe) else None
    if not isinstance(quantizer, VqConfig) or quantizer.revive_below == 0:
        return []
    if quantizer.usage_decay**steps <= quantizer.revive_below**2:
        return []
    return [f"model.quantizer.usage_decay={quantizer.revive_below ** (8.0 / steps):.4f}"]


def _schedule(stage: StageConfig, steps: int) -> dict[str, float]:
    """Return warm-up, ramp and averaging of a stage that is shorter than in its recipe.

    A moving average covers about 1 / (1 - decay) steps; with a tenth of the training, the start has no effect.
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
    """Return `total` steps in the proportions of `lengths`, each at least 1; the last one takes the remainder."""
    shares = [max(1, round(total * length / sum(lengths))) for length in lengths]
    shares[-1] = max(1, total - sum(shares[:-1]))
    return shares


def recipe_of(row: RowPlan, changes: list[str]) -> Recipe:
    """Return the recipe of a row with its overrides; errors are those of `load_recipe`."""
    assert isinstance(row.source, Trained)
    return load_recipe(row.source.recipe, changes)


def share_trainings(rows: Sequence[RowPlan], changes: Mapping[str, list[str]]) -> tuple[RowPlan, ...]:
    """Return the rows, of which those with equal trainings borrow the codec of the first of them.

    Args:
        rows: rows in the order in which they are made.
        changes: all overrides of each trained row by its id; rows that are missing here share nothing.
    """
    first_of: dict[str, str] = {}
    twin_of: dict[str, str] = {}
    shared = []
    for row in rows:
        source = row.source
        if isinstance(source, Trained) and row.row_id in changes:
            start = None if source.init is None else twin_of.get(source.init, source.init)
            training = json.dumps([recipe_tree(row, changes[row.row_id]), source.seed, start], sort_keys=True)
            first = first_of.setdefault(training, row.row_id)
            twin_of[row.row_id] = first
            own = first == row.row_id
            row = replace(row, source=replace(source, init=start) if own else Borrowed(first))
        shared.append(row)
    return tuple(shared)


def recipe_tree(row: RowPlan, changes: list[str]) -> dict[str, object]:
    """Return the recipe as plain values for settings and keys, without texts, on which no number depends.

    Defaults are left out, so that finished rows stay valid if a later version adds a setting.
    """
    tree = recipe_of(row, changes).model_dump(mode="json", exclude_defaults=True)
    return {key: value for key, value in tree.items() if key not in ("name", "description", "reference")}
