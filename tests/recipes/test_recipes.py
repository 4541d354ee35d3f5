"""Every recipe of the package builds, takes two steps on the CPU, saves, loads and compresses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gosvae.codecs.checkpoint import load_codec_checkpoint
from gosvae.codecs.gesco import GescoCodec
from gosvae.codecs.registry import build_codec
from gosvae.codecs.trained import TrainedCodec
from gosvae.codecs.vq import VqCodec
from gosvae.errors import ConfigError
from gosvae.experts.registry import load_expert
from gosvae.recipes import Recipe, load_recipe, recipe_names
from gosvae.tensors import image_to_tensor
from gosvae.training.codecs import TrainableRecipe, train_codec
from gosvae.training.experts import ExpertRecipe, train_expert
from tiny import expert, perceptual, run_config, streets

BATCHES = "{batch_size: 1, crop_height: 32, crop_width: 32}"


TOO_LARGE = {
    "gesco": [
        "model.width=8",
        "model.multipliers=[1, 2]",
        "model.attention_strides=[2]",
        "model.head_width=8",
        "model.spade_width=8",
        "model.sampling_steps=2",
    ]
}
"""Changes of the recipes whose networks take more memory than a test may."""


def shortened(name: str) -> Recipe:
    """A recipe with stages of two steps on few pixels; its terms, and most networks, are as they are."""
    count = len(load_recipe(name).stages)
    quick = [f"stages.{i}.{change}" for i in range(count) for change in ("steps=2", f"batches={BATCHES}")]
    return load_recipe(name, quick + TOO_LARGE.get(name, []))


@pytest.mark.parametrize("name", recipe_names())
def test_two_steps_from_recipe_to_picture(name: str, tmp_path: Path) -> None:
    recipe = shortened(name)
    assert recipe.name == name  # the file's name and the model's are one
    image = streets()[0].image_uint8_HW3
    if isinstance(recipe, ExpertRecipe):
        outcome = train_expert(recipe, streets(2), (64, 96), run_config(), tmp_path, progress=False)
        assert outcome.complete
        trained = load_expert(tmp_path)
        assert trained.info.class_names == streets().class_names
        assert trained.class_map(image_to_tensor(image)).shape == (1, 64, 96)
        return
    outcome = train_codec(
        recipe, streets(2), streets(2), expert(), perceptual(), run_config(), tmp_path, progress=False
    )
    assert (outcome.complete, outcome.step) == (True, 2 * len(recipe.stages))
    codec = loaded(tmp_path)
    assert codec.name == name
    data = codec.compress(image)
    assert codec.decompress(data).shape == image.shape
    if isinstance(codec, VqCodec):
        np.testing.assert_array_equal(codec.decode(data).symbols, codec.indices(image))
    for stage in recipe.stages:
        assert loaded(tmp_path / "stages" / stage.name).name.startswith(name)


def loaded(folder: Path) -> TrainedCodec:
    """The codec of a folder; one that needs its expert gets the tests' own, which no name finds again."""
    checkpoint = load_codec_checkpoint(folder)
    return GescoCodec(checkpoint, expert=expert()) if checkpoint.card.kind == "gesco" else build_codec(checkpoint)


def test_descriptions_are_one_line_and_rows_of_the_paper_say_so() -> None:
    recipes = {name: load_recipe(name) for name in recipe_names()}
    for recipe in recipes.values():
        assert 20 < len(recipe.description) < 150
        assert "\n" not in recipe.description
    rows = [recipe.reference for recipe in recipes.values() if isinstance(recipe, TrainableRecipe) and recipe.reference]
    assert len(rows) >= 9
    assert all(row.startswith("Table ") for row in rows)


def test_ones_own_recipe_and_unknown_ones(tmp_path: Path) -> None:
    source = Path(str(load_recipe.__globals__["resources"].files("gosvae.recipes"))) / "vqvae.yaml"
    path = tmp_path / "mine.yaml"
    path.write_text(source.read_text())
    assert load_recipe(str(path), ["name=mine"]).name == "mine"
    path.write_text("kind: codek\n")
    for name, message in {
        "gosva": "unknown recipe 'gosva'; did you mean 'gosvae'?",
        str(path): "unknown kind 'codek'; did you mean 'codec'?",
        str(tmp_path / "none.yaml"): "No such file or directory",
    }.items():
        with pytest.raises(ConfigError) as caught:
            load_recipe(name)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("losses.share=0.2", "losses: this key is called 'erasures' since version 0.2.0"),
        ("finer=4", "finer: this key was removed in version 0.2.0"),
        ("new_from=160", "new_from: this key was removed in version 0.2.0"),
        ("wake=true", "wake: this key was removed in version 0.2.0"),
    ],
)
def test_a_key_of_an_earlier_version_is_refused_with_its_reason(change: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("gosvae-variable-finetune", [change])
    assert str(caught.value) == f"recipe 'gosvae-variable-finetune': {message}"
    with pytest.raises(ConfigError, match="losses: unknown key 'losses'"):
        load_recipe("gosvae", ["losses.share=0.2"])
