"""Micro-batches: the gradients are those of the whole batch, and the graph of a judge is that of few images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from gosvae.config import parse
from gosvae.datasets.loader import Batch
from gosvae.experts.base import DenseBoxes, ExpertInfo, TaskExpert
from gosvae.experts.compact import random_compact_expert
from gosvae.losses.perceptual import PerceptualLoss
from gosvae.seeding import seed_everything, torch_generator
from gosvae.tasks.group import ExpertGroup
from gosvae.training import judges as judges_module
from gosvae.training.judges import Judges
from gosvae.training.judging import Judging, kept_bytes, mean_in_parts, outputs_in_parts, parts_of
from gosvae.training.machine.config import RunConfig, StageConfig
from gosvae.training.machine.stage import StageInProgress
from gosvae.training.machine.task import TrainingTask
from gosvae.training.views import ViewConfig
from gosvae.training.vq import VqRecipe
from tiny import expert, perceptual, recipe, recipe_tree, run_config, variable_recipe

BATCH = 5
"""Number of images, so that micro-batches of 2 leave a smaller last one."""


class Small(TaskExpert):
    """A small expert of a task."""

    mixed_precision = True

    def __init__(self, task: str) -> None:
        super().__init__(ExpertInfo(task, ("person", "car", "bus"), 32, 48))
        self.task = task
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.layer = nn.Conv2d(3, 8, 8, stride=8)
        self.freeze()

    def dense(self, x_B3HW: Tensor) -> Any:
        y = self.layer(x_B3HW)
        if self.task == "detection":
            cells = y.flatten(2).transpose(1, 2)
            corners = torch.cat([cells[..., :2].sigmoid() / 2, 0.5 + cells[..., :2].sigmoid() / 2], dim=-1)
            return DenseBoxes((8 * cells[..., 4]).sigmoid(), (8 * cells[..., 5:8]).sigmoid(), corners)
        return {"depth": y[:, :1].exp(), "features": (y, y.square()), "keypoints": y[:, :2], "lanes": y[:, 2:4]}[
            self.task
        ]


def pictures(height: int = 48, width: int = 64, batch: int = BATCH, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Originals and reconstructions, of which the images differ much in how far they are off."""
    x = torch.rand(batch, 3, height, width, generator=torch_generator(seed))
    off = (
        torch.randn(x.shape, generator=torch_generator(seed + 1))
        * torch.linspace(0.05, 0.4, batch)[:, None, None, None]
    )
    return x, (x + off).clamp(0, 1)


def gradient(
    judges: Judges,
    weights: dict[str, float],
    judging: Judging | None,
    generator: torch.Generator | None = None,
    seed: int = 1,
) -> tuple[Tensor, Tensor]:
    """The weighted terms of `pictures` and their gradient."""
    dtype = next(judges.parameters()).dtype
    x, x_hat = (each.to(dtype) for each in pictures(seed=seed))
    x_hat.requires_grad_()
    judging = None if judging is None else replace(judging, weights=weights)
    terms = judges(x, x_hat, frozenset(weights), generator, judging)
    total = torch.stack([weight * terms[name] for name, weight in weights.items()]).sum()
    (found,) = torch.autograd.grad(total, x_hat)
    return total.detach(), found


def assert_same(found: tuple[Tensor, Tensor], whole: tuple[Tensor, Tensor]) -> None:
    """The same to 1e-5: the value, and the gradient by the norm of the difference."""
    torch.testing.assert_close(found[0], whole[0], rtol=1e-5, atol=1e-7)
    norm = float(whole[1].norm())
    assert norm > 0
    assert float((found[1] - whole[1]).norm()) / norm < 1e-5


def several() -> Judges:
    seed_everything(13)
    more = [random_compact_expert(["far", "near"], height=64, width=96), Small("depth")]
    return Judges(expert(), perceptual(), more_experts=more, more_perceptual=[perceptual(1)], balance_classes=True)


CASES: dict[str, tuple[Callable[[], Judges], dict[str, float]]] = {
    **{kind: (lambda: Judges(expert(), None), {kind: 1.0}) for kind in ("jsd", "kld", "ce")},
    "inner features": (lambda: Judges(expert(), None), {"features": 1.0}),
    "eq8": (lambda: Judges(None, perceptual()), {"mse": 1.0, "lpips": 1.0}),
    "eq5": (lambda: Judges(expert(), perceptual()), {"lpips": 1.0, "jsd": 12.0}),
    "rare": (lambda: Judges(expert(), None, balance_classes=True), {"jsd": 1.0}),
    "many terms": (lambda: Judges(expert(), None), {"jsd": 1.0, "ce": 0.5, "kld": 2.0, "features": 3.0}),
    "few images": (lambda: Judges(None, perceptual(), perceptual_images=3), {"lpips": 1.0}),
    "several": (several, {"jsd": 1.0, "lpips": 1.0, "features": 0.5}),
    "several, one term": (several, {"jsd": 1.0}),
    **{
        task: (lambda task=task: Judges(Small(task), None), {"jsd": 1.0})  # type: ignore[misc]
        for task in ("detection", "depth", "features", "keypoints", "lanes")
    },
    "group": (
        lambda: Judges(ExpertGroup([("a", expert(), 1.0), ("b", Small("keypoints"), 3.0)]), None),
        {"jsd": 1.0},
    ),
}


@pytest.mark.parametrize("size", [1, 2, BATCH])
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_the_whole_batch(case: str, size: int) -> None:
    make, weights = CASES[case]
    judges = make().double()  # in float32 a sum in another order may move a value over the kink of a ReLU
    assert_same(gradient(judges, weights, Judging(size)), gradient(judges, weights, None))


@pytest.mark.parametrize(
    "case",
    [
        *("jsd", "kld", "ce", "eq8", "eq5", "rare", "many terms", "several, one term"),
        *("detection", "depth", "features", "lanes", "keypoints"),
    ],
)
@pytest.mark.parametrize("factor", [1.0, 0.7])
def test_gradients_are_the_same_in_mixed_precision(case: str, factor: float) -> None:
    make, weights = CASES[case]
    judges, weights = make(), {name: factor * weight for name, weight in weights.items()}
    # The parts must compute the floats of the whole batch: a difference in the last bit is one of 2**-9 if bfloat16
    # rounds it to another side, which happens for some pictures only.
    for seed in range(1, 7):
        with torch.autocast("cpu", torch.bfloat16):
            whole = gradient(judges, weights, None, seed=seed)
            found = gradient(judges, weights, Judging(1), seed=seed)
        assert_same(found, whole)


def test_views_are_the_same_for_any_micro_batch() -> None:
    judges = Judges(expert(), perceptual(), views=ViewConfig(shift=2.0, scale=0.2, blur=1.0))
    weights = {"jsd": 1.0, "lpips": 1.0}
    found, whole = (gradient(judges, weights, judging, torch_generator(4)) for judging in (Judging(2), None))
    assert_same(found, whole)


def test_values_without_gradients_are_the_same() -> None:
    judges = several()
    x, x_hat = pictures()
    wanted = frozenset({"jsd", "lpips", "features"})
    with torch.no_grad():
        found, whole = (judges(x, x_hat, wanted, None, judging) for judging in (Judging(2), None))
    for name, value in whole.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-7)


@contextmanager
def largest_graph(judge: nn.Module) -> Iterator[list[int]]:
    """Numbers of images of each pass of a judge that keeps a graph."""
    seen: list[int] = []

    def note(_module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        if first.requires_grad:
            seen.append(len(inputs[-1]))

    hook = judge.register_forward_hook(note)
    try:
        yield seen
    finally:
        hook.remove()


@pytest.mark.parametrize("case", ["jsd", "eq8", "many terms", "keypoints"])
def test_no_graph_holds_more_images_than_a_micro_batch(case: str) -> None:
    make, weights = CASES[case]
    judges = make()
    judge = next(iter([*judges.experts, *judges.perceptuals]))
    with largest_graph(judge) as seen:
        gradient(judges, weights, Judging(2))
    assert max(seen) == 2
    x, x_hat = pictures()
    x_hat.requires_grad_()
    frozen = list(judges.parameters())

    def kept_with(size: int) -> int:
        return kept_bytes(lambda: judges(x, x_hat, frozenset(weights), None, Judging(size)), frozen)

    kept = {size: kept_with(size) for size in (1, BATCH)}
    if len(weights) <= 2 and case != "keypoints":  # the graph of one term is freed at once
        assert kept[1] < kept[BATCH] / 2


def test_auto_takes_what_fits_into_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    judges = Judges(expert(), perceptual())
    x, x_hat = pictures()
    one = x_hat[:1].clone().requires_grad_()
    needed = kept_bytes(lambda: judges.experts[0](one), judges.parameters())
    weights, sizes = {"jsd": 1.0}, []
    for budget in (2**40, 5 * needed // 2, needed // 2):
        monkeypatch.setattr(judges_module, "memory_budget", lambda _device, budget=budget: budget)
        with largest_graph(judges.experts[0]) as seen:
            found = gradient(judges, weights, Judging("auto"))
        sizes.append(max(seen))
        assert_same(found, gradient(judges, weights, None))
    assert sizes == [BATCH, 2, 1]
    with torch.no_grad():
        judges(x, x_hat, frozenset(weights), None, Judging("auto"))


def test_kept_bytes_count_storages_once_and_no_weights() -> None:
    layer = nn.Linear(4, 4, bias=False).requires_grad_(False)
    x = torch.ones(2, 4, requires_grad=True)
    assert kept_bytes(lambda: layer(x), layer.parameters()) == 0  # its gradient needs the weights alone
    assert kept_bytes(lambda: layer(x)) == 4 * 16
    assert kept_bytes(lambda: x.exp() * x.exp()) == 2 * 4 * 8


def test_kept_bytes_are_the_most_at_one_time() -> None:
    x = torch.ones(2, 4, requires_grad=True)

    def twice() -> None:
        for _ in range(2):
            torch.autograd.grad(x.exp().sum(), x)

    assert kept_bytes(twice) == 4 * 8


def test_terms_that_do_not_depend_on_the_picture_have_no_gradient() -> None:
    _, x_hat = pictures()
    x_hat.requires_grad_()
    value = mean_in_parts(lambda part, _x: torch.tensor(float(part.start)), x_hat, parts_of(BATCH, 2))
    assert float(value.detach()) == 0 + 2 + 4
    assert not torch.autograd.grad(value, x_hat)[0].any()
    outputs = outputs_in_parts(lambda x: x.sum(), x_hat, parts_of(BATCH, 5))
    assert len(outputs) == 1


def taken(task: TrainingTask, stage: StageConfig, run: RunConfig, tmp_path: Any, steps: int = 1) -> dict[str, Tensor]:
    """The gradients of the last step of a task's network."""
    progress = StageInProgress(Fabric(accelerator="cpu", devices=1), task, stage, run, tmp_path, None)
    x, _ = pictures(32, 48, 4)
    for step in range(steps):
        values = progress.step(Batch(x, None, ("image",) * 4, (False,) * 4), step)
    gradients = {name: p.grad.clone() for name, p in task.network.named_parameters() if p.grad is not None}
    weight = {"gan_weight": values["gan_weight"]} if "gan_weight" in values else {}
    return {**gradients, **weight}


def adversarial() -> VqRecipe:
    tree = recipe_tree()
    tree["stages"][1]["adversary"] = {"start_step": 0, "width": 4, "layers": 2}
    return parse(VqRecipe, tree)


@pytest.mark.parametrize("precision", ["32", "bf16"])
@pytest.mark.parametrize("kind", ["vq", "vq-ema", "fsq", "variable", "adversarial"])
def test_a_step_of_any_codec_has_the_same_gradients(kind: str, precision: str, tmp_path: Any) -> None:
    made = variable_recipe() if kind == "variable" else adversarial() if kind == "adversarial" else recipe(kind)
    gradients = []
    for size in (4, 1):
        seed_everything(5)
        task = made.task(made.network(), expert(), perceptual())
        gradients.append(taken(task, made.stages[-1], run_config(micro_batch=size, precision=precision), tmp_path))
    whole, found = gradients
    assert set(found) == set(whole)
    assert ("gan_weight" in whole) == (kind == "adversarial")
    scale = max(float(each.abs().max()) for each in whole.values())
    for name, each in whole.items():
        bound = 1e-5 * (float(each) if name == "gan_weight" else scale)
        torch.testing.assert_close(found[name], each, rtol=0, atol=bound)


def test_gradients_accumulate_over_backward_passes() -> None:
    judges = Judges(expert(), perceptual())
    network = nn.Conv2d(3, 3, 3, padding=1)
    gradients = []
    for size in (1, BATCH):
        network.zero_grad()
        for _ in range(2):
            x, x_hat = pictures()
            terms = judges(x, network(x_hat), frozenset({"jsd", "lpips"}), None, Judging(size))
            (terms["jsd"] + 2.0 * terms["lpips"]).backward()
        assert network.weight.grad is not None
        gradients.append(network.weight.grad.clone())
    assert_same((gradients[0].sum(), gradients[0]), (gradients[1].sum(), gradients[1]))


def test_a_perceptual_distance_is_split_like_an_expert() -> None:
    loss = perceptual()
    assert isinstance(loss, PerceptualLoss)
    judges = Judges(None, loss)
    with largest_graph(loss) as seen:
        gradient(judges, {"lpips": 1.0}, Judging(1))
    assert seen == [1] * BATCH
