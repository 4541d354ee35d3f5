"""Building blocks of the VQ-GAN (Esser et al. 2021). Axis legend: B images, C channels, H and W positions.

Group normalisation and attention see the whole picture, so a network of these blocks cannot work in tiles (see
`AutoencoderConfig.decoder_halo`).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

MOST_GROUPS = 32
"""Largest number of groups of a group normalisation."""
SMALLEST_GROUP = 4
"""Least number of channels of a group, as at the finest grid of Esser et al.

A group of one channel would remove the contrast of that channel.
"""


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a normalisation in 32 groups, or fewer if they would be unequal or have fewer than four channels."""
    most = max(1, min(MOST_GROUPS, channels // SMALLEST_GROUP))
    groups = max(number for number in range(1, most + 1) if channels % number == 0)
    return nn.GroupNorm(groups, channels, eps=1e-6)


class SwishResidual(nn.Module):
    """Pre-activation residual block of two times normalisation, swish and a 3x3 convolution.

    A 1x1 convolution is on the shortcut where the width changes.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm_1 = group_norm(channels)
        self.first = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm_2 = group_norm(out_channels)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut: nn.Module = (
            nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, kernel_size=1)
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        change: Tensor = self.first(F.silu(self.norm_1(x_BCHW)))
        change = self.second(F.silu(self.norm_2(change)))
        kept: Tensor = self.shortcut(x_BCHW)
        return kept + change


class SelfAttention(nn.Module):
    """Residual self-attention with one head over all positions.

    PyTorch's fused attention holds no (HW)^2 matrix; the time stays quadratic in HW.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        batch, channels, height, width = x_BCHW.shape
        qkv_B1PC = self.query_key_value(self.norm(x_BCHW)).flatten(2).transpose(1, 2).unsqueeze(1)
        mixed_B1PC = F.scaled_dot_product_attention(*(part.contiguous() for part in qkv_B1PC.chunk(3, dim=-1)))
        mixed_BCHW = mixed_B1PC.squeeze(1).transpose(1, 2).reshape(batch, channels, height, width)
        change: Tensor = self.project(mixed_BCHW)
        return x_BCHW + change


class HalfSize(nn.Module):
    """Strided 3x3 convolution, padded right and bottom, which halves height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW: Tensor = self.convolution(F.pad(x_BCHW, (0, 1, 0, 1)))
        return y_BCHW


class DoubleSize(nn.Module):
    """Nearest-neighbour repetition and a 3x3 convolution, which double height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW: Tensor = self.convolution(F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest"))
        return y_BCHW


def middle(channels: int, *, attention: bool) -> list[nn.Module]:
    """Return the layers on the coarsest grid, next to the latent, for the encoder; the decoder has the same ones."""
    between = [SelfAttention(channels)] if attention else []
    return [SwishResidual(channels, channels), *between, SwishResidual(channels, channels)]
