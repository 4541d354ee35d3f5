"""Imitation terms of one frozen expert, of a whole batch or in micro-batches.

Axis legend: B images, m classes, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gosvae.errors import ConfigError
from gosvae.experts.base import Expert, TaskExpert
from gosvae.experts.compact import balanced_class_weights
from gosvae.losses.divergence import ImitationKind, imitation_loss
from gosvae.tasks.base import AnyTask, MeanOfImages
from gosvae.training.judging import joined, mean_in_parts, outputs_in_parts
from gosvae.training.originals import OriginalsCache

IMITATION: tuple[ImitationKind, ...] = ("jsd", "kld", "ce")
FEATURES = "features"


def task_terms(
    expert: TaskExpert,
    task: AnyTask,
    kinds: Sequence[ImitationKind],
    x_B3HW: Tensor,
    x_hat_B3HW: Tensor,
    parts: list[slice],
    scale: float,
) -> dict[str, Tensor]:
    """Return the distance of an expert's task under the name of each kind, and 0 for `features`.

    Args:
        parts: slices of the images that the expert takes at once.
        scale: weight of the distance in the total, see `Judging`.
    """
    with torch.no_grad():
        originals = [expert(x_B3HW[part]) for part in parts]
    if len(parts) > 1 and isinstance(task, MeanOfImages):
        of_part = dict(zip((part.start for part in parts), originals, strict=True))

        def share(part: slice, y: Tensor) -> Tensor:
            distances_B: Tensor = task.image_distances(of_part[part.start], expert(y))
            return distances_B.sum() / len(x_hat_B3HW)

        distance = mean_in_parts(share, x_hat_B3HW, parts, scale)
    else:
        distance = task.distance(joined(originals), joined(outputs_in_parts(expert, x_hat_B3HW, parts)))
    return {**dict.fromkeys(kinds, distance), FEATURES: x_hat_B3HW.new_zeros(())}


def segmentation_terms(
    expert: Expert,
    layers: tuple[str, ...],
    kinds: Sequence[ImitationKind],
    x_B3HW: Tensor,
    x_hat_B3HW: Tensor,
    parts: list[slice],
    scale: float,
    *,
    cache: OriginalsCache | None = None,
    balance_classes: bool,
) -> dict[str, Tensor]:
    """Return the terms of a segmentation expert, always including `features`.

    Args:
        layers: names of the modules whose outputs are compared for `features`.
        parts: slices of the images that the expert takes at once.
        scale: weight of the kinds together in the total, see `Judging`.
        cache: cache of the logits of originals, or None.
        balance_classes: whether pixels are weighted by `rarity`.
    """
    with torch.no_grad():
        if cache is None or layers:
            originals = [_watched(expert, layers, x_B3HW[part]) for part in parts]
        else:
            originals = [(cache.logits(expert, x_B3HW[part]),) for part in parts]
    logits_BmHW = joined([logits for logits, *_ in originals])
    weights_BHW = rarity(logits_BmHW) if balance_classes else None
    if len(parts) > 1 and len(kinds) == 1 and not layers:
        # One term needs one backward pass of the expert, and its gradient can be taken at once.

        def term(part: slice, part_B3HW: Tensor) -> Tensor:
            weights = None if weights_BHW is None else weights_BHW[part]
            return imitation_loss(kinds[0], logits_BmHW[part], expert(part_B3HW), weights, images=len(x_hat_B3HW))

        return {kinds[0]: mean_in_parts(term, x_hat_B3HW, parts, scale), FEATURES: x_hat_B3HW.new_zeros(())}
    seen = outputs_in_parts(lambda part_B3HW: _watched(expert, layers, part_B3HW), x_hat_B3HW, parts)
    logits_hat_BmHW = joined([logits for logits, *_ in seen])
    terms: dict[str, Tensor] = {kind: imitation_loss(kind, logits_BmHW, logits_hat_BmHW, weights_BHW) for kind in kinds}
    pairs = zip(_layer_by_layer(originals), _layer_by_layer(seen), strict=True)
    distances = [_relative_distance(f, f_hat) for f, f_hat in pairs]
    mean = torch.stack(distances).mean() if distances else x_hat_B3HW.new_zeros(())
    return {**terms, FEATURES: mean}


def _watched(expert: Expert, layers: tuple[str, ...], x_B3HW: Tensor) -> tuple[Tensor, ...]:
    """Return the logits of the expert, then the outputs of the layers in the order in which they ran."""
    features: list[Tensor] = []

    def keep(module: nn.Module, _inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise ConfigError(f"feature_layers: {type(module).__name__} does not return one tensor: name another")
        features.append(output)

    hooks = [expert.get_submodule(name).register_forward_hook(keep) for name in layers]
    try:
        logits_BmHW: Tensor = expert(x_B3HW)
    finally:
        for hook in hooks:
            hook.remove()
    return logits_BmHW, *features


def _layer_by_layer(outputs: list[tuple[Tensor, ...]]) -> list[Tensor]:
    """Return the features of all parts by layer; flat if there are several parts, as any axis may be that of images."""
    if len(outputs) == 1:
        return list(outputs[0][1:])
    return [
        torch.cat([f.flatten() for f in of_parts]) for of_parts in zip(*(each[1:] for each in outputs), strict=True)
    ]


def _relative_distance(f: Tensor, f_hat: Tensor) -> Tensor:
    f = f.float()
    return (f_hat.float() - f).square().mean() / f.square().mean().clamp_min(1e-12)


def rarity(logits_BmHW: Tensor) -> Tensor:
    """Return weights (B, H, W) of the pixels, mean 1: the rarer the class in the batch, the larger the weight."""
    m = logits_BmHW.shape[1]
    classes_BHW = logits_BmHW.argmax(dim=1)
    counts_m = torch.bincount(classes_BHW.flatten(), minlength=m)
    weights_BHW = balanced_class_weights(counts_m).to(logits_BmHW.device)[classes_BHW]
    return weights_BHW / weights_BHW.mean()
