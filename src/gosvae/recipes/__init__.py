"""Recipes by name: the YAML files beside this one, and one's own files."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from gosvae.config import apply_overrides, load_yaml, parse
from gosvae.errors import ConfigError, unknown_name
from gosvae.training.autoencoder import AutoencoderRecipe
from gosvae.training.codecs import TrainableRecipe, VqRecipe
from gosvae.training.experts import ExpertRecipe
from gosvae.training.gesco import GescoRecipe
from gosvae.training.variable import VariableRateRecipe

Recipe = TrainableRecipe | ExpertRecipe
RECIPE_KINDS: dict[str, type[TrainableRecipe] | type[ExpertRecipe]] = {
    "codec": VqRecipe,
    "autoencoder": AutoencoderRecipe,
    "gesco": GescoRecipe,
    "variable-rate": VariableRateRecipe,
    "expert": ExpertRecipe,
}
"""What the `kind` of a recipe's file makes of it."""


def recipe_names() -> list[str]:
    """Names of the recipes in the package."""
    folder = Path(str(resources.files(__name__)))
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_recipe(name_or_path: str, overrides: list[str] | None = None) -> Recipe:
    """Load a recipe of the package by name, or a YAML file by path, with `key=value` overrides.

    Raises:
        ConfigError: an unknown name, unknown keys, or values that are not possible.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml", ".json"):
        if name_or_path not in recipe_names():
            raise ConfigError(unknown_name("recipe", name_or_path, recipe_names()))
        path = Path(str(resources.files(__name__))) / f"{name_or_path}.yaml"
    tree: Any = load_yaml(path)
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} is not a recipe: expected keys and values")
    tree = apply_overrides(tree, overrides or [])
    kind = tree.get("kind", "codec")
    if kind not in RECIPE_KINDS:
        raise ConfigError(f"recipe {path.stem!r}: {unknown_name('kind', str(kind), RECIPE_KINDS)}")
    return parse(RECIPE_KINDS[kind], tree, source=f"recipe {path.stem!r}")
