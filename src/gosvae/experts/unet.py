"""U-Net with self-attention: an expert whose architecture differs from the compact one.

It takes no part in the training of the package's codecs, so it shows whether their reconstructions also suit a network
that they do not imitate. The layout is that of Ronneberger et al. 2015 (skips are
concatenated), with batch normalisation, SiLU, and one block of global self-attention (Vaswani et al. 2017) at stride
16. All convolutions are dense: depthwise ones are slow to train through on CPUs.

Axis legend: B images, C channels, H and W positions, N heads, T positions of the coarsest grid in one row, E channels
of a head.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.config import Blocks, Channels, Config
from gosvae.tensors import pad_to_multiple

HEADS = 4
"""Number of heads of the attention."""


class UNetConfig(Config):
    """Size of a U-Net for segmentation; the default has 2.0 M parameters."""

    kind: Literal["unet"] = "unet"
    widths: tuple[Channels, Channels, Channels, Channels] = (32, 64, 96, 192)
    """Numbers of channels at strides 2, 4, 8 and 16; the last is divided among `HEADS` heads."""
    blocks: tuple[Blocks, Blocks, Blocks] = (1, 1, 3)
    """Numbers of convolutions after each halving of the encoder, at strides 4, 8 and 16."""
    class_count: int = Field(gt=1, le=255)

    @field_validator("widths")
    @classmethod
    def _whole_heads(cls, widths: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        if widths[-1] % HEADS:
            raise ValueError(f"the last width must be a multiple of {HEADS}, one part for each head of the attention")
        return widths


def _convolution(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.SiLU(),
    )


def _down(in_channels: int, out_channels: int, more: int) -> nn.Sequential:
    convolutions = (_convolution(out_channels, out_channels) for _ in range(more))
    return nn.Sequential(_convolution(in_channels, out_channels, stride=2), *convolutions)


class GlobalAttention(nn.Module):
    """Self-attention of every position to all others, from (B, C, H, W) to the same shape.

    There is no encoding of positions: the features already depend on their neighbourhood.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.merge = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        batch, channels, height, width = x_BCHW.shape
        qkv_B3NET = self.query_key_value(self.norm(x_BCHW)).reshape(batch, 3, HEADS, channels // HEADS, -1)
        q_BNTE, k_BNTE, v_BNTE = qkv_B3NET.transpose(-1, -2).unbind(1)
        y_BNTE = F.scaled_dot_product_attention(q_BNTE, k_BNTE, v_BNTE)
        change: Tensor = self.merge(y_BNTE.transpose(-1, -2).reshape(batch, channels, height, width))
        return x_BCHW + change


class UNetSegmenter(nn.Module):
    """Trainable network from RGB (B, 3, H, W) in [0, 1] to class logits (B, m, H, W); an expert holds it frozen."""

    feature_layers = ("down8", "attention", "up4")

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        w2, w4, w8, w16 = config.widths
        n4, n8, n16 = config.blocks
        self.down2 = _down(3, w2, 0)
        self.down4 = _down(w2, w4, n4)
        self.down8 = _down(w4, w8, n8)
        self.down16 = _down(w8, w16, n16)
        self.attention = GlobalAttention(w16)
        self.up8 = nn.Sequential(_convolution(w16 + w8, w8), _convolution(w8, w8))
        self.up4 = nn.Sequential(_convolution(w8 + w4, w4), _convolution(w4, w4))
        self.up2 = _convolution(w4 + w2, w2)
        self.head = nn.Conv2d(w2, config.class_count, 1)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        height, width = x_B3HW.shape[-2:]
        f2 = self.down2(pad_to_multiple(x_B3HW, 16) * 4.0 - 2.0)
        f4 = self.down4(f2)
        f8 = self.down8(f4)
        f16 = self.attention(self.down16(f8))
        f8 = self.up8(_joined(f16, f8))
        f4 = self.up4(_joined(f8, f4))
        f2 = self.up2(_joined(f4, f2))
        logits = F.interpolate(self.head(f2).float(), scale_factor=2.0, mode="bilinear", align_corners=False)
        return logits[..., :height, :width]


def _joined(coarse_BCHW: Tensor, fine_BCHW: Tensor) -> Tensor:
    """Return the enlarged coarse features, concatenated with the fine ones of the encoder."""
    return torch.cat([F.interpolate(coarse_BCHW, scale_factor=2.0, mode="nearest"), fine_BCHW], dim=1)
