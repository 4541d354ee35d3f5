"""Recipes by name (the YAML files of this folder) or by the path of a file."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from gosvae.config import apply_overrides, load_yaml, parse
from gosvae.errors import ConfigError, unknown_name
from gosvae.training.autoencoder import AutoencoderRecipe
from gosvae.training.codecs import TrainableRecipe
from gosvae.training.experts import ExpertRecipe
from gosvae.training.gesco import GescoRecipe
from gosvae.training.variable import VariableRateRecipe
from gosvae.training.vq import VqRecipe

Recipe = TrainableRecipe | ExpertRecipe
RECIPE_KINDS: dict[str, type[TrainableRecipe] | type[ExpertRecipe]] = {
    "codec": VqRecipe,
    "autoencoder": AutoencoderRecipe,
    "gesco": GescoRecipe,
    "variable-rate": VariableRateRecipe,
    "expert": ExpertRecipe,
}
"""Class of a recipe by the `kind` in its file."""

_FORMER_KEYS = {
    "losses": "this key is called 'erasures' since version 0.2.0",
    "finer": "this key was removed in version 0.2.0",
    "new_from": "this key was removed in version 0.2.0",
    "wake": "this key was removed in version 0.2.0",
}
"""Reasons why keys of earlier versions, all of kind `variable-rate`, are refused."""


def recipe_names() -> list[str]:
    """Return the names of the recipes in the package."""
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
    if not isinstance(kind, str) or kind not in RECIPE_KINDS:
        raise ConfigError(f"recipe {path.stem!r}: {unknown_name('kind', str(kind)[:80], RECIPE_KINDS)}")
    for key, reason in _FORMER_KEYS.items() if kind == "variable-rate" else ():
        if key in tree:
            raise ConfigError(f"recipe {path.stem!r}: {key}: {reason}")
    return parse(RECIPE_KINDS[kind], tree, source=f"recipe {path.stem!r}")
