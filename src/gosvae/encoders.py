"""Encoders from `x_B3HW` in [0, 1] to a latent `z_BDhw` with h = H / r, w = W / r.

There are four architectures: `shallow` and `residual` are the paper's, `vqgan` is that of its VQ-GAN baseline, and
`compact` is our own for coarse grids. The stride r is a power of two and sets the depth.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.errors import ConfigError
from gosvae.nn.autoencoder import UNSHUFFLE, AutoencoderConfig, grid_widths, stage_widths
from gosvae.nn.blocks import Residual, ShallowResidual
from gosvae.nn.normalised import HalfSize, SwishResidual, group_norm, middle
from gosvae.tensors import check_layout


class ShallowEncoder(nn.Module):
    """Encoder of strided 4x4 convolutions, a 3x3 convolution, shallow residual blocks and a 1x1 convolution to D.

    The design is that of van den Oord et al. 2017.
    """

    def __init__(self, config: AutoencoderConfig, code_dim: int) -> None:
        super().__init__()
        width, half = config.width, config.width // 2
        widths = [3, half] + [width] * (config.depth - 1)
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths))
        self.mix = nn.Conv2d(widths[-1], width, 3, padding=1)
        self.blocks = nn.Sequential(*(ShallowResidual(width, config.hidden_width) for _ in range(config.blocks)))
        self.to_latent = nn.Conv2d(width, code_dim, 1)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        x = x_B3HW - 0.5
        for down in self.downs:
            x = F.relu(down(x))
        latent: Tensor = self.to_latent(F.relu(self.blocks(self.mix(x))))
        return latent


class ResidualEncoder(nn.Module):
    """Encoder with one residual block at every stride on the way down, and `blocks` of them at the last stride."""

    def __init__(self, config: AutoencoderConfig, code_dim: int) -> None:
        super().__init__()
        widths = stage_widths(config.width, config.depth)
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1)]
        for a, b in pairwise(widths):
            layers += [nn.Conv2d(a, b, 4, stride=2, padding=1), Residual(b)]
        layers += [Residual(widths[-1]) for _ in range(config.blocks)]
        self.body = nn.Sequential(*layers)
        self.to_latent = nn.Conv2d(widths[-1], code_dim, 1)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        latent: Tensor = self.to_latent(F.relu(self.body(x_B3HW - 0.5)))
        return latent


class CompactEncoder(nn.Module):
    """Encoder of a pixel-unshuffle by 4 and dense 3x3 residual blocks on coarse grids.

    It takes few multiplications for each pixel.
    """

    def __init__(self, config: AutoencoderConfig, code_dim: int) -> None:
        super().__init__()
        if config.stride < UNSHUFFLE:
            raise ConfigError(f"the compact architecture starts at stride {UNSHUFFLE}, got stride {config.stride}")
        width = config.width
        halvings = config.depth - (UNSHUFFLE.bit_length() - 1)
        layers: list[nn.Module] = [nn.PixelUnshuffle(UNSHUFFLE)]
        first = width if halvings == 0 else width // 2
        layers += [nn.Conv2d(3 * UNSHUFFLE**2, first, 3, padding=1)]
        for i in range(halvings):
            layers += [nn.ReLU(), nn.Conv2d(first if i == 0 else width, width, 4, stride=2, padding=1)]
        layers += [Residual(width) for _ in range(config.blocks)]
        self.body = nn.Sequential(*layers)
        self.to_latent = nn.Conv2d(width, code_dim, 1)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        latent: Tensor = self.to_latent(F.relu(self.body(x_B3HW - 0.5)))
        return latent


class VqganEncoder(nn.Module):
    """Encoder with normalised residual blocks on every grid and two more on the last one (Esser et al. 2021).

    The original ends with a 3x3 and a 1x1 convolution; here one convolution does the work of both, since nothing
    stands between them.
    """

    def __init__(self, config: AutoencoderConfig, code_dim: int) -> None:
        super().__init__()
        widths = grid_widths(config, config.width)
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1)]
        last = widths[0]
        for i, width in enumerate(widths):
            layers += [HalfSize(last)] if i > 0 else []
            for _ in range(config.blocks):
                layers.append(SwishResidual(last, width))
                last = width
        layers += [*middle(last, attention=config.attention), group_norm(last), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.to_latent = nn.Conv2d(last, code_dim, 3, padding=1)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        latent: Tensor = self.to_latent(self.body(2.0 * x_B3HW - 1.0))
        return latent


class Encoder(nn.Module):
    """Encoder from `x_B3HW` in [0, 1] to `z_BDhw`; H and W must be multiples of the stride.

    Raises:
        ShapeError: the input is not (B, 3, H, W).
    """

    def __init__(self, config: AutoencoderConfig, code_dim: int) -> None:
        super().__init__()
        networks = {
            "shallow": ShallowEncoder,
            "residual": ResidualEncoder,
            "compact": CompactEncoder,
            "vqgan": VqganEncoder,
        }
        self.network: nn.Module = networks[config.architecture](config, code_dim)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        check_layout(x_B3HW, "(B, 3, H, W)", axis_1=3)
        z_BDhw: Tensor = self.network(x_B3HW)
        return z_BDhw
