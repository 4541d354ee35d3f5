"""A training says at its start what it is going to do, with what, and for how long."""

from __future__ import annotations

from pathlib import Path

import pytest

from gosvae.cli.main import main
from gosvae.codecs.registry import load_codec
from gosvae.recipes import load_recipe
from gosvae.recipes.run import description
from gosvae.training.codecs import TrainableRecipe
from tiny import expert, run_config, streets


def test_every_part_of_a_run_is_named() -> None:
    recipe = load_recipe("gosvae")
    assert isinstance(recipe, TrainableRecipe)
    lines = description(recipe, streets(), expert(), "lpips-vgg16", "weights/vgg16.pth", run_config(precision="bf16"))
    assert lines[0].startswith("recipe: gosvae: ")
    assert lines[1].startswith("expert: random, 11 classes: sky, building, ")
    assert lines[2:5] == [
        "perceptual distance: lpips-vgg16, weights from weights/vgg16.pth",
        "images: 4 of streets, the first 64x96 pixels (height x width)",
        "device: 1 x cpu, bf16",
    ]
    assert lines[5].startswith("stages: pixels ")
    assert " crops of 128x256; " in lines[5]


def test_the_command_prints_them_and_a_stopped_run_can_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    settings = ["stages.0.steps=3", "stages.0.batches={batch_size: 1, crop_height: 32, crop_width: 32}"]
    arguments = [
        "train",
        "vqvae",
        "--data",
        "streets:2",
        "--resize",
        "64x96",
        "--accelerator",
        "cpu",
        "--out",
        str(out),
    ]
    arguments += [word for setting in settings for word in ("--set", setting)]
    assert main([*arguments, "--max-minutes", "0.000001", "--expert", "embedded"]) == 0
    printed = capsys.readouterr().out
    heads = [line.split(":")[0] for line in printed.splitlines()]
    assert heads[:6] == ["recipe", "images", "device", "stages", "expert", "time"]
    assert "expert: not used, no term of the recipe 'vqvae' imitates one" in printed
    assert "the unfinished result can be used" in printed
    assert load_codec(out).name == "vqvae-unfinished"
    assert main([*arguments, "--quiet"]) == 0
    assert capsys.readouterr().out == f"finished: {out}\n"
