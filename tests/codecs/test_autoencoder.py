"""The plain autoencoder: integers between the two networks, any byte budget, and never a picture from wrong bytes."""

from __future__ import annotations

import dataclasses
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from gosvae import bitstream
from gosvae.codecs.autoencoder import AutoencoderCodec
from gosvae.codecs.autoencoder_model import AutoencoderModelConfig, ScalarAutoencoder, merge
from gosvae.codecs.checkpoint import CodecCheckpoint, load_codec_checkpoint, save_codec
from gosvae.codecs.registry import load_codec, load_trained_codec, load_vq_codec
from gosvae.codecs.slices import StreamOptions
from gosvae.codecs.vq import VqCodec
from gosvae.config import parse
from gosvae.entropy.channels import ChannelHistograms
from gosvae.errors import BitstreamError, CheckpointError, ConfigError, ForeignStreamError
from gosvae.experts.compact import count_parameters
from gosvae.recipes import load_recipe
from gosvae.seeding import numpy_generator, seed_everything
from gosvae.tensors import ImageArray
from gosvae.training.autoencoder import AutoencoderRecipe, count_fine_integers
from gosvae.training.codecs import train_codec
from tiny import checkpoint, expert, run_config, scalar_checkpoint, streets

GOLDEN_PAYLOAD = "03000df97d090a510fd52a18751b7f645c30ebe9c9d9df72240951971a5682d467cbd56ff9e2c2f0c16d2a"
"""Step and coded latent of `golden_latent` under the tables of `scalar_checkpoint`: it must decode for ever."""


@pytest.fixture(scope="module")
def codec() -> AutoencoderCodec:
    return AutoencoderCodec(scalar_checkpoint())


@pytest.fixture(scope="module")
def image() -> ImageArray:
    return streets()[0].image_uint8_HW3


def stream(codec: AutoencoderCodec, fine_Dhw: np.ndarray, height: int, width: int, step: int) -> bytes:
    """The stream of a latent of fine integers."""
    return codec.encode(codec.quantise(torch.from_numpy(fine_Dhw)[None], height, width, step))


def golden_latent() -> np.ndarray:
    """Fine integers (3, 4, 5) from integer arithmetic alone."""
    return ((np.arange(60) * 2654435761 % 2**32 >> 20) % 41 - 20).astype(np.int16).reshape(3, 4, 5)


def test_the_paper_s_size() -> None:
    recipe = load_recipe("autoencoder")
    assert isinstance(recipe, AutoencoderRecipe)
    assert recipe.reference == "Table I, Autoencoder, 0.13 M"
    size = count_parameters(ScalarAutoencoder(recipe.model))
    assert size == pytest.approx(130_000, rel=0.02)
    assert recipe.model == parse(AutoencoderModelConfig, {})  # the defaults are the recipe's


@pytest.mark.parametrize("step", [1, 2, 3, 7, 8, 20, 40, 41])
def test_a_step_merges_fine_integers_into_equal_bins_around_zero(step: int) -> None:
    fine_F = torch.arange(-20, 21)
    symbols_F = merge(fine_F, step)
    # Independently: the nearest multiple; where two are as near, the upper one.
    expected = [int(np.floor(np.float64(fine) / step + (step // 2) / step)) for fine in fine_F.tolist()]
    assert symbols_F.tolist() == expected
    assert int((symbols_F * step - fine_F).abs().max()) <= step // 2
    assert int(merge(torch.tensor(0), step)) == 0
    counts_DF = numpy_generator(0).integers(1, 99, (2, 41))
    model = ChannelHistograms(counts_DF, step)
    assert model.smallest_symbol == int(symbols_F[0])
    merged_DK = [[row[symbols_F.numpy() == k].sum() for k in symbols_F.unique().tolist()] for row in counts_DF]
    np.testing.assert_array_equal(model.counts_DK, merged_DK)


@pytest.mark.parametrize("size_hw", [(64, 96), (1, 1), (1, 300), (37, 51)])
@pytest.mark.parametrize("step", [1, 4, 41])
def test_the_receiver_gets_the_senders_symbols(
    codec: AutoencoderCodec, image: ImageArray, size_hw: tuple[int, int], step: int
) -> None:
    fine_Dhw = codec.fine_integers(np.resize(image, (*size_hw, 3)))
    assert fine_Dhw.shape == (3, -(-size_hw[0] // 8), -(-size_hw[1] // 8))
    received = codec.decode(stream(codec, fine_Dhw, *size_hw, step))
    assert (received.setting, received.height, received.width) == (step, *size_hw)
    np.testing.assert_array_equal(received.symbols, merge(torch.from_numpy(fine_Dhw), step).numpy())
    if step == 1:
        np.testing.assert_array_equal(received.symbols, fine_Dhw)


def test_the_same_integers_are_the_same_bytes_for_ever(codec: AutoencoderCodec) -> None:
    fine_Dhw = golden_latent()
    data = stream(codec, fine_Dhw, 32, 40, 3)
    header, payload = bitstream.unpack(data)
    assert header.entropy_model_id == ChannelHistograms.model_id == 16
    assert payload.hex() == GOLDEN_PAYLOAD
    np.testing.assert_array_equal(codec.decode(data).symbols, merge(torch.from_numpy(fine_Dhw), 3).numpy())


def test_the_estimate_is_what_the_bytes_take(codec: AutoencoderCodec) -> None:
    fine_Dhw = np.clip(numpy_generator(1).normal(0, 6, (3, 40, 50)).round(), -20, 20).astype(np.int16)
    sizes = []
    for step in (1, 2, 5, 12):
        model = ChannelHistograms(codec.checkpoint.counts.numpy(), step)
        indices_Dhw = merge(torch.from_numpy(fine_Dhw), step).numpy() - model.smallest_symbol
        share_DK = model.counts_DK / model.counts_DK.sum(axis=1, keepdims=True)
        bits = -sum(np.log2(share_DK[d][indices_Dhw[d]]).sum() for d in range(3))
        sizes.append(codec.payload_bytes(stream(codec, fine_Dhw, 320, 400, step)))
        assert sizes[-1] == pytest.approx(1 + bits / 8, abs=6)
    assert sizes == sorted(sizes, reverse=True)


def test_a_budget_takes_the_finest_step_that_fits(codec: AutoencoderCodec, image: ImageArray) -> None:
    fine_Dhw = codec.fine_integers(image)
    sizes = [len(stream(codec, fine_Dhw, 64, 96, step)) for step in range(1, 42)]
    for budget_bytes in (sizes[-1], 40, 60, 100, sizes[0]):
        data = codec.compress_to_budget(image, budget_bytes)
        step = codec.decode(data).setting
        assert len(data) == sizes[step - 1] <= budget_bytes
        assert step == 1 or sizes[step - 2] > budget_bytes
    assert codec.decode(codec.compress(image)).setting == 4
    smallest = codec.compress_smallest(image)
    assert codec.payload_bytes(smallest) == 1  # the step alone: all fine integers are one symbol


def test_damaged_and_untrue_streams_are_refused(codec: AutoencoderCodec, image: ImageArray) -> None:
    data = codec.compress(image)
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        with pytest.raises(BitstreamError):
            codec.decompress(bytes(damaged))
    header, payload = bitstream.unpack(data)
    for changed, body, text in (
        ({"height": 16000, "width": 16000}, payload, "is not a stream of 2000x2000 latent positions"),
        ({"height": 128}, payload, "is not a"),
        ({"entropy_model_id": 1}, payload, "unknown entropy model 1"),
        ({}, b"", "step of the latent must be 1..41"),
        ({}, b"\0" + payload[1:], "step of the latent must be 1..41"),
        ({}, b"\x2a" + payload[1:], "step of the latent must be 1..41"),
        ({}, payload + b"\0", "is not a stream of"),
    ):
        with pytest.raises(BitstreamError, match=text):
            codec.decompress(bitstream.pack(dataclasses.replace(header, **changed), body))


def with_counts(counts: torch.Tensor) -> CodecCheckpoint:
    return dataclasses.replace(scalar_checkpoint(), counts=counts)


def test_models_are_told_apart(codec: AutoencoderCodec, image: ImageArray, tmp_path: Path) -> None:
    data = codec.compress(image)
    for other in (
        scalar_checkpoint(seed=1),
        with_counts(torch.ones(3, 41, dtype=torch.int64)),
        scalar_checkpoint(step=5),
    ):
        with pytest.raises(ForeignStreamError):
            AutoencoderCodec(other).decompress(data)
    with pytest.raises(ForeignStreamError):
        VqCodec(checkpoint()).decompress(data)
    for counts in (torch.ones(3, 40), torch.ones(2, 41), torch.ones(41), torch.zeros(3, 41)):
        with pytest.raises(CheckpointError, match="frequency tables"):
            AutoencoderCodec(with_counts(counts.long()))
    save_codec(tmp_path / "plain", scalar_checkpoint())
    save_codec(tmp_path / "vq", checkpoint())
    assert load_codec_checkpoint(tmp_path / "plain").fingerprint() == scalar_checkpoint().fingerprint()
    assert load_codec(tmp_path / "plain").compress(image) == data
    assert {type(load_trained_codec(tmp_path / name)) for name in ("plain", "vq")} == {AutoencoderCodec, VqCodec}
    with pytest.raises(CheckpointError, match="is of kind 'autoencoder', a VQ codec"):
        load_vq_codec(tmp_path / "plain")
    with pytest.raises(CheckpointError, match="is of kind 'codec', an autoencoder was expected"):
        AutoencoderCodec.load(tmp_path / "vq")
    with pytest.raises(ConfigError, match="'tiny-autoencoder' has no option entropy: leave it out"):
        load_codec(tmp_path / "plain", options=StreamOptions(entropy="fixed"))
    config = tmp_path / "plain" / "config.json"
    config.write_text(config.read_text().replace('"autoencoder"', '"autoencodr"', 1))
    with pytest.raises(CheckpointError, match="holds a 'autoencodr'"):
        load_codec(tmp_path / "plain")


def test_large_pictures_in_tiles_are_those_in_one_piece(
    codec: AutoencoderCodec, image: ImageArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = np.resize(image, (200, 264, 3))
    whole_Dhw = codec.fine_integers(picture)
    data = stream(codec, whole_Dhw, 200, 264, 2)
    whole = codec.decompress(data).astype(int)
    monkeypatch.setattr("gosvae.codecs.tiling.TILE_PIXELS", 64)
    assert np.abs(codec.fine_integers(picture) - whole_Dhw).max() <= 1
    assert (codec.fine_integers(picture) == whole_Dhw).mean() > 0.999
    assert np.abs(codec.decompress(data) - whole).max() <= 1


def test_impossible_settings_are_refused() -> None:
    for settings, message in (
        ({"step": 130}, r"step 130: expected 1\.\.129"),
        ({"training_steps": [4, 0]}, r"step 0: expected 1\.\.129"),
        ({"fine_levels": 128}, "less than or equal to 127"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse(AutoencoderModelConfig, settings)
    for counts, step in (
        (np.ones((2, 4), int), 1),
        (np.ones((2, 5)), 1),
        (np.ones((2, 5), int), 6),
        (np.ones(5, int), 1),
    ):
        with pytest.raises(ConfigError, match="channel histograms"):
            ChannelHistograms(counts, step)


def test_training_rounds_each_image_with_its_step() -> None:
    network = ScalarAutoencoder(parse(AutoencoderModelConfig, {"training_steps": [1, 30], "latent_channels": 2}))
    x = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    result = network(x)
    steps = (1, 30, 1)
    for i, step in enumerate(steps):
        torch.testing.assert_close(result.indices_Bhw[i], merge(network.encode(x.detach())[i].long(), step))
    result.x_hat_B3HW.sum().backward()
    assert x.grad is not None
    assert all(float(x.grad[i].abs().sum()) > 0 for i in range(3))  # straight through the rounding


def test_training_lowers_the_error_and_counts_the_tables(tmp_path: Path, image: ImageArray) -> None:
    small = ["model.autoencoder.width=8", "model.autoencoder.hidden_width=4", "model.latent_channels=4"]
    stage = "{batch_size: 2, crop_height: 32, crop_width: 48}"
    recipe = load_recipe(
        "autoencoder",
        [
            *small,
            "stages.0.steps=80",
            f"stages.0.batches={stage}",
            "stages.0.ema_decay=0.5",
            "stages.0.learning_rate=5.0e-3",
            "stages.0.warmup_steps=5",
        ],
    )
    assert isinstance(recipe, AutoencoderRecipe)
    train_codec(recipe, streets(), streets(), expert(), None, run_config(), tmp_path, progress=False)
    codec = AutoencoderCodec.load(tmp_path)
    seed_everything(0)  # as the run began
    fresh = AutoencoderCodec(recipe.finished("fresh", recipe.network(), streets(1), 10**6))

    def error(made: AutoencoderCodec) -> float:
        return float(np.square(made.decompress(made.compress(image)).astype(float) - image).mean())

    assert error(codec) < 0.75 * error(fresh)
    counts_DF = count_fine_integers(codec, streets())
    torch.testing.assert_close(counts_DF, codec.checkpoint.counts)
    assert counts_DF.sum(dim=1).tolist() == [129 + 4 * 8 * 12] * 4  # one for each entry, and four images
    assert codec.description["latent"].startswith("D = 4 channels of 129 fine integers")


def test_a_stopped_run_ends_bit_for_bit_as_one_that_was_not(tmp_path: Path) -> None:
    small = ["model.autoencoder.width=8", "stages.0.steps=3", "model.training_steps=[4, 20]"]
    recipe = load_recipe("autoencoder", [*small, "stages.0.batches={batch_size: 2, crop_height: 32, crop_width: 32}"])
    assert isinstance(recipe, AutoencoderRecipe)

    def run(folder: Path, max_minutes: float | None) -> bool:
        data, options = streets(2), run_config(seed=3)
        made = train_codec(recipe, data, data, None, None, options, folder, max_minutes=max_minutes, progress=False)
        return made.complete

    assert run(tmp_path / "whole", None)
    sessions = [run(tmp_path / "parts", 0.0) for _ in range(3)]  # one step each
    assert sessions == [False, False, True]
    whole, parts = (load_codec_checkpoint(tmp_path / name) for name in ("whole", "parts"))
    assert whole.fingerprint() == parts.fingerprint()


def test_untrue_sizes_take_no_memory(codec: AutoencoderCodec) -> None:
    largest, certain = codec.config.largest_step, scalar_checkpoint().counts.long()
    certain[:, 20] = 10**9
    for maker, step in ((codec, largest), (AutoencoderCodec(with_counts(certain)), 9)):
        large = stream(maker, np.zeros((3, 400, 300), np.int16), 3200, 2400, step)
        header, payload = bitstream.unpack(large)
        assert payload == bytes([largest]).ljust(-(-(3 * 400 * 300 - 2**18) // 1024), b"\0")
        sent = maker.decode(large)
        assert (sent.symbols.shape, sent.symbols.any(), sent.setting) == ((3, 400, 300), False, largest)
        tracemalloc.start()
        for forged in (payload[:-1], payload + b"\0", bytes([largest]), bytes([9]) + payload[1:]):
            larger = dataclasses.replace(header, height=8192, width=16384)
            with pytest.raises(BitstreamError, match=r"is not a (latent|stream)"):
                maker.decode(bitstream.pack(larger, forged))
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()
