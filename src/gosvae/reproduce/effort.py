"""Sentences on how the learned rows were trained, made from their recipes and records."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gosvae.quantizers import VqConfig
from gosvae.reproduce.job import World
from gosvae.reproduce.plan import RowPlan, Trained
from gosvae.reproduce.records import RowRecord
from gosvae.reproduce.results import Result
from gosvae.reproduce.scales import recipe_of
from gosvae.training.codecs import TrainableRecipe
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
        "precision": lambda one: _PRECISIONS[one.record.precision],
    }
    told = "; ".join(f"{name} {of_each(value_of)}" for name, value_of in facts.items())
    sentences = [f"Learned rows: {told}."]
    if world.job.changes:
        sentences.append(f"Changes of the user, which this includes: {', '.join(world.job.changes)}.")
    return [*sentences, *_revival(found)]


def _revival(found: Sequence[_Training]) -> list[str]:
    """Return a sentence on the steps after which unused codes are revived."""
    after = {}
    for one in found:
        quantizer = one.recipe.model.quantizer if isinstance(one.recipe, VqRecipe) else None
        if isinstance(quantizer, VqConfig) and quantizer.revive_below > 0:
            after[one.title] = str(int(math.log(quantizer.revive_below) / math.log(quantizer.usage_decay)))
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
