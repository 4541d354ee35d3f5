"""Training of GESCO: its terms, its randomness, its resume, what it leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gosvae.codecs.cards import GescoCard
from gosvae.codecs.checkpoint import load_codec_checkpoint
from gosvae.codecs.gesco import GescoCodec
from gosvae.config import parse
from gosvae.errors import ConfigError
from gosvae.training.codecs import train_codec
from gosvae.training.gesco import GescoRecipe, GescoTask
from tiny import expert, run_config, streets
from tiny_gesco import gesco_model


def recipe(*, learned_variance: bool = True, steps: int = 4, **more: object) -> GescoRecipe:
    """A small model, few steps."""
    weights = {"denoising": 1.0, **({"variance": 1.0} if learned_variance else {})}
    stage = {
        "name": "denoising",
        "weights": weights,
        "steps": steps,
        "learning_rate": 0.005,
        "warmup_steps": 0,
        "ema_decay": 0.5,
        "batches": {"batch_size": 2, "crop_height": 32, "crop_width": 40},
    }
    tree = {
        "kind": "gesco",
        "name": "tiny",
        "description": "for tests",
        "model": gesco_model(learned_variance=learned_variance),
        "stages": [stage],
    }
    return parse(GescoRecipe, {**tree, **more})


def train(given: GescoRecipe, folder: Path, **more: float) -> list[dict[str, float]]:
    """Train and return the logged lines."""
    train_codec(given, streets(2), streets(2), expert(), None, run_config(), folder, progress=False, **more)  # type: ignore[arg-type]
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_trained_folder_is_a_codec_with_its_expert_named(tmp_path: Path) -> None:
    lines = train(recipe(), tmp_path)
    assert {"denoising", "variance"} <= lines[-1].keys()
    checkpoint = load_codec_checkpoint(tmp_path)
    assert isinstance(checkpoint.card, GescoCard)
    assert checkpoint.card.expert == expert().reference()
    assert checkpoint.card.model.class_count == len(streets().class_names)
    codec = GescoCodec(checkpoint, expert=expert())
    image = streets()[0].image_uint8_HW3
    assert codec.decompress(codec.compress(image)).shape == image.shape


def test_a_resumed_run_draws_what_the_run_would_have_drawn(tmp_path: Path) -> None:
    whole = train(recipe(), tmp_path / "whole")
    assert len(train(recipe(), tmp_path / "parts", max_minutes=0.0)) == 1
    parts = train(recipe(), tmp_path / "parts")
    assert [line["total"] for line in parts] == [line["total"] for line in whole]
    assert len({line["total"] for line in whole}) == len(whole)
    first, second = (load_codec_checkpoint(tmp_path / name).fingerprint() for name in ("whole", "parts"))
    assert first == second


def test_training_makes_the_prediction_better(tmp_path: Path) -> None:
    lines = train(recipe(learned_variance=False, steps=40, snr_limit=5.0), tmp_path)
    losses = [line["denoising"] for line in lines]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])


def task(given: GescoRecipe) -> GescoTask:
    fitted = given.for_expert(expert())
    made = fitted.task(fitted.network(), expert(), None)
    assert isinstance(made, GescoTask)
    return made


def test_draws_are_a_function_of_the_step() -> None:
    made = task(recipe(model=gesco_model(prediction="noise")))
    x = torch.rand(2, 3, 30, 42)  # no multiples of the stride
    values = []
    for step in (0, 1, 0):
        made.begin_step(7, "denoising", 0, step)
        values.append(float(made(x, None, frozenset())["denoising"].detach()))
    assert values[0] == values[2] != values[1]


def test_only_the_network_learns_and_the_map_reaches_it() -> None:
    made = task(recipe(map_dropout=0.0))
    with torch.no_grad():
        for parameter in made.network.parameters():  # what starts at zero passes no gradient on
            if parameter.ndim == 4 and not parameter.any():
                parameter.normal_(std=0.05)
    sum(made(torch.rand(2, 3, 32, 40), None, frozenset()).values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is None for p in made.expert.parameters())
    gradients = {name: p.grad for name, p in made.network.named_parameters()}
    assert all(g is not None and bool(g.any()) for name, g in gradients.items() if "shared" in name)


def test_without_an_expert_there_is_no_map(tmp_path: Path) -> None:
    assert recipe().needs_expert
    with pytest.raises(ConfigError, match="needs an expert"):
        train_codec(recipe(), streets(2), streets(2), None, None, run_config(), tmp_path, progress=False)


@pytest.mark.parametrize("more", [{"map_noise": []}, {"map_noise": [-1.0]}, {"map_dropout": 1.0}, {"snr_limit": 0}])
def test_impossible_settings_are_refused(more: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(more))):
        recipe(**more)
