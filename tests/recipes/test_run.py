"""Training from Python in three lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gosvae
from gosvae.errors import ConfigError
from gosvae.training.machine.config import RunConfig

QUICK = ["stages.0.steps=2", "stages.0.batches.crop_height=32", "stages.0.batches.crop_width=32"]


def test_three_lines_make_a_codec(tmp_path: Path) -> None:
    run = RunConfig(accelerator="cpu", tensorboard=False)
    gosvae.train("vqvae", "streets:2", out=tmp_path, overrides=QUICK, run=run, progress=False)
    codec = gosvae.load_codec(tmp_path)
    image = np.full((20, 30, 3), 127, np.uint8)
    assert codec.decompress(codec.compress(image)).shape == image.shape


def test_a_recipe_that_imitates_needs_an_expert(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs an expert"):
        gosvae.train("gosvae", "streets:2", out=tmp_path)
