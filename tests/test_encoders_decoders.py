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
from gosvae.nn.pyramid import PyramidConfig, PyramidDecoder, PyramidEncoder
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


def reach(network: nn.Module, stride: int, halo: int, *, encoder: bool) -> int:
    """Latent positions from the middle one to the furthest that influences it or its pixels, by gradients.

    All weights are the same and all activations are open, so that nothing cancels out.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.constant_(module.weight, 0.1)
            if module.bias is not None:
                nn.init.ones_(module.bias)
    side = 2 * halo + 5
    channels, rows, columns = (3, 3 * stride, side * stride) if encoder else (2, 3, side)
    x = torch.ones(1, channels, rows, columns, requires_grad=True)
    y = network(x)
    middle = side // 2
    kept = slice(middle, middle + 1) if encoder else slice(middle * stride, (middle + 1) * stride)
    y[..., kept].sum().backward()
    assert x.grad is not None
    reached = x.grad.abs().sum(dim=(0, 1, 2)).reshape(side, -1).sum(dim=1).nonzero().flatten()
    return int((reached - middle).abs().max())


@pytest.mark.parametrize("architecture", ["shallow", "residual", "compact"])
@pytest.mark.parametrize("stride", [4, 16, 32])
@pytest.mark.parametrize("blocks", [(1, 3), (2, 0)])
def test_the_halo_is_what_reaches_a_tile_and_no_more(architecture: str, stride: int, blocks: tuple[int, int]) -> None:
    """What tiling rests on."""
    config = AutoencoderConfig(
        architecture=architecture,  # type: ignore[arg-type]
        stride=stride,
        width=4,
        hidden_width=4,
        blocks=blocks[0],
        decoder_blocks=blocks[1],
    )
    assert config.encoder_halo is not None
    assert config.decoder_halo is not None
    assert reach(Encoder(config, 2), stride, config.encoder_halo, encoder=True) == config.encoder_halo
    assert reach(Decoder(config, 2), stride, config.decoder_halo, encoder=False) == config.decoder_halo


@pytest.mark.parametrize("grids", [1, 2, 3])
@pytest.mark.parametrize("finish", [0, 4])
def test_the_halo_of_a_pyramid_is_what_reaches_a_tile_and_no_more(grids: int, finish: int) -> None:
    config = PyramidConfig(
        encoder_widths=(4,) * grids,
        encoder_blocks=(1, 0, 2)[:grids],
        decoder_widths=(4,) * grids,
        decoder_blocks=(2, 1, 1)[:grids],
        finish_channels=finish,
    )
    encoder, decoder = PyramidEncoder(config, 2), PyramidDecoder(config, 2, 1)
    assert reach(encoder, config.stride, config.encoder_halo, encoder=True) == config.encoder_halo
    whole = Conditioned(decoder)
    assert reach(whole, config.stride, config.decoder_halo, encoder=False) == config.decoder_halo


class Conditioned(nn.Module):
    """A decoder at one rate."""

    def __init__(self, decoder: PyramidDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, z_q_BDhw: torch.Tensor) -> torch.Tensor:
        image: torch.Tensor = self.decoder(z_q_BDhw, torch.ones(len(z_q_BDhw), 1))
        return image
