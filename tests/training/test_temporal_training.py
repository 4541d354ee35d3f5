"""Training of a temporal model: it learns that symbols stay, resumes, and makes a video codec."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gosvae.codecs.checkpoint import save_codec
from gosvae.codecs.registry import load_sequence_codec
from gosvae.codecs.variable import VariableRateCodec
from gosvae.config import apply_overrides, parse, to_tree
from gosvae.entropy.temporal import Memory, TemporalContextModel
from gosvae.entropy.temporal_network import integer_temporal_network
from gosvae.errors import ConfigError, DatasetError
from gosvae.seeding import torch_generator
from gosvae.training.temporal import TemporalRecipe, TemporalTraining, default_recipe, temporal_bits, train_temporal
from gosvae.training.temporal_data import FRAMES, ClipBatches, LatentClips, film_clips, film_windows, still_clips
from tiny import run_config, streets, variable_checkpoint


def recipe(steps: int = 4) -> TemporalRecipe:
    tree = apply_overrides(to_tree(default_recipe(steps)), ["taps=5", "size=[64, 96]", "stages.0.batches.batch_size=2"])
    return parse(TemporalRecipe, tree)


def latents(folder: Path, codec: VariableRateCodec) -> LatentClips:
    film = [np.roll(streets()[0].image_uint8_HW3, 2 * number, axis=1) for number in range(12)]
    clips = [*film_clips(film, (64, 96)), *still_clips(streets(), 4, (64, 96), seed=0)]
    return LatentClips.made(folder / "latents.npy", codec, clips, ["tests"])


def test_a_training_makes_a_video_codec_and_resumes(tmp_path: Path) -> None:
    codec = VariableRateCodec(variable_checkpoint())
    save_codec(tmp_path, codec.checkpoint)
    codec = VariableRateCodec.load(tmp_path)
    clips = latents(tmp_path, codec)
    stopped = train_temporal(recipe(), codec, clips, "tests", run_config(), tmp_path, max_minutes=0.0, progress=False)
    assert not stopped.complete
    assert train_temporal(recipe(), codec, clips, "tests", run_config(), tmp_path, progress=False).complete
    video = load_sequence_codec(f"{tmp_path}:100")
    encoder, decoder = video.encoder(64, 96), video.decoder()
    for number in range(3):
        decoder.decode(encoder.encode(np.roll(streets()[0].image_uint8_HW3, number, axis=1)))
    assert int(video.model.counts.sum()) > 0


def test_training_counts_the_bits_of_the_coder(tmp_path: Path) -> None:
    codec = VariableRateCodec(variable_checkpoint())
    training = TemporalTraining(recipe(), codec, latents(tmp_path, codec), "tests")
    task = training.task()
    with torch.no_grad():
        for table in (task.network.centre, task.network.direct, *task.network.near):
            table.normal_(generator=torch_generator(1))
    task.begin_step(0)
    examples = task.examples(ClipBatches(latents(tmp_path, codec), 4, seed=3).batch(0).x_B3HW)
    with torch.no_grad():
        estimates = [
            temporal_bits(task.network, examples, task._uses, task._reach, torch_generator(seed)) for seed in range(300)
        ]
    expected_B = torch.stack(estimates).mean(dim=0)
    network = integer_temporal_network(training.config, task.network.freeze())
    values = training.config.context.values
    for n, bits in enumerate(expected_B.tolist()):
        ages = examples.rows_BDhw[n] // values
        memory = Memory(
            examples.reference_BDhw[n].numpy().astype(np.uint8),
            ages.numpy().astype(np.uint8),
            int(examples.reference_level_B[n]),
        )
        symbols = examples.symbols_BDhw[n].numpy()
        level, activity = int(examples.level_B[n]), int(examples.activity_B[n])
        assert activity == memory.activity(symbols, training.config.context.groups_at(level) * 4)
        model = TemporalContextModel(network, level, memory, activity)
        exact = model.estimated_bits(symbols.reshape(-1, symbols.shape[2]))
        assert bits == pytest.approx(exact, rel=0.1, abs=8)


def test_latents_are_made_once_and_only_for_their_sequences(tmp_path: Path) -> None:
    codec = VariableRateCodec(variable_checkpoint())
    made = latents(tmp_path, codec)
    assert made.lengths == (*[12] * 8, *[FRAMES] * 4)
    assert LatentClips.made(tmp_path / "latents.npy", codec, [], ["tests"]).lengths == made.lengths
    with pytest.raises(DatasetError, match="other sequences"):
        LatentClips.made(tmp_path / "latents.npy", codec, [], ["others"])
    with pytest.raises(DatasetError, match="no sequences"):
        LatentClips.made(tmp_path / "none.npy", codec, [], ["tests"])
    with pytest.raises(ConfigError):
        default_recipe(0)


def test_batches_depend_on_their_step_alone(tmp_path: Path) -> None:
    clips = latents(tmp_path, VariableRateCodec(variable_checkpoint()))
    batches = ClipBatches(clips, 3, seed=0)
    assert torch.equal(next(iter(batches.stream(5))).x_B3HW, batches.batch(5).x_B3HW)
    assert not torch.equal(batches.batch(5).x_B3HW, batches.batch(6).x_B3HW)
    assert batches.batch(0).x_B3HW.shape == (3, FRAMES * 8, 4, 6)


def test_windows_lie_within_the_film() -> None:
    for height, width in ((256, 848), (360, 480), (100, 100)):
        for left, top, right, bottom in film_windows(height, width, (256, 512)):
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            assert (right - left) / (bottom - top) == pytest.approx(2.0)
