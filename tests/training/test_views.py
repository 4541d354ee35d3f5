"""Random views of picture and reconstruction."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gosvae.experts.registry import load_expert
from gosvae.training.judges import Judges
from gosvae.training.views import ViewConfig
from tiny import expert, perceptual

SOFT = F.avg_pool2d(torch.rand(2, 3, 44, 60, generator=torch.Generator().manual_seed(2)), 5, stride=1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def views(seed: int, **settings: float) -> tuple[Tensor, Tensor]:
    return ViewConfig(**settings).view(SOFT, SOFT.flip(0), generator(seed))


def test_by_default_views_are_the_pictures_and_draw_nothing() -> None:
    drawn = generator()
    view, view_hat = ViewConfig().view(SOFT, SOFT.flip(0), drawn)
    assert view is SOFT
    torch.testing.assert_close(view_hat, SOFT.flip(0))
    assert torch.equal(torch.rand(1, generator=drawn), torch.rand(1, generator=generator()))


def test_both_pictures_are_seen_in_the_same_way_and_each_draw_is_another() -> None:
    settings = {"shift": 3.0, "scale": 0.3, "blur": 1.0}
    first, first_hat = views(0, **settings)
    torch.testing.assert_close(first.flip(0), first_hat)
    assert first.shape == SOFT.shape
    assert torch.equal(first, views(0, **settings)[0])
    assert not torch.allclose(first, views(1, **settings)[0], atol=1e-3)
    assert not torch.allclose(first, SOFT, atol=1e-3)


def test_shifts_are_as_large_as_drawn() -> None:
    draws = torch.rand(6, generator=generator(5))
    down, right = (4.0 * (2.0 * draws[1:3] - 1.0)).tolist()
    moved = views(5, shift=4.0)[0]
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(56.0), indexing="ij")
    ramp = ((rows + 2.0 * columns) / 200.0).expand(1, 3, 40, 56)
    seen = ViewConfig(shift=4.0).view(ramp, ramp, generator(5))[0]
    inside = (slice(None), slice(None), slice(8, -8), slice(8, -8))
    torch.testing.assert_close(seen[inside], (ramp - (down + 2.0 * right) / 200.0)[inside], atol=1e-3, rtol=0)
    assert moved.shape == SOFT.shape


def test_a_blur_keeps_the_mean_and_takes_the_grain() -> None:
    noise = torch.rand(1, 3, 64, 64, generator=generator())
    blurred = [ViewConfig(blur=1.5).view(noise, noise, generator(seed))[0] for seed in range(20)]
    changed = [view for view in blurred if not torch.equal(view, noise)]
    assert 4 <= len(changed) <= 16
    for view in changed:
        assert abs(float(view.mean() - noise.mean())) < 2e-3
        assert float(view.std()) <= float(noise.std()) + 1e-6
    assert min(float(view.std()) for view in changed) < 0.6 * float(noise.std())


def test_gradients_reach_the_reconstruction() -> None:
    x_hat = SOFT.clone().requires_grad_(True)
    view, view_hat = ViewConfig(shift=2.0, scale=0.2, blur=1.0).view(SOFT * 0.9, x_hat, generator(3))
    (view_hat - view).square().sum().backward()
    assert x_hat.grad is not None
    assert float((x_hat.grad != 0).float().mean()) > 0.5


def test_judges_see_views_of_their_own() -> None:
    x = torch.rand(2, 3, 64, 96, generator=generator())
    judged = Judges(expert(), perceptual(), more_experts=[expert()], views=ViewConfig(shift=2.0))
    wanted = frozenset({"jsd", "features", "lpips", "lattice"})
    same = judged(x, x, wanted, generator())
    assert all(float(value) < 1e-6 for value in same.values())
    x_hat = (x + 0.1 * torch.rand(x.shape, generator=generator(1))).clamp(0, 1)
    plain, seen, again = (judged(x, x_hat, wanted, g) for g in (None, generator(7), generator(7)))
    assert float(seen["jsd"]) == float(again["jsd"]) != float(plain["jsd"])
    assert float(seen["lpips"]) != float(plain["lpips"])
    assert float(seen["mse"]) == float(plain["mse"])
    assert float(seen["lattice"]) == float(again["lattice"])


def test_each_axis_is_scaled_by_a_factor_of_its_own() -> None:
    rows, columns = torch.meshgrid(torch.arange(48.0) - 23.5, torch.arange(64.0) - 31.5, indexing="ij")
    slopes = torch.stack([rows, columns, rows + columns])[None] / 200.0
    seen = ViewConfig(scale=0.3).view(slopes, slopes, generator(1))[0][0, :, 14:-14, 18:-18]
    tall, wide = (float(seen[0].diff(dim=0).mean()), float(seen[1].diff(dim=1).mean()))
    assert tall != wide
    for slope in (tall, wide):
        assert 1 / 1.3 <= slope * 200.0 <= 1.3


def test_some_judges_are_asked_and_each_in_its_turn() -> None:
    x = torch.rand(2, 3, 64, 96, generator=generator())
    x_hat = (x + 0.1 * torch.rand(x.shape, generator=generator(1))).clamp(0, 1)
    wanted = frozenset({"jsd", "lpips"})
    judges = {"more_experts": [load_expert("embedded")], "more_perceptual": [perceptual(1)]}
    asked = Judges(expert(), perceptual(), **judges, experts_asked=1, distances_asked=1)
    alone = [
        Judges(one, distance)(x, x_hat, wanted)
        for one, distance in ((expert(), perceptual()), (load_expert("embedded"), perceptual(1)))
    ]
    for name in wanted:
        seen = {round(float(asked(x, x_hat, wanted, generator(seed))[name]), 5) for seed in range(12)}
        assert seen == {round(float(terms[name]), 5) for terms in alone}
    everyone = Judges(expert(), perceptual(), **judges)(x, x_hat, wanted)
    torch.testing.assert_close(asked(x, x_hat, wanted)["jsd"], everyone["jsd"])
