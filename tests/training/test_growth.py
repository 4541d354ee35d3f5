"""A grown network begins as the one that it grew from, and trains on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_variable import recipe

from gosvae.codecs.checkpoint import load_codec_checkpoint
from gosvae.codecs.variable_model import VariableRateAutoencoder, VariableRateConfig
from gosvae.nn.pyramid import PyramidConfig
from gosvae.seeding import seed_everything, torch_generator
from gosvae.tensors import image_to_tensor
from gosvae.training.codecs import train_codec
from gosvae.training.growth import begin_as, can_grow, heard_channels, make_finer, wake_features
from tiny import expert, perceptual, run_config, streets, variable_checkpoint, variable_config


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


def test_silent_channels_are_left_out_of_a_wider_network() -> None:
    source, donor = variable_checkpoint(), VariableRateAutoencoder(variable_config())
    donor.context.thaw(source.context)
    # The context model's heads are the last word on what a channel holds: 1 and 6 are always 0.
    with torch.no_grad():
        for group, place in ((0, 1), (1, 2)):
            head = donor.context.heads[group].state_dict()
            head["weight_OI"][7 * place : 7 * (place + 1)] = 0.0
            head["bias_PO"][:, 7 * place : 7 * (place + 1)] = torch.tensor([0.0] * 3 + [12.0] + [0.0] * 3)
    source = replace(source, context=donor.context.freeze())
    assert heard_channels(donor).tolist() == [0, 2, 3, 4, 5, 7]
    model = grown(1, 0)
    model = model.model_copy(update={"context": model.context.model_copy(update={"first_levels": (0, 0, 128)})})
    assert can_grow(variable_config(), model)
    network = VariableRateAutoencoder(model)
    begin_as(network, source)
    kept = source.weights["encoder.to_latent.weight"][[0, 2, 3, 4, 5, 7]].float()
    torch.testing.assert_close(network.encoder.to_latent.weight[:6], kept)
    assert not network.decoder.from_latent.weight[:, 6:].any()
    torch.testing.assert_close(network.context.embedding[7:14], donor.context.embedding[14:21])


def test_steps_become_finer_where_the_integers_have_room() -> None:
    config = variable_config().model_copy(
        update={"context": variable_config().context.model_copy(update={"anchors": 5, "bound": 7})}
    )
    network = VariableRateAutoencoder(config)
    with torch.no_grad():  # channel 0: always 0; 1: -7 or 7; all others: as likely as each other
        head = network.context.heads[0].state_dict()
        head["weight_OI"].zero_()
        head["bias_PO"].zero_()
        head["bias_PO"][:, 7] = 60.0
        head["bias_PO"][:, [15, 29]] = 60.0
    gains_DA, product_DA = network.log_gains_DA.clone(), network.log_gains_DA + network.log_inverse_gains_DA
    make_finer(network, 4.0)
    more_DA = (network.log_gains_DA - gains_DA).exp()
    torch.testing.assert_close(more_DA[0], torch.tensor([1.0, 1.0, 1.0, 2.0, 4.0]))
    torch.testing.assert_close(more_DA[1:4], torch.ones(3, 5))
    torch.testing.assert_close(network.log_gains_DA + network.log_inverse_gains_DA, product_DA)
    untouched = network.log_gains_DA.clone()
    make_finer(network, 1.0)
    torch.testing.assert_close(network.log_gains_DA, untouched)


@torch.no_grad()
def test_dead_features_wake_and_fill_new_channels_with_what_is_new() -> None:
    source, model = variable_checkpoint(), grown(1, 0)
    model = model.model_copy(update={"context": model.context.model_copy(update={"first_levels": (0, 200, 200)})})
    network, untouched = VariableRateAutoencoder(model), VariableRateAutoencoder(model)
    seed_everything(2)
    images = [streets(3)[i].image_uint8_HW3 for i in range(3)]
    for one in (network, untouched):
        begin_as(one, source)
        bias_C = list(one.encoder.body.parameters())[-1]
        bias_C[:] = torch.tensor([-100.0] * 4 + [1.0] * 4)
    context = source.card.model.context  # type: ignore[union-attr]
    assert wake_features(network, images, context.channels) == 4
    x_B3HW = torch.cat([image_to_tensor(image) for image in images])
    features_BChw = torch.relu(network.encoder.body(x_B3HW - 0.5))
    assert (features_BChw.transpose(0, 1).flatten(1).std(dim=1) > 1e-3).all()
    old, new = untouched.transform(x_B3HW), network.transform(x_B3HW)
    torch.testing.assert_close(new[:, : context.channels], old[:, : context.channels])
    fresh_NC = new[:, context.channels :].permute(0, 2, 3, 1).flatten(0, 2)
    torch.testing.assert_close(fresh_NC.T.cov(correction=0), 0.64 * torch.eye(fresh_NC.shape[1]), atol=1e-3, rtol=0.0)
    torch.testing.assert_close(fresh_NC.mean(dim=0), torch.zeros(fresh_NC.shape[1]), atol=1e-3, rtol=0.0)
    assert wake_features(network, images, context.channels) == 0


def test_channels_of_high_levels_can_begin_anew() -> None:
    source = variable_checkpoint()
    context = variable_config().context.model_copy(update={"first_levels": (0, 128)})
    model = variable_config().model_copy(update={"context": context})
    card = source.card.model_copy(update={"model": model})
    network = VariableRateAutoencoder(model)
    assert begin_as(network, replace(source, card=card)) == context.channels
    seed_everything(3)
    network, fresh = VariableRateAutoencoder(model), VariableRateAutoencoder(model)
    with torch.no_grad():
        fresh.log_gains_DA.copy_(network.log_gains_DA)
    assert begin_as(network, replace(source, card=card), below=128) == context.group
    assert not network.decoder.from_latent.weight[:, context.group :].any()
    torch.testing.assert_close(network.log_gains_DA[context.group :], fresh.log_gains_DA[context.group :])
    donor = source.weights["log_gains_DA"].float()
    torch.testing.assert_close(network.log_gains_DA[: context.group], donor[: context.group])
    assert not torch.equal(network.log_gains_DA, donor)


def finer(more_blocks: int = 0) -> VariableRateConfig:
    """The finer grids of the tiny model, with a latent of its own."""
    pyramid = variable_config().pyramid
    encoder_blocks = (*pyramid.encoder_blocks[:-2], pyramid.encoder_blocks[-2] + more_blocks)
    return variable_config().model_copy(
        update={
            "pyramid": PyramidConfig(
                encoder_widths=pyramid.encoder_widths[:-1],
                encoder_blocks=encoder_blocks,
                decoder_widths=pyramid.decoder_widths[:-1],
                decoder_blocks=pyramid.decoder_blocks[:-1],
            ),
            "context": variable_config().context.model_copy(update={"width": 24}),
        }
    )


def test_a_network_of_fewer_grids_takes_over_its_own(tmp_path: Path) -> None:
    data = streets(2)
    train_codec(recipe(), data, data, expert(), perceptual(), run_config(), tmp_path / "coarse", progress=False)
    source = load_codec_checkpoint(tmp_path / "coarse")
    seed_everything(1)
    whole, network = VariableRateAutoencoder(variable_config()), VariableRateAutoencoder(finer(1))
    begin_as(whole, source)
    begin_as(network, source)
    ours, theirs = network.decoder, whole.decoder
    feature_BCHW = torch.rand(1, finer().pyramid.decoder_widths[-1], 6, 8, generator=torch_generator(0))
    torch.testing.assert_close(ours.grids[0](feature_BCHW), theirs.grids[1](feature_BCHW))
    torch.testing.assert_close(ours.to_image.weight, theirs.to_image.weight)
    x_B3HW = torch.rand(1, 3, 16, 16, generator=torch_generator(0))
    torch.testing.assert_close(network.encoder.body[:2](x_B3HW), whole.encoder.body[:2](x_B3HW))
    assert network.stride == whole.stride // 2
    wide = recipe(model=finer(1).model_dump())
    assert train_codec(
        wide,
        data,
        data,
        expert(),
        perceptual(),
        run_config(),
        tmp_path / "fine",
        init=tmp_path / "coarse",
        progress=False,
    ).complete


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
    assert can_grow(model, finer())
    assert not can_grow(finer(), model)
    deeper = finer().model_copy(update={"pyramid": grown(0, 1).pyramid})
    assert not can_grow(model, deeper)
