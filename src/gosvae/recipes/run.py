"""Training from names of a recipe, a data set and an expert."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gosvae.datasets.geometry import GeometryConfig
from gosvae.datasets.mixture import load_prepared
from gosvae.errors import ConfigError
from gosvae.experts.registry import load_expert
from gosvae.losses.perceptual import default_perceptual, load_perceptual
from gosvae.recipes import load_recipe
from gosvae.training.codecs import TrainableRecipe, train_codec
from gosvae.training.machine.config import RunConfig
from gosvae.training.machine.loop import Outcome


def train(
    recipe: str,
    data: str,
    *,
    expert: str | Path | None = None,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    geometry: GeometryConfig | None = None,
    lpips: str = "auto",
    weights: Path | None = None,
    init: Path | None = None,
    run: RunConfig | None = None,
    max_minutes: float | None = None,
    progress: bool = True,
) -> Outcome:
    """Train a codec; the same call continues a run that was stopped.

    Args:
        recipe: name of a recipe of the package, or path of a YAML file.
        data: images, such as `folder:my-images` or `camvid:PATH` (see `load_prepared`).
        expert: expert, named as for `load_expert`; recipes that imitate need one.
        out: folder of the run and of the finished codec; `runs/NAME` by default.
        overrides: `key=value` changes of the recipe.
        geometry: size of the images, in place of the dataset's own.
        lpips: name of the perceptual distance; `auto` takes the first one whose weights are found.
        weights: folder of the weights of the perceptual distance.
        init: checkpoint folder of a codec to start from.
        run: options of the run, such as seed, devices and precision.
        max_minutes: minutes after which the run stops cleanly.
        progress: whether to show a progress bar.

    Raises:
        ConfigError: an unknown recipe or key, an impossible value, or a missing expert.
        GosvaeError: as `load_prepared`, `load_expert`, `load_perceptual` and `train_codec`.
    """
    chosen = load_recipe(recipe, list(overrides))
    if not isinstance(chosen, TrainableRecipe):
        raise ConfigError(f"recipe {recipe!r} makes an expert: use gosvae train-expert")
    if chosen.needs_expert and expert is None:
        raise ConfigError(f"recipe {chosen.name!r} needs an expert: name one, such as 'embedded'", argument="expert")
    run = run or RunConfig()
    frozen = load_expert(expert) if chosen.needs_expert and expert is not None else None
    judged = "lpips" in chosen.wanted_terms and lpips != "none"
    name = default_perceptual(weights) if lpips == "auto" and judged else lpips
    perceptual = load_perceptual(name, weights) if judged else None
    cache_bytes = run.cache_mib * 2**20
    seen = load_prepared(data, default_split="train", geometry=geometry, centre_crop=False, cache_bytes=cache_bytes)
    used = load_prepared(data, default_split="train", geometry=geometry)
    folder = Path(out) if out is not None else Path("runs") / chosen.name
    return train_codec(
        chosen, seen, used, frozen, perceptual, run, folder, init=init, max_minutes=max_minutes, progress=progress
    )
