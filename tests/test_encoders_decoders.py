"""Sizes: shapes at every stride, and the parameter counts that the paper gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gosvae.codecs.vq_model import VqAutoencoder
from gosvae.decoders import Decoder
from gosvae.encoders import Encoder
from gosvae.errors import ConfigError, ShapeError
from gosvae.experts.compact import count_parameters
from gosvae.nn.autoencoder import AutoencoderConfig
from gosvae.recipes import load_recipe
from gosvae.training.vq import VqRecipe
from tiny import model_config

STRIDES = [("shallow", 2), ("residual", 2)] + [
    (name, stride) for name in ("shallow", "residual", "compact", "vqgan") for stride in (4, 8, 16, 32)
]


@pytest.mark.parametrize(("architecture", "stride"), STRIDES)
def test_latents_and_pictures_have_their_sizes(architecture: str, stride: int) -> None:
    network = VqAutoencoder(model_config(architecture=architecture, stride=stride, decoder_width=12, decoder_blocks=2))
    x_B3HW = torch.rand(2, 3, 32, 64)
    assert network.encoder(x_B3HW).shape == (2, 4, 32 // stride, 64 // stride)
    result = network(x_B3HW)
    assert result.indices_Bhw.shape == (2, 32 // stride, 64 // stride)
    assert result.x_hat_B3HW.shape == x_B3HW.shape
    result.x_hat_B3HW.square().mean().backward()
    first = next(network.encoder.parameters())
    assert first.grad is not None
    assert float(first.grad.abs().sum()) > 0  # straight through the quantizer, all the way up
    indices_Bhw = network.encode(x_B3HW)
    assert torch.equal(indices_Bhw, network.eval()(x_B3HW).indices_Bhw)
    picture = network.decode(indices_Bhw)
    assert picture.shape == x_B3HW.shape
    assert 0 <= float(picture.min()) <= float(picture.max()) <= 1


def parameters_of(name: str) -> int:
    recipe = load_recipe(name)
    assert isinstance(recipe, VqRecipe)
    with torch.device("meta"):
        return count_parameters(VqAutoencoder(recipe.model))


@pytest.mark.parametrize("name", ["vqvae", "gosvae", "gosvae-scratch"])
def test_the_classic_model_has_exactly_its_parameters(name: str) -> None:
    assert parameters_of(name) == 694_851


@pytest.mark.parametrize("name", ["vqvae-residual", "gosvae-residual"])
def test_the_residual_model_has_the_papers_size(name: str) -> None:
    assert parameters_of(name) == pytest.approx(7.32e6, rel=0.02)


def test_deeper_is_larger_and_the_decoder_can_outweigh_the_encoder() -> None:
    sizes = [count_parameters(VqAutoencoder(model_config(stride=stride))) for stride in (2, 4, 8, 16, 32)]
    assert sizes == sorted(set(sizes))
    config = AutoencoderConfig(
        architecture="compact", stride=16, width=16, blocks=1, decoder_width=32, decoder_blocks=3
    )
    assert count_parameters(Decoder(config, 4)) > 4 * count_parameters(Encoder(config, 4))


def test_other_layouts_are_refused() -> None:
    network = VqAutoencoder(model_config())
    for shape in ((1, 1, 32, 32), (3, 32, 32), (1, 4, 32, 32)):
        with pytest.raises(ShapeError, match=r"3 channels|expected"):
            network.encoder(torch.zeros(shape))
    with pytest.raises(ShapeError, match=r"4 channels"):
        network.decoder(torch.zeros(1, 5, 8, 8))
    with pytest.raises(ConfigError, match=r"starts at stride 4, got stride 2"):
        VqAutoencoder(model_config(architecture="compact", stride=2))


@pytest.mark.parametrize("architecture", ["shallow", "residual", "compact"])
@pytest.mark.parametrize("stride", [4, 16, 32])
def test_nothing_beyond_the_halo_reaches_a_position(architecture: str, stride: int) -> None:
    """What tiling rests on, measured by gradients with all activations open."""
    config = AutoencoderConfig(
        architecture=architecture,
        stride=stride,
        width=4,
        hidden_width=4,
        blocks=1,
        decoder_blocks=3,  # type: ignore[arg-type]
    )
    for build in (Encoder, Decoder):
        network = build(config, 2)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.constant_(module.weight, 0.1)
                if module.bias is not None:
                    nn.init.ones_(module.bias)
        side = 2 * config.halo + 3
        channels, pixels = (3, side * stride) if build is Encoder else (2, side)
        x = torch.ones(1, channels, 3 * (stride if build is Encoder else 1), pixels, requires_grad=True)
        y = network(x)
        centre = side // 2 * (1 if build is Encoder else stride)
        y[..., centre].sum().backward()
        assert x.grad is not None
        reached = x.grad.abs().sum(dim=(0, 1, 2)).reshape(side, -1).sum(dim=1).nonzero().flatten()
        furthest = int((reached - side // 2).abs().max())
        assert 0 < furthest <= config.halo
