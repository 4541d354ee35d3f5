"""A grown network begins as the one that it grew from, and trains on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gosvae.codecs.checkpoint import load_codec_checkpoint
from gosvae.codecs.variable_model import VariableRateAutoencoder, VariableRateConfig
from gosvae.nn.pyramid import PyramidConfig
from gosvae.seeding import seed_everything, torch_generator
from gosvae.training.codecs import train_codec
from gosvae.training.growth import begin_as, can_grow
from tiny import expert, perceptual, run_config, streets, variable_checkpoint, variable_config
from tiny import variable_recipe as recipe


def grown(more_channels: int, more_blocks: int) -> VariableRateConfig:
    model = variable_config()
    blocks = tuple(n + more_blocks for n in model.pyramid.decoder_blocks)
    channels = model.context.channels + more_channels * model.context.group
    return model.model_copy(
        update={
            "pyramid": model.pyramid.model_copy(update={"decoder_blocks": blocks}),
            "context": model.context.model_copy(update={"channels": channels}),
        }
    )


@pytest.mark.parametrize(("channels", "blocks"), [(0, 0), (0, 1), (1, 0), (2, 2)])
def test_a_grown_network_makes_the_same_pictures_for_the_same_bits(tmp_path: Path, channels: int, blocks: int) -> None:
    train_codec(recipe(), streets(2), streets(2), expert(), perceptual(), run_config(), tmp_path, progress=False)
    source = load_codec_checkpoint(tmp_path)
    seed_everything(1)
    same, larger = VariableRateAutoencoder(variable_config()), VariableRateAutoencoder(grown(channels, blocks))
    begin_as(same, source)
    begin_as(larger, source)
    context, wide = same.config.context, larger.config.context
    x_B3HW = torch.rand(2, 3, 48, 64, generator=torch_generator(0))
    level_B = torch.tensor([10, 200])
    old, new = same.scaled(same.transform(x_B3HW), level_B), larger.scaled(larger.transform(x_B3HW), level_B)
    torch.testing.assert_close(new[:, : context.channels], old)
    torch.testing.assert_close(larger.picture(new.round(), level_B), same.picture(old.round(), level_B))

    symbols_N, added_N = (y.round().permute(0, 2, 3, 1).flatten(0, 2).long() + context.bound for y in (old, new))
    torch.testing.assert_close(
        larger.context.embed(larger.context.rows(added_N)), same.context.embed(same.context.rows(symbols_N))
    )
    torch.testing.assert_close(larger.context.unknown(), same.context.unknown())
    h_NC = torch.rand(5, context.width, generator=torch_generator(2))
    for group in range(context.groups):
        torch.testing.assert_close(larger.context.logits(h_NC, group), same.context.logits(h_NC, group))
    assert wide.groups == context.groups + channels


def test_new_channels_have_no_influence_yet() -> None:
    source, model = variable_checkpoint(), grown(1, 0)
    model = model.model_copy(update={"context": model.context.model_copy(update={"first_levels": (0, 64, 128)})})
    assert can_grow(variable_config(), model)
    network, old = VariableRateAutoencoder(model), variable_config().context
    begin_as(network, source)
    kept = source.weights["encoder.to_latent.weight"].float()
    torch.testing.assert_close(network.encoder.to_latent.weight[: old.channels], kept)
    assert network.encoder.to_latent.weight[old.channels :].any()  # gradients reach them
    assert not network.decoder.from_latent.weight[:, old.channels :].any()
    assert not network.context.embedding[old.channels * old.values : -1].any()


def test_training_goes_on_from_a_smaller_codec(tmp_path: Path) -> None:
    data = streets(2)
    train_codec(recipe(), data, data, expert(), perceptual(), run_config(), tmp_path / "small", progress=False)
    wide = recipe(model=grown(1, 1).model_dump())
    outcome = train_codec(
        wide,
        data,
        data,
        expert(),
        perceptual(),
        run_config(),
        tmp_path / "wide",
        init=tmp_path / "small",
        progress=False,
    )
    assert outcome.complete
    assert load_codec_checkpoint(tmp_path / "wide").card.model == wide.model


def test_a_network_does_not_shrink_nor_change_its_widths() -> None:
    model = variable_config()
    assert can_grow(model, model)
    assert can_grow(model, grown(1, 1))
    assert not can_grow(grown(1, 0), model)
    assert not can_grow(grown(0, 1), model)
    wider = model.model_copy(update={"context": model.context.model_copy(update={"width": model.context.width + 1})})
    assert not can_grow(model, wider)
    pyramid = model.pyramid
    finer = PyramidConfig(
        encoder_widths=pyramid.encoder_widths[:-1],
        encoder_blocks=pyramid.encoder_blocks[:-1],
        decoder_widths=pyramid.decoder_widths[:-1],
        decoder_blocks=pyramid.decoder_blocks[:-1],
    )
    assert not can_grow(model, model.model_copy(update={"pyramid": finer}))
