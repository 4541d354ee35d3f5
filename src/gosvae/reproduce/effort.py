"""Sentences on how the learned rows were trained, made from their recipes and records."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gosvae.quantizers import VqConfig, VqEmaConfig
from gosvae.reproduce.job import World
from gosvae.reproduce.plan import RowPlan, Trained
from gosvae.reproduce.records import RowRecord
from gosvae.reproduce.results import Result
from gosvae.reproduce.scales import recipe_of
from gosvae.training.codecs import TrainableRecipe
from gosvae.training.gesco import GescoRecipe
from gosvae.training.machine.config import StageConfig
from gosvae.training.vq import VqRecipe

_PRECISIONS = {"bf16": "bf16", "32": "32 bits", None: "not recorded"}


@dataclass(frozen=True)
class _Training:
    """A finished training with the plan's own settings."""

    title: str
    record: RowRecord
    recipe: TrainableRecipe

    @property
    def stage(self) -> StageConfig:
        """The last stage."""
        return self.recipe.stages[-1]


def _trainings(world: World, results: Mapping[str, Result], rows: Sequence[RowPlan]) -> list[_Training]:
    found = []
    for row in rows:
        result = results[row.row_id]
        if (
            not result.is_done
            or result.record is None
            or not result.record.steps
            or not isinstance(row.source, Trained)
        ):
            continue
        recipe = recipe_of(row, world.changes_of(row))
        assert isinstance(recipe, TrainableRecipe)
        plain = results.get(row.plain_id, result)  # repetitions with other seeds stand under one title
        found.append(_Training(plain.plan.title, result.record, recipe))
    return found


def shared(values: Mapping[str, str]) -> str:
    """Return the value that most titles have, followed by the others: `500 (VQ-GAN: 300)`."""
    if not values:
        return ""
    usual = Counter(values.values()).most_common(1)[0][0]
    others: dict[str, list[str]] = {}
    for title, value in values.items():
        if value != usual:
            others.setdefault(value, []).append(title)
    told = "; ".join(f"{', '.join(titles)}: {value}" for value, titles in others.items())
    return f"{usual} ({told})" if told else usual


def _by_title(found: Sequence[_Training], value_of: Callable[[_Training], object]) -> dict[str, str]:
    """Return a fact of each row; that of a row with several seeds lists what differs between them."""
    values: dict[str, dict[str, None]] = {}
    for one in found:
        values.setdefault(one.title, {})[str(value_of(one))] = None
    return {title: ", ".join(of_seeds) for title, of_seeds in values.items()}


def training(world: World, results: Mapping[str, Result], rows: Sequence[RowPlan]) -> list[str]:
    """Return sentences on the trainings of those rows that are done with the plan's settings."""
    found = _trainings(world, results, rows)
    if not found:
        return []
    images = len(world.train_images)

    def of_each(value_of: Callable[[_Training], object]) -> str:
        return shared(_by_title(found, value_of))

    def batch(one: _Training) -> int:
        return one.record.batch_size or 1

    facts: dict[str, Callable[[_Training], object]] = {
        "optimiser steps": lambda one: f"{one.record.own_steps:,}",
        "images a step": batch,
        "epochs": lambda one: f"{one.record.own_steps * batch(one) / images:.1f}",
        "learning rate of AdamW": lambda one: f"{one.stage.learning_rate:g}",
        "weight decay": lambda one: f"{one.stage.weight_decay:g}",
        "largest gradient norm": lambda one: f"{one.stage.clip_norm:g}",
        "decay of the averaged weights": lambda one: f"{one.stage.ema_decay:g}",
        "seed": lambda one: one.record.seed,
        "size of an image": _image_size,
        "precision": lambda one: _PRECISIONS[one.record.precision],
    }
    told = "; ".join(f"{name} {of_each(value_of)}" for name, value_of in facts.items())
    sentences = [f"Learned rows: {told}."]
    if any(one.stage.batches.crop_height is not None for one in found):
        sentences.append("In the number of epochs, a crop counts as an image.")
    if world.job.changes:
        sentences.append(f"Changes of the user, which this includes: {', '.join(world.job.changes)}.")
    return [*sentences, *_revival(found)]


def _image_size(one: _Training) -> str:
    batches = one.stage.batches
    return "whole" if batches.crop_height is None else f"a crop of {batches.crop_height}x{batches.crop_width}"


def _revival(found: Sequence[_Training]) -> list[str]:
    """Return a sentence on the steps after which unused codes are revived."""
    after = {}
    for one in found:
        quantizer = one.recipe.model.quantizer if isinstance(one.recipe, VqRecipe) else None
        if isinstance(quantizer, VqConfig) and quantizer.revive_below > 0:
            steps = int(math.log(quantizer.revive_below) / math.log(quantizer.usage_decay))
            after[one.title] = str(steps) if steps <= one.record.own_steps else f"{steps}, which it does not reach"
    if not after:
        return []
    return [f"Codes that are never used are revived for the first time after this number of steps: {shared(after)}."]


def codebook_weights(world: World, results: Mapping[str, Result], rows: Sequence[RowPlan]) -> str:
    """Return a sentence on the weights of the codebook terms, which are means over channels here."""
    weights = {
        one.title: f"{one.stage.weights.get('codebook', 0.0):g} and {one.stage.weights.get('commitment', 0.0):g}"
        for one in _trainings(world, results, rows)
        if isinstance(one.recipe, VqRecipe)
    }
    if not weights:
        return ""
    return f"Weights of the codebook and commitment terms, which are means over the channels here: {shared(weights)}."


def sampling(world: World, rows: Sequence[RowPlan]) -> list[str]:
    """Return a sentence on the sampling of GESCO's rows, if there are some."""
    told = {}
    for row in rows:
        if isinstance(row.source, Trained) and row.repeats is None:
            recipe = recipe_of(row, world.changes_of(row))
            if isinstance(recipe, GescoRecipe):
                told[row.title] = f"{recipe.model.sampling_steps} steps with a guidance of {recipe.model.guidance:g}"
    return [f"Sampling of GESCO: {shared(told)}. The paper takes 100 steps."] if told else []


def sizes(world: World, rows: Sequence[RowPlan]) -> str:
    """Return the stride r and the number of codes K of VQ rows, such as `r=4, K=512`."""
    told = {}
    for row in rows:
        if isinstance(row.source, Trained):
            recipe = recipe_of(row, world.changes_of(row))
            if isinstance(recipe, VqRecipe) and isinstance(recipe.model.quantizer, VqConfig | VqEmaConfig):
                told[row.title] = f"r={recipe.model.autoencoder.stride}, K={recipe.model.quantizer.codebook_size}"
    return shared(told)


def equal_steps(results: Mapping[str, Result]) -> str:
    """Return a sentence on whether the learned rows of the tables can be compared at equal steps."""
    records = [found.record for found in results.values() if found.record is not None and found.plan.curve is None]
    trained = [record for record in records if record.steps]
    if len({record.own_steps for record in trained}) > 1:
        how = "Learned rows differ in their optimiser steps and in their minutes"
    else:
        how = "Learned rows of the tables are compared at equal optimiser steps, not at equal minutes"
    sentence = f"{how}: each row shows both, minutes without the evaluation."
    started = next((record for record in trained if record.start_steps), None)
    if started is not None:
        steps = f"{started.own_steps:,} after {started.start_steps:,}"
        sentence += f" A row with a pre-trained start has the steps of its VQ-VAE in addition (“{steps}”)."
    return sentence
