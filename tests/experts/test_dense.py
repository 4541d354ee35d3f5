"""The densely connected expert: its shape, what it sees, and its training by the recipe's loop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gosvae.config import parse
from gosvae.errors import ConfigError
from gosvae.experts.dense import DenseConfig, DenseGrid, DenseSegmenter
from gosvae.experts.registry import load_expert
from gosvae.experts.trained import card_of, load_trained_expert
from gosvae.training.experts import ExpertRecipe, train_expert
from tiny import run_config, streets

RECIPE = {
    "kind": "expert",
    "name": "tiny-dense",
    "description": "for tests",
    "architecture": "dense",
    "widths": [8, 8, 8, 16],
    "blocks": [1, 2, 1],
    "stages": [
        {
            "name": "supervised",
            "weights": {"cross_entropy": 1.0},
            "steps": 3,
            "learning_rate": 0.01,
            "batches": {"batch_size": 2, "crop_height": 32, "crop_width": 48},
        }
    ],
}


def test_what_was_trained_is_loaded_frozen_and_takes_pictures_of_any_size(tmp_path: Path) -> None:
    recipe = parse(ExpertRecipe, RECIPE)
    assert train_expert(recipe, streets(), (64, 96), run_config(precision="bf16"), tmp_path, progress=False).complete
    expert = load_trained_expert(tmp_path)
    assert isinstance(expert.network, DenseSegmenter)
    assert card_of(expert, "again").network == expert.network.config
    assert load_expert(tmp_path).fingerprint() == expert.fingerprint()
    x_B3HW = torch.rand(2, 3, 37, 51, requires_grad=True)
    logits_BmHW = expert(x_B3HW)
    assert logits_BmHW.shape == (2, 11, 37, 51)
    logits_BmHW.logsumexp(1).sum().backward()
    assert x_B3HW.grad is not None
    assert float((x_B3HW.grad != 0).any(1).float().mean()) > 0.9


def test_every_convolution_of_a_grid_sees_all_before_it() -> None:
    grid = DenseGrid(16, 3)
    seen = [convolution[0].in_channels for convolution in grid.convolutions]  # type: ignore[index]
    assert seen == [16, 24, 32]
    assert grid(torch.rand(1, 16, 4, 4)).shape == (1, 16, 4, 4)


def test_every_pixel_counts_for_every_other_one() -> None:
    torch.manual_seed(5)
    network = DenseSegmenter(DenseConfig(widths=(8, 8, 8, 16), blocks=(1, 1, 1), class_count=3)).eval()
    x_B3HW = torch.rand(1, 3, 32, 512, requires_grad=True)
    network(x_B3HW)[..., -1].sum().backward()
    assert x_B3HW.grad is not None
    assert float(x_B3HW.grad[..., :16].abs().max()) > 0


def test_widths_without_whole_quarters_are_refused(tmp_path: Path) -> None:
    recipe = parse(ExpertRecipe, RECIPE | {"widths": [16, 16, 18, 32]})
    with pytest.raises(ConfigError, match="'tiny-dense': widths: every width must be a multiple of 4"):
        train_expert(recipe, streets(), (64, 96), run_config(), tmp_path, progress=False)
