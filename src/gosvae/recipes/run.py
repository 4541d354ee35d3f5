"""Training from names of a recipe, a data set and an expert."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from gosvae.datasets.base import Dataset
from gosvae.datasets.geometry import GeometryConfig
from gosvae.datasets.mixture import load_prepared
from gosvae.datasets.objects import ObjectsAsLabels
from gosvae.errors import ConfigError
from gosvae.experts.base import Expert, TaskExpert
from gosvae.experts.registry import load_task_expert
from gosvae.losses.perceptual import default_perceptual, load_perceptual, perceptual_place
from gosvae.precision import mixes
from gosvae.recipes import load_recipe
from gosvae.tasks.group import ExpertGroup, balance, parse_experts
from gosvae.training.codecs import TrainableRecipe, train_codec
from gosvae.training.machine.config import RunConfig, StageConfig
from gosvae.training.machine.loop import Outcome, device_type

_CLASSES_SHOWN = 12


def train(
    recipe: str,
    data: str,
    *,
    expert: str | Path | Sequence[str] | None = None,
    trust: bool = False,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    geometry: GeometryConfig | None = None,
    lpips: str = "auto",
    weights: Path | None = None,
    init: Path | None = None,
    run: RunConfig | None = None,
    max_minutes: float | None = None,
    progress: bool = True,
    tell: Callable[[str], None] | None = None,
) -> Outcome:
    """Train a codec; the same call continues a run that was stopped.

    Args:
        recipe: name of a recipe of the package, or path of a YAML file.
        data: images, such as `folder:my-images` or `camvid:PATH` (see `load_prepared`).
        expert: expert of any task, named as for `load_expert`; recipes that imitate need one. A sequence names several,
            each with a name and a weight as in `("a=seg.pt2", "b=det.onnx:0.5")`; their distances are balanced by how
            far each expert is from its own output on images at an eighth of their size.
        trust: whether a `.pt2` or TorchScript file, which is a program, may be loaded as an expert.
        out: folder of the run and of the finished codec; `runs/NAME` by default.
        overrides: `key=value` changes of the recipe.
        geometry: size of the images, in place of the dataset's own.
        lpips: name of the perceptual distance; `auto` takes the first one whose weights are found.
        weights: folder of the weights of the perceptual distance.
        init: checkpoint folder of a codec to start from.
        run: options of the run, such as seed, devices and precision.
        max_minutes: minutes after which the run stops cleanly.
        progress: whether to show a progress bar.
        tell: function that gets lines on the run before its first step, such as `print`.

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
    frozen = load_experts(expert, trust=trust) if chosen.needs_expert and expert is not None else None
    judged = "lpips" in chosen.wanted_terms and lpips != "none"
    name = default_perceptual(weights) if lpips == "auto" and judged else lpips
    perceptual = load_perceptual(name, weights) if judged else None
    cache_bytes = run.cache_mib * 2**20
    seen = load_prepared(data, default_split="train", geometry=geometry, centre_crop=False, cache_bytes=cache_bytes)
    used = load_prepared(data, default_split="train", geometry=geometry)
    if chosen.needs_objects:
        seen, used = ObjectsAsLabels(seen), ObjectsAsLabels(used)
    scales: dict[str, float] = {}
    if isinstance(frozen, ExpertGroup):
        scales = balance(frozen, used)
    folder = Path(out) if out is not None else Path("runs") / chosen.name
    if tell is not None:
        place = perceptual_place(name, weights) if judged else None
        for line in description(chosen, used, frozen, name if judged else None, place, run):
            tell(line)
        if expert is not None and frozen is None:
            tell(f"expert: not used, no term of the recipe {chosen.name!r} imitates one")
        for each, scale in scales.items():
            tell(f"expert {each}: distance {scale:.4g} between images and their eighth of the size")
    return train_codec(
        chosen,
        seen,
        used,
        frozen,
        perceptual,
        run,
        folder,
        init=init,
        max_minutes=max_minutes,
        progress=progress,
        tell=tell,
    )


def load_experts(named: str | Path | Sequence[str], *, trust: bool = False) -> TaskExpert:
    """Return the expert that a name stands for, or a group of several."""
    texts = [str(named)] if isinstance(named, str | Path) else list(named)
    named_experts = parse_experts(texts)
    if len(named_experts) == 1:
        (one,) = named_experts
        only = load_task_expert(one.spec, trust=trust)
        name = one.name if texts[0].startswith(f"{one.name}=") else only.info.name
        return only if isinstance(only, Expert) else ExpertGroup([(name, only, 1.0)])
    return ExpertGroup([(each.name, load_task_expert(each.spec, trust=trust), each.weight) for each in named_experts])


def description(
    recipe: TrainableRecipe,
    used: Dataset,
    expert: TaskExpert | None,
    distance: str | None,
    distance_place: str | None,
    run: RunConfig,
) -> list[str]:
    """Return lines that say what is going to be trained, with what, and on which device."""
    height, width = used[0].image_uint8_HW3.shape[:2]
    lines = [f"recipe: {recipe.name}: {recipe.description}"]
    if expert is not None:
        members = zip(expert.names, expert.experts(), strict=True) if isinstance(expert, ExpertGroup) else None
        for name, each in members or [(expert.info.name, expert)]:
            names = each.info.class_names
            shown = ", ".join(names[:_CLASSES_SHOWN]) + (", ..." if len(names) > _CLASSES_SHOWN else "")
            classes = f", {len(names)} classes: {shown}" if names else ""
            lines.append(f"expert: {name}{'' if isinstance(each, Expert) else f', {each.task}'}{classes}")
    if distance is not None:
        lines.append(f"perceptual distance: {distance}, weights from {distance_place}")
    lines.append(f"images: {len(used)} of {used.name}, the first {height}x{width} pixels (height x width)")
    stages = [f"{stage.name} {stage.steps} steps of {_batch(stage)}" for stage in recipe.stages]
    device = device_type(run.accelerator)
    bits = "bf16" if mixes(device, run.precision) else "32 bits"
    return [*lines, f"device: {run.devices} x {device}, {bits}", f"stages: {'; '.join(stages)}"]


def _batch(stage: StageConfig) -> str:
    batches = stage.batches
    size = f"crops of {batches.crop_height}x{batches.crop_width}" if batches.crop_height else "whole images"
    return f"{batches.batch_size} {size}"
