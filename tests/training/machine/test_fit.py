"""What all trainings share: the folders and notes of a result, and the key by which a run is continued."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gosvae.codecs.checkpoint import load_codec_checkpoint
from gosvae.codecs.registry import checkpoint_folder, load_vq_codec
from gosvae.codecs.vq import VqCodec
from gosvae.config import apply_overrides, parse
from gosvae.experts.base import NetworkExpert
from gosvae.experts.registry import load_expert
from gosvae.recipes import load_recipe
from gosvae.training.adaptation import Adaptation, adaptation_stage
from gosvae.training.codecs import CodecTraining, TrainableRecipe
from gosvae.training.entropy import ContextTraining, default_recipe
from gosvae.training.experts import ExpertRecipe, ExpertTraining, train_expert
from gosvae.training.machine.fit import Trainable, fit
from gosvae.training.machine.loop import run_key
from gosvae.training.vq import VqRecipe
from tiny import recipe_tree, run_config, streets

SMALL = {"batch_size": 1, "crop_height": 64, "crop_width": 64}
SMALLER = "{batch_size: 1, crop_height: 32, crop_width: 32}"


def from_scratch() -> Trainable:
    recipe = parse(VqRecipe, apply_overrides(recipe_tree(), ["stages.1.weights={mse: 1}"]))
    return CodecTraining(recipe, streets(), streets(), None, None, None)


def from_another_codec() -> Trainable:
    changes = ["model.quantizer.codebook_size=4", "stages.0.weights={jsd: 1.0}", f"stages.0.batches={SMALLER}"]
    recipe = load_recipe("gosvae-finetune", changes)
    assert isinstance(recipe, TrainableRecipe)
    start = checkpoint_folder("gosvae-k4-camvid")
    return CodecTraining(recipe, streets(), streets(), load_expert("embedded"), None, start)


def expert_recipe(*names: str) -> ExpertRecipe:
    batches = {"batch_size": 1, "crop_height": 32, "crop_width": 32}
    stages = [{"name": name, "weights": {"cross_entropy": 1.0}, "steps": 3, "batches": batches} for name in names]
    return parse(ExpertRecipe, {"name": "e", "description": "d", "stages": stages})


def codec() -> VqCodec:
    return load_vq_codec("gosvae-k4-camvid")


def context() -> Trainable:
    recipe = default_recipe(3)
    stage = recipe.stages[0]
    stage = stage.model_copy(update={"batches": stage.batches.model_copy(update=SMALL)})
    return ContextTraining(recipe.model_copy(update={"stages": (stage,)}), codec(), streets())


def adaptation() -> Trainable:
    stage = adaptation_stage(3)
    stage = stage.model_copy(update={"batches": stage.batches.model_copy(update=SMALL)})
    expert = load_expert("embedded")
    assert isinstance(expert, NetworkExpert)
    return Adaptation(codec(), expert, streets(), stage)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (from_scratch, "3e33b21bfa05c85de1cb7fb4551f5edd57ae3602fb9da453a79e8eb9dde7a4c6"),
        (from_another_codec, "98621bdb3dbf969edf15450e58e6aefa3837300ed8988f27a5a7c938b72d28fd"),
        (
            lambda: ExpertTraining(expert_recipe("s"), streets(), (64, 96)),
            "f668f0f092393d657d576fd0677b068e35b0f523c032319e6a7745a4da9c8dae",
        ),
        (context, "5eed4ab57e4b467b2ea456ca43fb5e02bf905364ffb27f3c680aadfa9e9fecc1"),
        (adaptation, "ef19d24339e2b2bd718a33caf73bd1050a7707b3889a1124de159376655a4f03"),
    ],
)
def test_runs_that_version_0_1_began_are_continued(make: Callable[[], Trainable], key: str) -> None:
    """The keys stand in the states of such runs."""
    what = make()
    assert run_key(what.stages, run_config(), what.inputs(), what.task().network) == key


def test_each_stage_leaves_its_result_and_the_last_one_is_that_of_the_run(tmp_path: Path) -> None:
    run = run_config(seed=3)
    assert train_expert(expert_recipe("one", "two"), streets(), (64, 96), run, tmp_path, progress=False).complete
    notes = {
        name: json.loads((tmp_path / name / "provenance.json").read_text()) for name in ("stages/one", "stages/two", "")
    }
    assert notes["stages/one"]["stages"] == {"one": 3}
    assert notes[""] == notes["stages/two"]
    assert notes[""]["stages"] == {"one": 3, "two": 3}
    assert notes[""]["run"]["seed"] == 3
    first, last = (load_expert(tmp_path / name).fingerprint() for name in ("stages/one", "."))
    assert first != last
    assert load_expert(tmp_path / "stages/two").fingerprint() == last


def test_a_context_model_is_trained_for_a_codec_that_stays_the_same(tmp_path: Path) -> None:
    assert fit(context(), run_config(), tmp_path, progress=False).complete
    found = load_codec_checkpoint(tmp_path)
    assert found.fingerprint() == codec().checkpoint.fingerprint()
    assert found.provenance["context"]["stages"] == {"context": 3}
    assert {"run", "recipe", "minutes_of_stage"} <= found.provenance["context"].keys()
