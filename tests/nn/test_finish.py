"""The layer at full resolution behind a decoder: how it starts, and that codecs with it train, load and tile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gosvae.codecs import tiling
from gosvae.codecs.cards import VariableRateCard
from gosvae.codecs.checkpoint import CodecCheckpoint, load_codec_checkpoint, save_codec
from gosvae.codecs.registry import load_trained_codec
from gosvae.codecs.variable import VariableRateCodec
from gosvae.codecs.variable_model import VariableRateAutoencoder, VariableRateConfig
from gosvae.config import identity
from gosvae.datasets.streets import Streets
from gosvae.losses.pattern import fixed_pattern, repeated_pattern
from gosvae.nn.finish import Finish
from gosvae.seeding import seed_everything, torch_generator
from gosvae.tensors import image_to_tensor
from gosvae.training.growth import begin_as, can_grow
from tiny import streets, variable_checkpoint, variable_config


def finished_config(channels: int = 4) -> VariableRateConfig:
    model = variable_config()
    return model.model_copy(update={"pyramid": model.pyramid.model_copy(update={"finish_channels": channels})})


def with_finish(source: CodecCheckpoint) -> CodecCheckpoint:
    """The codec with a layer that does something."""
    seed_everything(4)
    network = VariableRateAutoencoder(finished_config())
    begin_as(network, source)
    assert network.decoder.finish is not None
    torch.nn.init.normal_(network.decoder.finish.paint.weight, std=0.1)
    torch.nn.init.normal_(network.decoder.finish.square_3RR, std=0.02)
    card = source.card.model_copy(update={"model": network.config})
    weights = {name: value for name, value in network.state_dict().items() if not name.startswith("context.")}
    return replace(source, card=card, weights=weights)


def test_a_new_layer_changes_nothing_and_can_paint_every_square() -> None:
    seed_everything(0)
    layer = Finish(6, 4, upscale=4, stride=16).requires_grad_(False)
    picture, features = torch.rand(2, 3, 32, 48), torch.randn(2, 6, 8, 12)
    assert torch.equal(layer(picture, features), picture)
    torch.nn.init.normal_(layer.square_3RR)
    squares = (layer(picture, features) - picture).unflatten(3, (3, 16)).unflatten(2, (2, 16))
    torch.testing.assert_close(squares, layer.square_3RR[:, None, :, None].expand_as(squares))


def test_a_painted_picture_keeps_its_edges() -> None:
    layer = Finish(6, 4, upscale=4, stride=16).requires_grad_(False)
    torch.nn.init.constant_(layer.paint.weight, 0.1)
    layer.look.weight.zero_()
    layer.look.bias.zero_()  # type: ignore[union-attr]
    finished = layer(torch.full((1, 3, 32, 32), 0.2), torch.zeros(1, 6, 8, 8))
    torch.testing.assert_close(finished, torch.full_like(finished, 0.2 + 27 * 0.1 * 0.2))


def test_features_begin_without_a_lattice() -> None:
    seed_everything(0)
    layer = Finish(6, 4, upscale=4, stride=16).requires_grad_(False)
    spread = torch.nn.functional.pixel_shuffle(layer.spread(torch.randn(1, 6, 16, 16)), 4)
    squares = spread.unflatten(3, (16, 4)).unflatten(2, (16, 4))
    torch.testing.assert_close(squares, squares[..., :1, :, :1].expand_as(squares))
    assert float(repeated_pattern(torch.zeros(1, 3, 64, 64), spread[:, :3], stride=4)) < 1e-9


def test_the_layer_is_no_part_of_the_identity_of_models_without_it() -> None:
    assert "finish_channels" not in str(identity(variable_config()))
    assert "finish_channels" in str(identity(finished_config()))
    assert finished_config().pyramid.decoder_halo >= variable_config().pyramid.decoder_halo


def test_a_codec_without_the_layer_can_begin_one_with_it_for_the_same_bits() -> None:
    assert can_grow(variable_config(), finished_config())
    assert can_grow(finished_config(), finished_config())
    assert not can_grow(finished_config(), variable_config())
    assert not can_grow(finished_config(), finished_config(8))
    source = variable_checkpoint()
    plain, finished = (VariableRateAutoencoder(config).eval() for config in (variable_config(), finished_config()))
    begin_as(plain, source)
    begin_as(finished, source)
    x_B3HW = torch.rand(1, 3, 64, 64, generator=torch_generator(0))
    level_B = torch.tensor([100])
    old, new = plain.scaled(plain.transform(x_B3HW), level_B), finished.scaled(finished.transform(x_B3HW), level_B)
    torch.testing.assert_close(old, new)
    torch.testing.assert_close(finished.picture(new.round(), level_B), plain.picture(old.round(), level_B))


def test_a_new_layer_takes_away_what_all_squares_share() -> None:
    seed_everything(1)
    plain, finished = (VariableRateAutoencoder(config).eval() for config in (variable_config(), finished_config()))
    images = [streets()[i].image_uint8_HW3 for i in range(4)]
    begin_as(plain, variable_checkpoint())
    begin_as(finished, variable_checkpoint(), images)
    x_B3HW, level_B = torch.cat([image_to_tensor(image) for image in images]), torch.full((4,), 128)

    def pattern(network: VariableRateAutoencoder) -> float:
        x_hat_B3HW = network.picture(network.scaled(network.transform(x_B3HW), level_B).round(), level_B)
        return float(fixed_pattern(x_B3HW, x_hat_B3HW.detach(), stride=network.stride))

    assert pattern(finished) < 0.2 * pattern(plain)


def test_a_codec_with_the_layer_is_stored_loaded_and_tiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_codec(tmp_path, with_finish(variable_checkpoint()))
    card = load_codec_checkpoint(tmp_path).card
    assert isinstance(card, VariableRateCard)
    assert card.model.pyramid.finish_channels == 4
    codec = load_trained_codec(tmp_path)
    assert isinstance(codec, VariableRateCodec)
    image = Streets(1, seed=3, height=250, width=389)[0].image_uint8_HW3
    data = codec.compress_at(image, 128)
    whole = codec.decompress(data)
    monkeypatch.setattr(tiling, "TILE_PIXELS", 96)
    difference = np.abs(codec.decompress(data).astype(int) - whole)
    assert (difference <= 1).mean() >= 0.999
    assert difference.max() <= 2
