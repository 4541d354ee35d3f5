"""Configuration: what cannot be used is named in one line, with what is known nearby."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gosvae.config import apply_overrides, load_yaml, parse, to_tree
from gosvae.errors import ConfigError
from gosvae.recipes import load_recipe
from gosvae.training.machine.config import RunConfig, StageConfig
from gosvae.training.vq import VqRecipe
from tiny import recipe_tree


def refusal(tree: Any, *overrides: str) -> str:
    """The one-line message with which a recipe is refused."""
    with pytest.raises(ConfigError) as caught:
        parse(VqRecipe, apply_overrides(tree, list(overrides)), source="recipe 'x'")
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    return message


@pytest.mark.parametrize(
    ("override", "where", "near"),
    [
        ("modle=1", "modle", "model"),
        ("model.quantiser=1", "model.quantiser", "quantizer"),
        ("model.autoencoder.strid=8", "model.autoencoder.strid", "stride"),
        ("model.quantizer.codebok_size=8", "model.quantizer.codebok_size", "codebook_size"),
        ("stages.0.learning_rat=1", "stages.0.learning_rat", "learning_rate"),
        ("stages.1.batches.crop_hight=8", "stages.1.batches.crop_hight", "crop_height"),
    ],
)
def test_unknown_keys_are_named_with_the_nearest_known_one_at_any_depth(override: str, where: str, near: str) -> None:
    message = refusal(recipe_tree(), override)
    assert f" {where}: unknown key {where.split('.')[-1]!r}; did you mean {near!r}?" in message


def test_hints_come_from_the_kind_that_was_chosen() -> None:
    message = refusal(recipe_tree("fsq"), "model.quantizer.level=8")
    assert "did you mean 'levels'?" in message
    assert "codebook_size" not in message
    assert "model.quantizer.level:" in message  # as a user writes it, without the kind


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("stages.0.steps=many", ("stages.0.steps", "valid integer", "'many'")),
        ("stages.0.steps=0", ("stages.0.steps", "greater than or equal to 1", "'0'")),
        ("stages.0.steps=2.5", ("stages.0.steps", "integer", "2.5")),
        ("stages.0.weights={}", ("stages.0.weights", "at least 1")),
        ("stages.0.weights={mse: .nan}", ("stages.0.weights.mse", "finite")),
        ("stages.0.weights=[1]", ("stages.0.weights", "dictionary")),
        ("stages.1.name=pixels", ("stages", "different names", "pixels, pixels")),
        ("stages.0.name=../up", ("stages.0.name", "pattern")),
        ("stages=[]", ("stages", "at least 1")),
        ("model.autoencoder.stride=3", ("model.autoencoder.stride", "expected 2, 4, 8, 16, 32 or 64", "'3'")),
        ("model.autoencoder=5", ("model.autoencoder", "'5'")),
        ("model.autoencoder.architecture=deep", ("model.autoencoder.architecture", "'shallow'", "'deep'")),
        ("model.quantizer.kind=vqq", ("model.quantizer", "unknown kind 'vqq'; did you mean 'vq'?")),
        ("model.quantizer={codebook_size: 4}", ("model.quantizer", "'kind'")),
        ("model.quantizer=vq", ("model.quantizer", "vq")),
    ],
)
def test_impossible_values_say_where_what_and_what_was_expected(override: str, parts: tuple[str, ...]) -> None:
    message = refusal(recipe_tree(), override)
    for part in ("recipe 'x': ", *parts):
        assert part in message


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("steps", "expected key=value"),
        ("=3", "expected key=value"),
        ("stages.2.steps=3", "'2' is no position in the list: give 0 to 1"),
        ("stages.-1.steps=3", "'-1' is no position"),
        ("stages.first.steps=3", "'first' is no position"),
        ("name.first=3", "'name' is a value, it has no keys"),
        ("name=[1", "'[1' is not a YAML value"),
    ],
)
def test_impossible_overrides_are_refused(override: str, reason: str) -> None:
    assert reason in refusal(recipe_tree(), override)


def test_overrides_change_a_copy_and_read_numbers_as_people_write_them() -> None:
    tree = recipe_tree()
    changed = apply_overrides(
        tree, ["stages.1.learning_rate=1e-3", "model.autoencoder.decoder_width=12", "reference=R"]
    )
    assert tree == recipe_tree()
    recipe = parse(VqRecipe, changed)
    assert recipe.stages[1].learning_rate == 0.001
    assert recipe.model.autoencoder.decoder_width == 12
    assert recipe.reference == "R"


def test_a_configuration_survives_its_file_format() -> None:
    recipe = parse(VqRecipe, recipe_tree("fsq"))
    assert parse(VqRecipe, to_tree(recipe)) == recipe
    with pytest.raises(ValueError, match=r"frozen"):
        recipe.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: b: c\n", "line 1: mapping values are not allowed here"),
        ("a: 1\nb: [1, 2\n", "line 3"),
        ("a: \x00\n", "special characters"),
    ],
)
def test_damaged_yaml_says_where(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"not valid YAML") as caught:
        load_yaml(path)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_or_foreign_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No such file"):
        load_yaml(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match=r"not valid YAML"):
        load_recipe(str(tmp_path / "binary.yaml"))
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match=r"expected keys and values"):
        load_recipe(str(tmp_path / "list.yaml"))
    with pytest.raises(ConfigError, match=r"expected a mapping of keys to values, got list"):
        parse(RunConfig, [1])


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^stage: steps: Field required$"):
        parse(StageConfig, {"name": "a", "weights": {"mse": 1.0}}, source="stage")
