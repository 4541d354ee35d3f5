"""Decoders from a quantised latent `z_q_BDhw` to the reconstruction `x_hat_B3HW`; they mirror `gosvae.encoders`."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.nn.autoencoder import UNSHUFFLE, AutoencoderConfig, grid_widths, stage_widths
from gosvae.nn.blocks import Residual, ShallowResidual
from gosvae.nn.normalised import DoubleSize, SwishResidual, group_norm, middle
from gosvae.tensors import check_layout


class ShallowDecoder(nn.Module):
    """Decoder of a 3x3 convolution, shallow residual blocks and strided 4x4 transposed convolutions."""

    def __init__(self, config: AutoencoderConfig, code_dim: int) -> None:
        super().__init__()
        width = config.decoder_width or config.width
        widths = [width] * config.depth + [3]
        if config.depth > 1:
            widths[-2] = width // 2
        self.from_latent = nn.Conv2d(code_dim, width, 3, padding=1)
        self.blocks = nn.Sequential(
            *(ShallowResidual(width, config.hidden_width) for _ in range(_decoder_blocks(config)))
        )
        self.ups = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths))

    def forward(self, z_q_BDhw: Tensor) -> Tensor:
        x = self.blocks(self.from_latent(z_q_BDhw))
        for up in self.ups:
            x = up(F.relu(x))
        image: Tensor = x + 0.5
        return image


class ResidualDecoder(nn.Module):
    """Decoder with `blocks` residual blocks on the latent grid, then one block at every stride on the way up."""

    def __init__(self, config: AutoencoderConfig, code_dim: int) -> None:
        super().__init__()
        widths = stage_widths(config.decoder_width or config.width, config.depth)[::-1]
        layers: list[nn.Module] = [nn.Conv2d(code_dim, widths[0], 3, padding=1)]
        layers += [Residual(widths[0]) for _ in range(_decoder_blocks(config))]
        for a, b in pairwise(widths):
            layers += [Residual(a), nn.ConvTranspose2d(a, b, 4, stride=2, padding=1)]
        self.body = nn.Sequential(*layers)
        self.to_image = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, z_q_BDhw: Tensor) -> Tensor:
        image: Tensor = self.to_image(F.relu(self.body(z_q_BDhw)))
        return image + 0.5


class CompactDecoder(nn.Module):
    """Decoder with dense 3x3 residual blocks on the latent grid and on the grid of stride 4, then a pixel-shuffle."""

    def __init__(self, config: AutoencoderConfig, code_dim: int) -> None:
        super().__init__()
        width = config.decoder_width or config.width
        halvings = config.depth - (UNSHUFFLE.bit_length() - 1)
        layers: list[nn.Module] = [nn.Conv2d(code_dim, width, 3, padding=1)]
        layers += [Residual(width) for _ in range(_decoder_blocks(config))]
        last = width
        for i in range(halvings):
            a, last = last, width if i < halvings - 1 else width // 2
            layers += [nn.ReLU(), nn.Conv2d(a, 4 * last, 3, padding=1), nn.PixelShuffle(2), Residual(last)]
        self.body = nn.Sequential(*layers)
        self.to_image = nn.Sequential(nn.Conv2d(last, 3 * UNSHUFFLE**2, 3, padding=1), nn.PixelShuffle(UNSHUFFLE))

    def forward(self, z_q_BDhw: Tensor) -> Tensor:
        image: Tensor = self.to_image(F.relu(self.body(z_q_BDhw)))
        return image + 0.5


class VqganDecoder(nn.Module):
    """Decoder that mirrors `VqganEncoder`, with one block more on every grid, as in Esser et al. (2021)."""

    def __init__(self, config: AutoencoderConfig, code_dim: int) -> None:
        super().__init__()
        widths = grid_widths(config, config.decoder_width or config.width)[::-1]
        last = widths[0]
        layers: list[nn.Module] = [nn.Conv2d(code_dim, last, 3, padding=1), *middle(last, attention=config.attention)]
        for i, width in enumerate(widths):
            layers += [DoubleSize(last)] if i > 0 else []
            for _ in range(_decoder_blocks(config)):
                layers.append(SwishResidual(last, width))
                last = width
        self.body = nn.Sequential(*layers, group_norm(last), nn.SiLU())
        self.to_image = nn.Conv2d(last, 3, 3, padding=1)

    def forward(self, z_q_BDhw: Tensor) -> Tensor:
        image: Tensor = self.to_image(self.body(z_q_BDhw))
        return 0.5 * (image + 1.0)


def _decoder_blocks(config: AutoencoderConfig) -> int:
    return config.blocks if config.decoder_blocks is None else config.decoder_blocks


class Decoder(nn.Module):
    """Decoder from `z_q_BDhw` to `x_hat_B3HW`, nominally in [0, 1] and not clamped.

    Raises:
        ShapeError: the latent does not have `code_dim` channels.
    """

    def __init__(self, config: AutoencoderConfig, code_dim: int) -> None:
        super().__init__()
        self.code_dim = code_dim
        networks = {
            "shallow": ShallowDecoder,
            "residual": ResidualDecoder,
            "compact": CompactDecoder,
            "vqgan": VqganDecoder,
        }
        self.network: nn.Module = networks[config.architecture](config, code_dim)

    @property
    def last_layer(self) -> nn.Parameter:
        """Kernel of the last layer, where the gradients of two losses are compared (Esser et al. 2021)."""
        return [parameter for parameter in self.network.parameters() if parameter.ndim == 4][-1]

    def forward(self, z_q_BDhw: Tensor) -> Tensor:
        check_layout(z_q_BDhw, "(B, D, h, w)", axis_1=self.code_dim)
        x_hat_B3HW: Tensor = self.network(z_q_BDhw)
        return x_hat_B3HW
