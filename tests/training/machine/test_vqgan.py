"""A stage with an adversary: when it joins, what it changes, how it is saved and resumed, and the VQ-GAN's network."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_devices import TESTS, whole_and_parts
from test_resume import assert_same_run, losses, states, train

from gosvae.codecs import tiling
from gosvae.codecs.checkpoint import load_codec_checkpoint
from gosvae.codecs.latent import Latent, Transform
from gosvae.codecs.vq import VqCodec
from gosvae.codecs.vq_model import VqAutoencoder
from gosvae.config import apply_overrides, parse, to_tree
from gosvae.datasets.streets import Streets
from gosvae.errors import CheckpointError, ConfigError, ImageError, TrainingError
from gosvae.experts.compact import count_parameters
from gosvae.nn.autoencoder import AutoencoderConfig
from gosvae.nn.normalised import SelfAttention, group_norm
from gosvae.recipes import load_recipe
from gosvae.training.machine import adversary
from gosvae.training.machine.config import StageConfig
from gosvae.training.machine.loop import Trainer
from gosvae.training.machine.resume import save_state
from gosvae.training.machine.task import TrainingTask
from gosvae.training.vq import VqRecipe
from tiny import checkpoint, model_config, recipe, recipe_tree, run_config

NETWORK = {"architecture": "vqgan", "stride": 4, "width": 8, "blocks": 1, "attention": True}
ADVERSARY = {"start_step": 2, "width": 4, "layers": 2}


def gan_tree(**more: Any) -> dict[str, Any]:
    """The tiny recipe with the VQ-GAN's network; a discriminator joins at step 3 of both stages."""
    tree = apply_overrides(recipe_tree(), ["stages.0.weights.mae=2"])
    tree["model"]["autoencoder"] = NETWORK
    for stage in tree["stages"]:
        stage["adversary"] = {**ADVERSARY, **more}
    return tree


def gan_recipe(**more: Any) -> VqRecipe:
    return parse(VqRecipe, gan_tree(**more))


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder, gan_recipe()).complete
    return folder


def test_the_adversary_joins_at_its_step_and_is_logged(whole_run: Path) -> None:
    rows = losses(whole_run)
    assert [("gan" in row, "discriminator" in row, "gan_weight" in row) for row in rows] == [
        (done, done, done) for done in (False, False, True, True, False, False, True)
    ]
    for row in rows:
        weights = dict(next(s for s in gan_recipe().stages if s.name == row["stage"]).weights)
        imitation = 0.5 if (row["stage"], row["step"]) == ("imitation", 5) else 1.0
        expected = sum(w * (imitation if term == "jsd" else 1.0) * row[term] for term, w in weights.items())
        expected += row.get("gan_weight", 0.0) * row.get("gan", 0.0)
        assert row["total"] == pytest.approx(expected, rel=1e-4)
    assert rows[2]["discriminator"] == pytest.approx(1.0, abs=0.2)  # it knows nothing yet
    assert rows[2]["gan_weight"] > 0


def test_a_discriminator_changes_the_codec_only_after_it_has_joined(tmp_path: Path, whole_run: Path) -> None:
    tree = gan_tree()
    for stage in tree["stages"]:
        del stage["adversary"]
    train(tmp_path, parse(VqRecipe, tree))
    alone, together = losses(tmp_path), losses(whole_run)
    assert alone[:2] == together[:2]
    assert alone[3]["mse"] != together[3]["mse"]


def test_what_is_kept_holds_no_discriminator(whole_run: Path) -> None:
    kept = load_codec_checkpoint(whole_run)
    assert set(kept.weights) == set(VqAutoencoder(gan_recipe().model).state_dict())
    codec = VqCodec.load(whole_run)
    image = Streets(1, seed=3, height=37, width=51)[0].image_uint8_HW3
    data = codec.compress(image)
    np.testing.assert_array_equal(codec.decode(data).symbols, codec.indices(image))
    assert codec.decompress(data).shape == image.shape


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_stopping_after_every_step_changes_nothing_for_two_players(
    tmp_path: Path, whole_run: Path, precision: str
) -> None:
    run = run_config(precision=precision)
    if precision == "bf16":
        whole_run = tmp_path / "whole"
        assert train(whole_run, gan_recipe(), run=run).complete
    steps = []
    for _ in range(20):
        torch.rand(len(steps) + 1)  # the discriminator's first weights must not depend on it
        outcome = train(tmp_path / "parts", gan_recipe(), run=run, max_minutes=0)
        steps.append(outcome.step)
        if outcome.complete:
            break
    assert steps == [1, 2, 3, 5, 6, 7]
    assert_same_run(tmp_path / "parts", whole_run)


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
sys.path.insert(0, {tests!r} + "/training/machine")
import torch
torch.set_num_threads({threads})
import tiny
from test_resume import train
from test_vqgan import gan_recipe
import gosvae.training.machine.loop as loop

save = loop.save_state
def save_and_wait(folder, stage, step, state):
    path = save(folder, stage, step, state)
    if (stage, step) == (0, 3):
        (folder.parent / "saved").touch()
        time.sleep(600)
    return path
loop.save_state = save_and_wait
train(Path({folder!r}), gan_recipe(), run=tiny.run_config(save_minutes=1e-9))
"""


def test_a_killed_game_goes_on_from_its_last_state(tmp_path: Path, whole_run: Path) -> None:
    folder = tmp_path / "run"
    script = KILLED.format(tests=str(TESTS), folder=str(folder), threads=torch.get_num_threads())
    path = [str(TESTS.parent / "src"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment)
    try:
        for _ in range(5000):
            if (folder / "saved").exists() or process.poll() is not None:
                break
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    state = saved(states(folder)[0])
    assert state["progress"]["step"] == 3
    assert state["adversary"]["optimizer"]["state"]  # it has moved by one step
    assert train(folder, gan_recipe()).complete
    assert_same_run(folder, whole_run)


def saved(path: Path) -> dict[str, Any]:
    """The state in a file, without a look at the checksum before it."""
    state: dict[str, Any] = torch.load(io.BytesIO(path.read_bytes()[32:]), weights_only=True)
    return state


def test_other_settings_of_the_adversary_do_not_continue_a_run(tmp_path: Path) -> None:
    train(tmp_path, gan_recipe(), max_minutes=0)
    with pytest.raises(CheckpointError, match="other settings"):
        train(tmp_path, gan_recipe(weight=0.5))
    assert train(tmp_path, gan_recipe(), max_minutes=0).step == 2


def test_a_run_from_before_there_were_adversaries_continues(tmp_path: Path) -> None:
    assert "adversary" not in to_tree(recipe())["stages"][0]
    assert "attention" not in to_tree(recipe().model)["autoencoder"]
    train(tmp_path, recipe(), max_minutes=0)
    for path in states(tmp_path):  # as it was written then
        state = saved(path)
        del state["adversary"]
        save_state(path.parent, state["progress"]["stage"], state["progress"]["step"], state)
    assert train(tmp_path, recipe(), max_minutes=0).step == 2


@pytest.mark.parametrize(
    ("name", "term"), [("hinge_discriminator_loss", "discriminator"), ("hinge_generator_loss", "gan")]
)
def test_a_loss_of_the_game_that_is_not_finite_stops_both_players(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, term: str
) -> None:
    for _ in range(2):
        train(tmp_path, gan_recipe(), max_minutes=0)
    before = {path: path.read_bytes() for path in states(tmp_path)}
    real = getattr(adversary, name)
    with monkeypatch.context() as patch:
        patch.setattr(adversary, name, lambda *verdicts: real(*verdicts) * float("nan"))
        with pytest.raises(TrainingError, match=rf"loss term {term}.* is not finite at step 3 .*last good state"):
            train(tmp_path, gan_recipe())
    assert {path: path.read_bytes() for path in states(tmp_path)} == before


def test_a_gradient_of_the_discriminator_that_is_not_finite_stops_both_players(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = adversary.Adversary.backward
    monkeypatch.setattr(adversary.Adversary, "backward", lambda self, loss, clip: real(self, loss, clip) * float("inf"))
    stepped: list[str] = []
    monkeypatch.setattr(adversary.Adversary, "step", lambda *_: stepped.append("discriminator"))
    with pytest.raises(TrainingError, match=r"gradient of the discriminator is not finite at step 3 of stage 'pixels'"):
        train(tmp_path, gan_recipe())
    assert stepped == []


def test_an_adversary_needs_pictures_and_a_term_to_weigh_it_against(tmp_path: Path) -> None:
    class Other(TrainingTask):
        known_terms = frozenset({"mse"})

        def forward(self, *_: object) -> dict[str, torch.Tensor]:
            raise AssertionError("is not run")

    stage = parse(StageConfig, {"name": "a", "weights": {"mse": 1.0}, "steps": 1, "adversary": {}})
    with pytest.raises(ConfigError, match=r"stage 'a': an adversary judges reconstructions.*remove 'adversary'"):
        Trainer(Other(), [stage], run_config(), tmp_path)
    tree = gan_tree(start_step=0)
    tree["stages"][0]["weights"] = {"codebook": 1.0}
    with pytest.raises(ConfigError, match=r"give the stage a term such as mae"):
        train(tmp_path, parse(VqRecipe, tree))
    with pytest.raises(ConfigError, match=r"adversary.strat_step: unknown key 'strat_step'; did you mean 'start_step'"):
        parse(VqRecipe, apply_overrides(gan_tree(), ["stages.0.adversary.strat_step=1"]))


def test_the_recipe_has_the_papers_size() -> None:
    chosen = load_recipe("vqgan")
    assert isinstance(chosen, VqRecipe)
    with torch.device("meta"):
        network = VqAutoencoder(chosen.model)
    assert count_parameters(network) == pytest.approx(24.00e6, rel=0.02)  # the codec alone, no discriminator
    assert network.stride == 4
    assert chosen.stages[0].adversary is not None


def test_the_small_variant_is_a_matter_of_overrides() -> None:
    sizes = ["width=16", "multipliers=[1, 2, 6]", "blocks=1", "decoder_blocks=1", "attention=false"]
    small = load_recipe("vqgan", [f"model.autoencoder.{size}" for size in sizes])
    assert isinstance(small, VqRecipe)
    assert 0.8e6 < count_parameters(VqAutoencoder(small.model)) < 1.4e6


def test_settings_that_do_not_belong_together_are_refused() -> None:
    for tree, reason in {
        "architecture: shallow, attention: true": "belong to the architecture vqgan",
        "architecture: compact, multipliers: [1, 2, 4]": "belong to the architecture vqgan",
        "architecture: vqgan, stride: 8, multipliers: [1, 2, 4]": "stride 8 needs 4 multipliers",
        "architecture: vqgan, multipliers: [1, 2, 0]": "greater than or equal to 1",
    }.items():
        with pytest.raises(ConfigError, match=reason):
            parse(VqRecipe, apply_overrides(recipe_tree(), [f"model.autoencoder={{{tree}}}"]))


@pytest.mark.parametrize(("channels", "groups"), [(128, 32), (84, 21), (168, 28), (16, 4), (6, 1), (2, 1)])
def test_groups_are_equal_and_of_four_channels_at_least(channels: int, groups: int) -> None:
    norm = group_norm(channels)
    assert norm.num_groups == groups
    assert norm(torch.rand(1, channels, 3, 5)).shape == (1, channels, 3, 5)


def test_attention_is_its_formula() -> None:
    attention = SelfAttention(8)
    x = torch.randn(2, 8, 3, 5)
    q, k, v = attention.query_key_value(attention.norm(x)).flatten(2).chunk(3, dim=1)
    weights = torch.einsum("bci,bcj->bij", q, k).div(8**0.5).softmax(dim=-1)
    mixed = torch.einsum("bij,bcj->bci", weights, v).reshape(x.shape)
    torch.testing.assert_close(attention(x), x + attention.project(mixed), rtol=1e-4, atol=1e-5)


def test_large_pictures_are_one_piece_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert AutoencoderConfig(architecture="vqgan").decoder_halo is None
    codec = VqCodec(checkpoint(model_config(architecture="vqgan", attention=True)))
    image = Streets(1, seed=3, height=90, width=120)[0].image_uint8_HW3
    whole_hw = codec.indices(image)
    picture = codec.reconstruct(Latent(whole_hw, 90, 120))
    monkeypatch.setattr(tiling, "TILE_PIXELS", 16)  # tiles would change what normalisation sees
    np.testing.assert_array_equal(codec.indices(image), whole_hw)
    np.testing.assert_array_equal(codec.reconstruct(Latent(whole_hw, 90, 120)), picture)
    monkeypatch.setattr(Transform, "whole_pixels", 100 * 100)
    data = codec.encode(Latent(whole_hw, 90, 120))
    for use in (lambda: codec.compress(image), lambda: codec.decompress(data)):
        with pytest.raises(
            ImageError, match=r"takes at most 10000 pixels, got 92x120: make the picture smaller"
        ) as caught:
            use()
        assert "\n" not in str(caught.value)


def test_gradients_of_the_game_do_not_reach_the_other_player(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, bool]] = []
    real_generator, real_own = adversary.Adversary.generator_loss, adversary.Adversary.backward

    def generator(self: adversary.Adversary, x_hat: torch.Tensor) -> torch.Tensor:
        loss = real_generator(self, x_hat)
        used = torch.autograd.grad(loss, list(self._discriminator.parameters()), retain_graph=True, allow_unused=True)
        seen.append((any(g is not None for g in used), x_hat.requires_grad))
        return loss

    def own(self: adversary.Adversary, loss: torch.Tensor, clip_norm: float) -> torch.Tensor:
        norm = real_own(self, loss, clip_norm)
        seen.append((bool(norm > 0), all(p.grad is not None for p in self._discriminator.parameters())))
        return norm

    monkeypatch.setattr(adversary.Adversary, "generator_loss", generator)
    monkeypatch.setattr(adversary.Adversary, "backward", own)
    train(tmp_path, gan_recipe(start_step=0), max_minutes=0)
    # The steps of the trial before the training are the same as those of the training.
    assert set(seen[0::2]) == {(False, True)}
    assert set(seen[1::2]) == {(True, True)}


@pytest.mark.slow
def test_two_processes_play_one_game_and_continue_it(tmp_path: Path) -> None:
    whole, stopped, continued = whole_and_parts(tmp_path, gan_tree(start_step=1))
    assert whole[0] == whole[1]  # the same weights
    assert whole[0][1:] == [True, 7]
    assert stopped[0][1:] == [False, 1]
    assert continued == whole
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
