"""What goes wrong in a training is said in one line, and nothing that was good is lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from test_resume import losses, states, train
from torch import Tensor

from gosvae.codecs.checkpoint import load_codec_checkpoint, save_codec
from gosvae.codecs.vq import VqCodec
from gosvae.config import apply_overrides, parse
from gosvae.errors import CheckpointError, ConfigError, TrainingError, WriteError
from gosvae.tensors import image_to_tensor
from gosvae.training import codec_task, judges
from gosvae.training.codecs import train_codec
from gosvae.training.machine.stage import learning_rate
from gosvae.training.vq import VqRecipe, count_indices
from tiny import checkpoint, expert, perceptual, recipe, recipe_tree, run_config, streets


def changed(*overrides: str) -> VqRecipe:
    return parse(VqRecipe, apply_overrides(recipe_tree(), list(overrides)))


def test_a_loss_that_is_not_finite_names_the_term_and_keeps_the_last_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path, recipe(), max_minutes=0)
    before = {path: path.read_bytes() for path in states(tmp_path)}
    real, calls = judges.mean_squared_error, iter(range(9))

    def sometimes_nan(x: Tensor, x_hat: Tensor) -> Tensor:
        return real(x, x_hat) * (float("nan") if next(calls) == 1 else 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(judges, "mean_squared_error", sometimes_nan)
        with pytest.raises(
            TrainingError, match=r"loss term mse is not finite at step 3 of stage 'pixels'.* last good state is in"
        ):
            train(tmp_path, recipe())
    assert {path: path.read_bytes() for path in states(tmp_path)} == before
    assert len(losses(tmp_path)) == 2
    assert train(tmp_path, recipe()).complete


def test_a_first_step_that_fails_promises_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "mean_squared_error", lambda _, x_hat: (x_hat * float("inf")).mean())
    with pytest.raises(TrainingError, match=r"mse is not finite at step 1 .*none is saved yet") as caught:
        train(tmp_path, recipe())
    assert "\n" not in str(caught.value)
    assert not states(tmp_path)


def test_a_gradient_that_is_not_finite_stops_before_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Explodes(torch.autograd.Function):
        @staticmethod
        def forward(_: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(_: object, *gradients: Tensor) -> Tensor:
            return gradients[0] * float("inf")

    real = judges.mean_squared_error
    monkeypatch.setattr(judges, "mean_squared_error", lambda x, y: Explodes.apply(real(x, y)))
    with pytest.raises(TrainingError, match=r"gradient is not finite at step 1"):
        train(tmp_path, recipe())


def test_unknown_terms_are_refused_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"stage 'imitation': unknown loss term 'jsdd'; did you mean 'jsd'?"):
        train(tmp_path, changed("stages.1.weights.jsdd=1"))
    assert list(tmp_path.iterdir()) == []


def test_a_term_without_its_network_is_refused(tmp_path: Path) -> None:
    run, data = run_config(), streets()
    with pytest.raises(ConfigError, match=r"needs an expert: give one"):
        train_codec(recipe(), data, data, None, perceptual(), run, tmp_path)
    with pytest.raises(ConfigError, match=r"LPIPS"):
        train_codec(recipe(), data, data, expert(), None, run, tmp_path)


def test_a_start_from_another_codec(tmp_path: Path) -> None:
    train(tmp_path / "first", recipe(steps=(2, 1)))
    train(tmp_path / "second", recipe(steps=(2, 1)), init=tmp_path / "first")
    assert losses(tmp_path / "second")[0]["mse"] < losses(tmp_path / "first")[0]["mse"]
    notes = load_codec_checkpoint(tmp_path / "second").provenance
    assert notes["init"] == "first"
    (earlier,) = notes["earlier_runs"]
    assert earlier["stages"] == {"pixels": 2, "imitation": 1}
    assert (earlier["recipe"], earlier["init"], earlier["images"]) == (recipe().name, None, notes["images"])
    with pytest.raises(ConfigError, match=r"train with the same model settings"):
        train(tmp_path / "third", recipe("fsq"), init=tmp_path / "first")
    with pytest.raises(CheckpointError, match=r"is .* a checkpoint folder"):
        train(tmp_path / "third", recipe(), init=tmp_path / "none")


@pytest.mark.parametrize(("size", "error"), [(4, 0.6), (64, 0.2)])
def test_a_start_with_a_codebook_of_another_size(tmp_path: Path, size: int, error: float) -> None:
    resized = changed(f"model.quantizer.codebook_size={size}")
    images = [sample.image_uint8_HW3 for sample in streets()]
    network, donor = resized.network(), VqCodec(checkpoint()).model
    resized.initialise(network, checkpoint(), iter(images))
    x_B3HW = torch.cat([image_to_tensor(image) for image in images])
    z_BDhw = network.encoder(x_B3HW)
    torch.testing.assert_close(z_BDhw, donor.encoder(x_B3HW))
    torch.testing.assert_close(network.decoder(z_BDhw), donor.decoder(z_BDhw))
    quantized = network.eval().quantizer(z_BDhw)
    spread = (z_BDhw - z_BDhw.mean(dim=(0, 2, 3), keepdim=True)).square().mean()
    assert quantized.terms["codebook"] < error * spread
    assert len(quantized.indices_Bhw.unique()) > 0.9 * size

    train(tmp_path / "first", recipe(steps=(1, 1)))
    train(tmp_path / "second", resized, init=tmp_path / "first")
    assert load_codec_checkpoint(tmp_path / "second").counts.shape == (size,)
    with pytest.raises(ConfigError, match=r"train with the same model settings"):
        train(tmp_path / "third", changed("model.quantizer.code_dim=8"), init=tmp_path / "first")


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_keeps_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, recipe(steps=(2, 2)))
    old = load_codec_checkpoint(tmp_path)
    other = load_codec_checkpoint(tmp_path / "stages" / "pixels")
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        calls = iter(range(9))
        patch.setattr(os, "fsync", lambda _: no_space() if next(calls) == 2 else None)  # at the weights, the last file
        with pytest.raises(WriteError, match=r"No space left on device; what stood there before is intact"):
            save_codec(tmp_path, other)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files
    assert load_codec_checkpoint(tmp_path).fingerprint() == old.fingerprint()


def test_a_full_disk_while_training_keeps_the_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, recipe(), max_minutes=0)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.state")}
    with monkeypatch.context() as patch:
        calls = iter(range(9))
        patch.setattr(os, "fsync", lambda _: no_space() if next(calls) else None)  # the log is begun, a state is not
        with pytest.raises(WriteError, match=r"\.state: No space"):
            train(tmp_path, recipe(), max_minutes=0)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.state")} == before
    assert not list((tmp_path / "resume").glob(".*"))
    assert train(tmp_path, recipe()).complete


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError) as caught:
        train(tmp_path / "file" / "run", recipe())
    assert "\n" not in str(caught.value)


def test_logs_hold_every_term_and_resist_a_cut_line(tmp_path: Path) -> None:
    train(tmp_path, recipe(), max_minutes=0)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 9, "stage": "pixels"}\n{"step": 2, "sta')
    assert train(tmp_path, recipe()).complete
    rows = losses(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 8))
    terms = {"mse", "lpips", "jsd", "codebook", "commitment", "total", "gradient_norm", "perplexity", "utilisation"}
    assert terms <= set(rows[-1])
    first = rows[4]  # of the second stage: imitation has grown to half its weight
    expected = first["mse"] + first["lpips"] + 0.5 * first["jsd"] + first["codebook"] + 0.25 * first["commitment"]
    assert first["total"] == pytest.approx(expected, rel=1e-5)
    assert first["learning_rate"] == 0.005  # warm-up begins again


def test_tensorboard_files_are_written(tmp_path: Path) -> None:
    train(tmp_path, recipe(steps=(1, 1)), run=run_config(tensorboard=True))
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_the_learning_rate_warms_up_and_falls() -> None:
    stage = changed("stages.0.steps=100", "stages.0.warmup_steps=10", "stages.0.final_rate=0.1").stages[0]
    rates = [learning_rate(stage, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.001)
    assert max(rates) == rates[9] == rates[10] == pytest.approx(0.01)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0.001)


def test_the_histogram_takes_at_most_so_many_images(monkeypatch: pytest.MonkeyPatch) -> None:
    from gosvae.codecs.vq import VqCodec
    from tiny import checkpoint

    codec = VqCodec(checkpoint())
    seen: list[int] = []
    data = streets(7)
    draw = type(data).__getitem__
    monkeypatch.setattr(type(data), "__getitem__", lambda self, i: (seen.append(i), draw(self, i))[1])
    counts_K = count_indices(codec, data, most_pixels=4 * 64 * 96)
    assert seen == [0, 0, 2, 4, 6]  # the first one twice: its size says how many fit
    assert counts_K.dtype == torch.int64
    assert int(counts_K.min()) >= 1


def test_reduced_precision_leaves_the_images_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = codec_task.CodecTask.forward, []

    def watched(self: codec_task.CodecTask, x_B3HW: Tensor, *rest: object) -> dict[str, Tensor]:
        seen.append((x_B3HW.dtype, torch.is_autocast_enabled("cpu")))
        return real(self, x_B3HW, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(codec_task.CodecTask, "forward", watched)
    train(tmp_path, recipe(), run=run_config(precision="bf16"), max_minutes=0)
    assert set(seen) == {(torch.float32, True)}
