"""Augmentation by colour, sharpness and noise."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from gosvae.datasets.camera import CameraChange
from gosvae.datasets.loader import TrainingBatches
from gosvae.errors import ConfigError
from gosvae.seeding import numpy_generator
from tiny import streets

GREY = torch.full((3, 32, 48), 0.5)
GRAIN = torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(1))


def test_colours_change_by_channel_and_stay_in_range() -> None:
    seen = [CameraChange(colour=0.3).of(GREY, numpy_generator(seed)) for seed in range(20)]
    values = torch.stack([x_3HW[:, 0, 0] for x_3HW in seen])
    assert float(values.std(dim=0).min()) > 0.03
    assert float((values.amax(dim=1) - values.amin(dim=1)).min()) > 0.001
    assert all(torch.allclose(x_3HW, x_3HW[:, :1, :1].expand_as(x_3HW)) for x_3HW in seen)
    bright = CameraChange(colour=0.3).of(torch.ones(3, 8, 8), numpy_generator(0))
    assert float(bright.max()) <= 1.0


def test_a_blur_takes_grain_and_noise_adds_it_to_half_of_the_pictures() -> None:
    blurred = [CameraChange(blur=1.5).of(GRAIN, numpy_generator(seed)) for seed in range(30)]
    noisy = [CameraChange(noise=0.1).of(GREY, numpy_generator(seed)) for seed in range(30)]
    for seen, plain in ((blurred, GRAIN), (noisy, GREY)):
        assert 6 <= sum(torch.equal(x_3HW, plain) for x_3HW in seen) <= 24
    assert min(float(x_3HW.std()) for x_3HW in blurred) < 0.6 * float(GRAIN.std())
    assert 0.05 < max(float(x_3HW.std()) for x_3HW in noisy) <= 0.11


def test_batches_are_changed_alike_at_every_visit_and_crops_stay_the_same() -> None:
    def batches(**changes: float) -> TrainingBatches:
        return TrainingBatches(streets(), batch_size=2, seed=3, crop_height=32, crop_width=48, **changes)

    plain, changed = batches().batch(1).x_B3HW, batches(colour=0.2).batch(1).x_B3HW
    assert torch.equal(changed, batches(colour=0.2).batch(1).x_B3HW)
    assert not torch.allclose(plain, changed, atol=1e-3)
    grey, other = (x_B3HW.mean(dim=1).flatten(1) for x_B3HW in (plain, changed))
    assert float(F.cosine_similarity(grey - grey.mean(), other - other.mean()).min()) > 0.9


@pytest.mark.parametrize("change", [{"colour": 1.0}, {"blur": 2.5}, {"noise": -0.1}])
def test_impossible_changes_are_config_errors(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected colour in"):
        CameraChange(**change)
