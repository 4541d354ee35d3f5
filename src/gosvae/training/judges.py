"""Frozen networks that judge a reconstruction, and the terms of Eqs. 4 to 8 that they compute.

Axis legend: B images, m classes, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from gosvae.errors import ConfigError
from gosvae.experts.base import Expert, TaskExpert
from gosvae.losses.divergence import ImitationKind, mean_absolute_error, mean_squared_error
from gosvae.losses.pattern import fixed_pattern, repeated_pattern
from gosvae.losses.perceptual import PerceptualLoss
from gosvae.tasks.base import AnyTask
from gosvae.tasks.group import ExpertGroup
from gosvae.tasks.registry import load_task
from gosvae.training.imitation import FEATURES, IMITATION, segmentation_terms, task_terms
from gosvae.training.judging import Judging, kept_bytes, mean_in_parts, memory_budget, parts_of
from gosvae.training.views import ViewConfig

LATTICE, PATTERN = "lattice", "pattern"


class Judges(nn.Module):
    """Terms of a reconstruction, each computed only if a stage weighs it.

    The terms are `mse` and `mae` (pixels in [0, 1]), `lattice` (see `repeated_pattern`), `pattern` (see
    `fixed_pattern`), `lpips`, `jsd`, `kld` and `ce` (nats), and `features`: the squared distance of the expert's inner
    features, relative to their mean square, averaged over layers.

    An expert of another task than segmentation adds the distance of its task (see `gosvae.tasks.base.Task.distance`) to
    each of `jsd`, `kld` and `ce` that is weighed, and nothing to `features`.

    Args:
        expert: frozen expert to imitate, or a group of them, or None.
        perceptual: perceptual distance, or None.
        balance_classes: whether pixels in the imitation terms are weighted by how rare their class is in the expert's
            maps of the batch (weights of Paszke et al. 2016, mean 1), so that poles, signs and people count.
        feature_layers: names of modules of the expert, such as `network.stage8`; None takes those that the expert
            names itself. Without any, `features` is 0.
        more_experts: further experts to imitate, with their own feature layers. Each term is the mean over all
            experts; their classes may differ.
        more_perceptual: further perceptual distances; `lpips` is the mean of all.
        perceptual_images: number of images of a batch for which LPIPS is computed; None takes all.
        views: random views that every expert and every distance is shown; None shows the pictures as they are.
        experts_asked, distances_asked: number of experts and of distances that are drawn for a batch; None asks all.
            The terms are then means over those, and many judges cost no more than a few.

    Raises:
        ConfigError: the expert has no module of that name.
    """

    def __init__(
        self,
        expert: TaskExpert | None,
        perceptual: PerceptualLoss | None,
        *,
        balance_classes: bool = False,
        feature_layers: tuple[str, ...] | None = None,
        more_experts: Sequence[TaskExpert] = (),
        more_perceptual: Sequence[PerceptualLoss] = (),
        perceptual_images: int | None = None,
        views: ViewConfig | None = None,
        experts_asked: int | None = None,
        distances_asked: int | None = None,
    ) -> None:
        super().__init__()
        given = [*([] if expert is None else [expert]), *more_experts]
        self.experts = nn.ModuleList(each for one in given for each in _members(one))
        self._names = [name for one in given for name in (one.names if isinstance(one, ExpertGroup) else ("",))]
        self._factors = [f / len(given) for one in given for f in _factors(one)]
        self._tasks: list[AnyTask] = [load_task(each) for each in self._all_experts()]
        self.perceptuals = nn.ModuleList([*([] if perceptual is None else [perceptual]), *more_perceptual])
        self._balance_classes, self._perceptual_images = balance_classes, perceptual_images
        self._views, self._experts_asked, self._distances_asked = views, experts_asked, distances_asked
        self._bytes_of_image: dict[tuple[object, ...], int] = {}
        self._feature_layers = [each.feature_layers for each in self._all_experts()]
        if expert is not None and feature_layers is not None:
            self._feature_layers[0] = feature_layers
        for each, names in zip(self._all_experts(), self._feature_layers, strict=True):
            known = dict(each.named_modules())
            for name in names:
                if name not in known:
                    raise ConfigError(
                        f"feature_layers: the expert has no module {name!r}; among its modules are "
                        + ", ".join(list(known)[1:8])
                    )

    def _all_experts(self) -> list[TaskExpert]:
        return [cast(TaskExpert, each) for each in self.experts]

    @property
    def known_terms(self) -> frozenset[str]:
        """Names that a stage may weigh."""
        known = {"mse", "mae", LATTICE, PATTERN}
        known |= {"lpips"} if len(self.perceptuals) else set()
        known |= {*IMITATION, FEATURES} if len(self.experts) else set()
        return frozenset(known)

    @property
    def imitation_terms(self) -> frozenset[str]:
        """Names of the terms that a stage's `ramp_steps` apply to."""
        return frozenset({*IMITATION, FEATURES})

    def forward(
        self,
        x_B3HW: Tensor,
        x_hat_B3HW: Tensor,
        wanted: frozenset[str],
        generator: torch.Generator | None = None,
        judging: Judging | None = None,
    ) -> dict[str, Tensor]:
        """Return the wanted terms, scalars, and always `mse`; of a group also the distance of each, `imitation NAME`.

        Views and judges are drawn from the generator; without one, all judges see the pictures as they are. `judging`
        says how many images a judge takes at once; by default it takes all.
        """
        judging = judging or Judging()

        def view(x_B3HW: Tensor, x_hat_B3HW: Tensor) -> tuple[Tensor, Tensor]:
            if generator is None or self._views is None:
                return x_B3HW, x_hat_B3HW
            return self._views.view(x_B3HW, x_hat_B3HW, generator)

        terms = {"mse": mean_squared_error(x_B3HW, x_hat_B3HW)}
        if LATTICE in wanted:
            terms[LATTICE] = repeated_pattern(x_B3HW, x_hat_B3HW, generator)
        if PATTERN in wanted:
            terms[PATTERN] = fixed_pattern(x_B3HW, x_hat_B3HW, generator)
        if "mae" in wanted:
            terms["mae"] = mean_absolute_error(x_B3HW, x_hat_B3HW)
        if "lpips" in wanted and len(self.perceptuals):
            n = self._perceptual_images
            asked = _drawn(len(self.perceptuals), self._distances_asked, generator)
            judges = [cast(PerceptualLoss, self.perceptuals[i]) for i in asked]
            scale = judging.weights.get("lpips", 1.0) / len(asked)
            distances = [self._distance(each, view(x_B3HW[:n], x_hat_B3HW[:n]), judging, scale) for each in judges]
            terms["lpips"] = torch.stack(distances).mean()
        kinds = [kind for kind in IMITATION if kind in wanted]
        if kinds or FEATURES in wanted:
            asked = _drawn(len(self.experts), self._experts_asked, generator)
            experts = list(zip(self._all_experts(), self._tasks, self._feature_layers, strict=True))
            # Factors of a group hold the scales of its experts, so that they are not divided by their sum: in the mean
            # over all draws each expert has its own factor.
            shares = [self._factors[i] * len(experts) / len(asked) for i in asked]
            of_each = []
            for i, share in zip(asked, shares, strict=True):
                expert, task, layers = experts[i]
                watched, pictures = layers if FEATURES in wanted else (), view(x_B3HW, x_hat_B3HW)
                of_each.append(self._imitation(expert, task, watched, kinds, pictures, judging, share))
            factors = x_hat_B3HW.new_tensor(shares)
            for name in [*kinds, *([FEATURES] if FEATURES in wanted else [])] if of_each else []:
                terms[name] = (factors * torch.stack([some[name] for some in of_each])).sum()
            for i, some in zip(asked, of_each, strict=True):
                if self._names[i] and kinds:
                    terms[f"imitation {self._names[i]}"] = some[kinds[0]].detach()
        return terms

    def _imitation(
        self,
        expert: TaskExpert,
        task: AnyTask,
        layers: tuple[str, ...],
        kinds: Sequence[ImitationKind],
        pictures: tuple[Tensor, Tensor],
        judging: Judging,
        factor: float,
    ) -> dict[str, Tensor]:
        """Return the terms of one expert, always including `features`; `factor` is the expert's share of a term."""
        scale = factor * sum(judging.weights.get(kind, 1.0) for kind in kinds)
        parts = self._parts(expert, pictures[1], expert, judging)
        if not isinstance(expert, Expert):
            return task_terms(expert, task, kinds, *pictures, parts, scale)
        cache = None if self._views is not None and self._views.changes else judging.originals
        return segmentation_terms(
            expert, layers, kinds, *pictures, parts, scale, cache=cache, balance_classes=self._balance_classes
        )

    def _distance(
        self, perceptual: PerceptualLoss, pictures: tuple[Tensor, Tensor], judging: Judging, scale: float
    ) -> Tensor:
        """Return one perceptual distance, the mean over images; `scale` is its weight in the total."""
        x_B3HW, x_hat_B3HW = pictures
        parts = self._parts(perceptual, x_hat_B3HW, lambda y_13HW: perceptual(x_B3HW[:1], y_13HW), judging)
        if len(parts) == 1:
            distances_B: Tensor = perceptual(x_B3HW, x_hat_B3HW)
            return distances_B.mean()
        count = len(x_hat_B3HW)
        return mean_in_parts(lambda part, y: perceptual(x_B3HW[part], y).sum() / count, x_hat_B3HW, parts, scale)

    def _parts(
        self, judge: nn.Module, x_hat_B3HW: Tensor, of_image: Callable[[Tensor], object], judging: Judging
    ) -> list[slice]:
        """Return the slices of a batch that a judge takes at once.

        Args:
            of_image: function of one reconstruction that runs the judge, to find what autograd keeps for an image.
        """
        count, wanted = len(x_hat_B3HW), judging.micro_batch
        if isinstance(wanted, int):
            return parts_of(count, wanted)
        if wanted is None or count == 1 or not (x_hat_B3HW.requires_grad and torch.is_grad_enabled()):
            return parts_of(count, count)
        device = x_hat_B3HW.device
        case = (id(judge), *x_hat_B3HW.shape[1:], torch.is_autocast_enabled(device.type))
        if case not in self._bytes_of_image:
            image_13HW = x_hat_B3HW[:1].detach().clone().requires_grad_()
            self._bytes_of_image[case] = kept_bytes(lambda: of_image(image_13HW), judge.state_dict().values())
        size = max(1, memory_budget(device) // max(1, self._bytes_of_image[case]))
        return parts_of(count, size)


def _members(expert: TaskExpert) -> list[TaskExpert]:
    return expert.experts() if isinstance(expert, ExpertGroup) else [expert]


def _factors(expert: TaskExpert) -> tuple[float, ...]:
    return expert.factors if isinstance(expert, ExpertGroup) else (1.0,)


def _drawn(count: int, asked: int | None, generator: torch.Generator | None) -> list[int]:
    """Return the numbers of the judges that are asked: all, or so many of them at random."""
    if generator is None or asked is None or asked >= count:
        return list(range(count))
    return sorted(torch.randperm(count, generator=generator)[:asked].tolist())
