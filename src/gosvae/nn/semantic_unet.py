"""U-Net of semantic diffusion models, from noisy pictures and a semantic map to the denoising prediction.

The layout is that of Wang et al. 2022 ("Semantic Image Synthesis via Diffusion Models"), which GESCO (Grassucci et al.
2023) uses: the way down sees the noisy picture alone (Dhariwal and Nichol 2021), and SPADE normalises the middle and
the way up by the map. The U-Nets of diffusers have no such normalisation, so this one is our own.

Axis legend: B images, C channels, E channels of the time embedding, L label channels, h and w positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gosvae.config import MOST_BLOCKS, MOST_CHANNELS, Channels, Config
from gosvae.nn.spade import SemanticCondition, SpadeGroupNorm, group_count

IMAGE_CHANNELS = 3
"""Number of channels of a picture."""


class UNetConfig(Config):
    """Sizes of a semantic U-Net; the defaults are GESCO's, with 674.7 M parameters for 35 classes and edges.

    Attributes:
        patch: number of pixels per position on each axis at the finest level; above 1, squares of pixels are folded
            into channels, so that a small network runs on a coarse grid. The papers have 1.
        width: number of channels, multiplied by `multipliers` on each level.
        multipliers: multiples of the width on each level; every level halves the resolution.
        blocks: number of residual blocks of a level on the way down; the way up has one more.
        attention_strides: levels with self-attention, by their stride in positions of the finest level.
        head_width: number of channels of one attention head.
        spade_width: number of channels inside each SPADE normalisation.
        learned_variance: whether the variance of each step is predicted too (Nichol and Dhariwal 2021).
        edges: whether the map has a channel for its edges.
        checkpointing: whether features are computed again in the backward pass instead of kept, which takes less memory
            and more time.
    """

    neutral: ClassVar[Mapping[str, Any]] = {
        "patch": 1,
        "width": 256,
        "multipliers": [1, 1, 2, 2, 4, 4],
        "blocks": 2,
        "attention_strides": [8, 16, 32],
        "head_width": 64,
        "spade_width": 128,
        "learned_variance": True,
        "edges": True,
        "checkpointing": False,
    }

    patch: int = Field(default=1, ge=1, le=16)
    width: int = Field(default=256, ge=4, le=MOST_CHANNELS)
    multipliers: tuple[Annotated[int, Field(le=64)], ...] = Field(
        default=(1, 1, 2, 2, 4, 4), min_length=1, max_length=8
    )
    blocks: int = Field(default=2, ge=1, le=MOST_BLOCKS)
    attention_strides: tuple[int, ...] = Field(default=(8, 16, 32), max_length=8)
    head_width: Channels = 64
    spade_width: Channels = 128
    learned_variance: bool = True
    edges: bool = True
    checkpointing: bool = False

    @model_validator(mode="after")
    def _sizes_fit(self) -> UNetConfig:
        if any(m < 1 for m in self.multipliers):
            raise ValueError("multipliers must be at least 1")
        strides = [2**level for level in range(len(self.multipliers))]
        if unknown := set(self.attention_strides) - set(strides):
            raise ValueError(f"attention_strides {sorted(unknown)} are no strides of the levels, which have {strides}")
        return self

    @property
    def stride(self) -> int:
        """Number of pixels that the sides of pictures must be multiples of."""
        return self.patch << (len(self.multipliers) - 1)

    def label_channels(self, class_count: int) -> int:
        """Return the number of label channels, L: one for each class, and one for the edges if there are any."""
        return class_count + int(self.edges)


def _zeroed(convolution: nn.Conv2d) -> nn.Conv2d:
    """Return a convolution with all parameters set to zero, so that its residual branch adds nothing at the start."""
    for parameter in convolution.parameters():
        nn.init.zeros_(parameter)
    return convolution


def time_embedding(timesteps_B: Tensor, channels: int) -> Tensor:
    """Return cosines and sines (B, channels) of steps at wavelengths from 2 pi to 20000 pi (Vaswani et al. 2017)."""
    half = channels // 2
    rates = torch.exp(-math.log(10_000.0) * torch.arange(half, dtype=torch.float32, device=timesteps_B.device) / half)
    angles = timesteps_B.float()[:, None] * rates[None, :]
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, channels % 2))


class PlainNorm(nn.GroupNorm):
    """Group normalisation with learned scale and shift, called like SPADE; the map is not used."""

    def forward(self, x_BChw: Tensor, condition: SemanticCondition | None = None) -> Tensor:
        """Return normalised features (B, C, h, w)."""
        del condition
        return super().forward(x_BChw)


def _norm(channels: int, label_channels: int | None, hidden: int) -> PlainNorm | SpadeGroupNorm:
    """Return a SPADE normalisation if there are label channels, otherwise a plain one."""
    if label_channels is None:
        return PlainNorm(group_count(channels), channels)
    return SpadeGroupNorm(channels, label_channels, hidden)


class Block(nn.Module):
    """Residual block of a diffusion U-Net of two times normalisation, SiLU and a 3x3 convolution.

    The time embedding scales and shifts the features in between.

    Args:
        config: sizes.
        in_channels, out_channels: numbers of channels of the input and the output.
        label_channels: number of channels of the map for SPADE normalisation; None for a plain one.
        resample: -1 halves the resolution inside the block, 1 doubles it, 0 keeps it.
    """

    def __init__(
        self,
        config: UNetConfig,
        in_channels: int,
        out_channels: int,
        *,
        label_channels: int | None = None,
        resample: int = 0,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.norm_in = _norm(in_channels, label_channels, config.spade_width)
        self.conv_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(4 * config.width, 2 * out_channels)
        self.norm_out = _norm(out_channels, label_channels, config.spade_width)
        self.conv_out = _zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def _resampled(self, x_BChw: Tensor) -> Tensor:
        if self.resample < 0:
            return F.avg_pool2d(x_BChw, 2)
        return F.interpolate(x_BChw, scale_factor=2.0, mode="nearest") if self.resample else x_BChw

    def forward(self, x_BChw: Tensor, time_BE: Tensor, condition: SemanticCondition) -> Tensor:
        """Return features (B, C', h', w')."""
        hidden = self.conv_in(self._resampled(F.silu(self.norm_in(x_BChw, condition))))
        scale, shift = self.time(F.silu(time_BE))[:, :, None, None].chunk(2, dim=1)
        hidden = self.norm_out(hidden, condition) * (1 + scale) + shift
        result: Tensor = self.skip(self._resampled(x_BChw)) + self.conv_out(F.silu(hidden))
        return result


class Attention(nn.Module):
    """Residual self-attention over all positions with several heads; it is the identity at the start."""

    def __init__(self, channels: int, head_width: int) -> None:
        super().__init__()
        # As many heads of head_width as fit; fewer channels than that make one head.
        self.heads = max(1, channels // head_width) if channels % head_width == 0 else 1
        self.norm = nn.GroupNorm(group_count(channels), channels)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.to_out = _zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x_BChw: Tensor) -> Tensor:
        """Return features (B, C, h, w)."""
        batch, channels, height, width = x_BChw.shape
        qkv = self.to_qkv(self.norm(x_BChw)).reshape(batch, 3, self.heads, channels // self.heads, height * width)
        query, key, value = (part.transpose(-1, -2).contiguous() for part in qkv.unbind(1))
        mixed = F.scaled_dot_product_attention(query, key, value)
        change: Tensor = self.to_out(mixed.transpose(-1, -2).reshape(batch, channels, height, width))
        return x_BChw + change


class Level(nn.Module):
    """A block, followed by attention if the level has it."""

    def __init__(self, block: Block, attention: Attention | None, *, checkpointing: bool) -> None:
        super().__init__()
        self.block = block
        self.attention = attention
        self.checkpointing = checkpointing

    def _run(self, x_BChw: Tensor, time_BE: Tensor, condition: SemanticCondition) -> Tensor:
        x_BChw = self.block(x_BChw, time_BE, condition)
        return x_BChw if self.attention is None else self.attention(x_BChw)

    def forward(self, x_BChw: Tensor, time_BE: Tensor, condition: SemanticCondition) -> Tensor:
        """Return features (B, C', h', w')."""
        if self.checkpointing and torch.is_grad_enabled():
            again = checkpoint(self._run, x_BChw, time_BE, condition, use_reentrant=False)
            return cast(Tensor, again)
        return self._run(x_BChw, time_BE, condition)


class SemanticUNet(nn.Module):
    """Network that predicts the noise or the picture from noisy pictures (B, 3, H, W), steps and semantic maps.

    H and W must be multiples of `config.stride`.

    Args:
        config: sizes.
        label_channels: number of label channels of the maps, L, see `UNetConfig.label_channels`.
    """

    def __init__(self, config: UNetConfig, label_channels: int) -> None:
        super().__init__()
        self.config = config
        self.label_channels = label_channels
        folded = IMAGE_CHANNELS * config.patch**2
        # With patches the map is folded by a learned convolution: positions within a square stay visible.
        spade_channels = config.spade_width if config.patch > 1 else label_channels
        self.fold_map = (
            nn.Conv2d(label_channels, spade_channels, config.patch, stride=config.patch)
            if config.patch > 1
            else nn.Identity()
        )
        self.time = nn.Sequential(
            nn.Linear(config.width, 4 * config.width), nn.SiLU(), nn.Linear(4 * config.width, 4 * config.width)
        )
        self.stem = nn.Conv2d(folded, config.multipliers[0] * config.width, 3, padding=1)
        skips = self._build_down(config)
        channels = skips[-1]
        self.middle_in = self._level(config, channels, channels, spade_channels, attends=True)
        self.middle_out = self._level(config, channels, channels, spade_channels)
        channels = self._build_up(config, skips, spade_channels)
        self.norm = nn.GroupNorm(group_count(channels), channels)
        self.head = _zeroed(nn.Conv2d(channels, folded * (1 + config.learned_variance), 3, padding=1))

    @staticmethod
    def _level(
        config: UNetConfig,
        in_channels: int,
        out_channels: int,
        label_channels: int | None = None,
        *,
        resample: int = 0,
        attends: bool = False,
    ) -> Level:
        block = Block(config, in_channels, out_channels, label_channels=label_channels, resample=resample)
        attention = Attention(out_channels, config.head_width) if attends else None
        return Level(block, attention, checkpointing=config.checkpointing)

    def _build_down(self, config: UNetConfig) -> list[int]:
        """Build the way down and return the channels of its outputs, in order, which the way up gets as well."""
        self.down = nn.ModuleList()
        channels = config.multipliers[0] * config.width
        skips = [channels]
        for depth, multiplier in enumerate(config.multipliers):
            for _ in range(config.blocks):
                attends = 2**depth in config.attention_strides
                self.down.append(self._level(config, channels, multiplier * config.width, attends=attends))
                channels = multiplier * config.width
                skips.append(channels)
            if depth < len(config.multipliers) - 1:
                self.down.append(self._level(config, channels, channels, resample=-1))
                skips.append(channels)
        return skips

    def _build_up(self, config: UNetConfig, skips: list[int], label_channels: int) -> int:
        """Build the way up and return the channels of its last level."""
        self.up = nn.ModuleList()
        self.doubles = nn.ModuleList()
        left = list(skips)
        channels = left[-1]
        for depth, multiplier in reversed(list(enumerate(config.multipliers))):
            attends = 2**depth in config.attention_strides
            wide = multiplier * config.width
            for _ in range(config.blocks + 1):
                self.up.append(self._level(config, channels + left.pop(), wide, label_channels, attends=attends))
                channels = wide
            if depth:
                self.doubles.append(self._level(config, channels, channels, label_channels, resample=1))
        return channels

    def condition(self, map_BLHW: Tensor, *, keep_bytes: int = 0) -> SemanticCondition:
        """Return the map, folded to the finest level; see `SemanticCondition` for `keep_bytes`."""
        return SemanticCondition(self.fold_map(map_BLHW), keep_bytes=keep_bytes)

    def forward(self, x_B3HW: Tensor, timesteps_B: Tensor, condition: SemanticCondition) -> Tensor:
        """Return the prediction (B, 3, H, W), or with learned variance (B, 6, H, W), the variance's channels last."""
        time_BE = self.time(time_embedding(timesteps_B, self.config.width))
        x = self.stem(F.pixel_unshuffle(x_B3HW, self.config.patch))
        skips = [x]
        for level in self.down:
            x = level(x, time_BE, condition)
            skips.append(x)
        x = self.middle_out(self.middle_in(x, time_BE, condition), time_BE, condition)
        doubles = iter(self.doubles)
        for number, level in enumerate(self.up, start=1):
            x = level(torch.cat([x, skips.pop()], dim=1), time_BE, condition)
            if number % (self.config.blocks + 1) == 0 and skips:
                x = next(doubles)(x, time_BE, condition)
        return F.pixel_shuffle(self.head(F.silu(self.norm(x))), self.config.patch)
