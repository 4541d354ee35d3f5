"""A light encoder and a strong decoder on a pyramid of grids, each with its own width and depth.

The encoder begins at stride 4 with a pixel-unshuffle and the decoder ends there with a pixel-shuffle, so that every
convolution is dense and runs on a coarse grid.

Axis legend: B images, C channels, D latent channels, H and W pixels, h and w latent positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.config import Blocks, Channels, Config
from gosvae.nn.autoencoder import UNSHUFFLE
from gosvae.nn.blocks import Residual
from gosvae.nn.finish import Finish

Widths = Annotated[tuple[Channels, ...], Field(min_length=1, max_length=5)]
Depths = Annotated[tuple[Blocks, ...], Field(min_length=1, max_length=5)]


class PyramidConfig(Config):
    """Sizes of encoder and decoder on each grid from fine to coarse: strides 4, 8, 16, ..., the latent's stride last.

    The defaults have an encoder of 0.45 M parameters and 6.3 kMAC for each pixel, and a decoder of 7.4 M and 79 kMAC.

    Attributes:
        encoder_widths, decoder_widths: numbers of channels.
        encoder_blocks, decoder_blocks: numbers of residual blocks.
        finish_channels: number of channels of the layer at full resolution behind the last pixel shuffle (`Finish`); 0
            leaves the layer out.
    """

    neutral: ClassVar[Mapping[str, Any]] = {
        "encoder_widths": [48, 96, 96],
        "encoder_blocks": [1, 0, 1],
        "decoder_widths": [96, 160, 192],
        "decoder_blocks": [2, 4, 6],
        "finish_channels": 0,
    }

    encoder_widths: Widths = (48, 96, 96)
    encoder_blocks: Depths = (1, 0, 1)
    decoder_widths: Widths = (96, 160, 192)
    decoder_blocks: Depths = (2, 4, 6)
    finish_channels: int = Field(default=0, ge=0, le=64)

    @model_validator(mode="after")
    def _one_for_each_grid(self) -> PyramidConfig:
        lengths = {
            len(sizes) for sizes in (self.encoder_widths, self.encoder_blocks, self.decoder_widths, self.decoder_blocks)
        }
        if len(lengths) > 1:
            raise ValueError("widths and blocks of encoder and decoder: expected one number for each grid")
        return self

    @property
    def stride(self) -> int:
        """Number of pixels per latent position on each axis, r."""
        return UNSHUFFLE << (len(self.encoder_widths) - 1)

    @property
    def encoder_halo(self) -> int:
        """Number of latent positions around a tile that can influence it in the encoder.

        A 3x3 convolution reaches one position of its own grid, a strided 4x4 convolution one of the grid before it.
        """
        strides = [UNSHUFFLE << n for n in range(len(self.encoder_widths))]
        blocks = sum(2 * n * stride for n, stride in zip(self.encoder_blocks, strides, strict=True))
        return -(-(UNSHUFFLE + sum(strides[:-1]) + blocks) // self.stride)

    @property
    def decoder_halo(self) -> int:
        """Number of latent positions around a tile that can influence it in the decoder."""
        return self.decoder_halo_from(0)

    def decoder_halo_from(self, grid: int) -> int:
        """Return the number of latent positions around a tile that can influence it in the decoder from a grid on.

        Grid 0 is the latent's. The halo of a later grid begins behind the residual blocks of the grid before it.
        """
        reach = 2 if self.finish_channels else 1  # to_image, on the finest grid
        for n in range(len(self.decoder_widths)):
            coarser = len(self.decoder_widths) - 1 - n
            if coarser == grid - 1:
                return -(-reach >> coarser)
            reach += 2 * self.decoder_blocks[n]
            reach = (reach + 1) // 2 + 1 if coarser else reach + 1
        return reach


Margins = tuple[int, int, int, int]
"""Numbers of latent positions at the top, the bottom, the left and the right."""
NO_MARGINS: Margins = (0, 0, 0, 0)


def _cut(x_BCHW: Tensor, margins: Margins, keep: int, scale: int) -> tuple[Tensor, Margins]:
    """Return features without what their margins have beyond `keep`, and the margins that are left.

    A latent position has `scale` positions of the features on each axis.
    """
    top, bottom, left, right = (scale * max(0, margin - keep) for margin in margins)
    height, width = x_BCHW.shape[-2:]
    a, b, c, d = (min(margin, keep) for margin in margins)
    return x_BCHW[..., top : height - bottom, left : width - right], (a, b, c, d)


class Modulation(nn.Module):
    """Scale and shift of channels in dependence on the rate (feature-wise linear modulation, Perez et al. 2018)."""

    def __init__(self, n_conditions: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_conditions, 2 * channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x_BCHW: Tensor, condition_BA: Tensor) -> Tensor:
        scale_BC, shift_BC = self.linear(condition_BA).chunk(2, dim=1)
        result: Tensor = x_BCHW * (1.0 + scale_BC[..., None, None]) + shift_BC[..., None, None]
        return result


class PyramidEncoder(nn.Module):
    """Encoder from `x_B3HW` in [0, 1] to a latent (B, D, h, w); H and W must be multiples of the stride."""

    def __init__(self, config: PyramidConfig, latent_channels: int) -> None:
        super().__init__()
        widths = config.encoder_widths
        layers: list[nn.Module] = [nn.PixelUnshuffle(UNSHUFFLE), nn.Conv2d(3 * UNSHUFFLE**2, widths[0], 3, padding=1)]
        layers += [Residual(widths[0]) for _ in range(config.encoder_blocks[0])]
        for (a, b), blocks in zip(pairwise(widths), config.encoder_blocks[1:], strict=True):
            layers += [nn.ReLU(), nn.Conv2d(a, b, 4, stride=2, padding=1), *(Residual(b) for _ in range(blocks))]
        self.body = nn.Sequential(*layers)
        self.to_latent = nn.Conv2d(widths[-1], latent_channels, 1)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        latent: Tensor = self.to_latent(F.relu(self.body(x_B3HW - 0.5)))
        return latent


class PyramidDecoder(nn.Module):
    """Decoder from a latent (B, D, h, w) to `x_hat_B3HW`, float32, nominally in [0, 1] and not clamped.

    Args:
        config: sizes for each grid.
        latent_channels: number of channels of the latent, D.
        n_conditions: number of values that describe the rate of the latent, A, for `Modulation` on every grid.
    """

    def __init__(self, config: PyramidConfig, latent_channels: int, n_conditions: int) -> None:
        super().__init__()
        widths, blocks = config.decoder_widths[::-1], config.decoder_blocks[::-1]
        self.from_latent = nn.Conv2d(latent_channels, widths[0], 3, padding=1)
        self.from_lost = nn.Conv2d(1, widths[0], 3, padding=1, bias=False)
        nn.init.zeros_(self.from_lost.weight)
        grids = (nn.Sequential(*(Residual(w) for _ in range(n))) for w, n in zip(widths, blocks, strict=True))
        self.grids = nn.ModuleList(grids)
        self.modulations = nn.ModuleList(Modulation(n_conditions, width) for width in widths)
        self.ups = nn.ModuleList(nn.Conv2d(a, 4 * b, 3, padding=1) for a, b in pairwise(widths))
        self.to_image = nn.Conv2d(widths[-1], 3 * UNSHUFFLE**2, 3, padding=1)
        self._halos, self._stride = [config.decoder_halo_from(i) for i in range(len(widths))], config.stride
        n_finish = config.finish_channels
        self.finish = Finish(widths[-1], n_finish, UNSHUFFLE, config.stride) if n_finish else None

    @property
    def last_layer(self) -> nn.Parameter:
        """Kernel of the last layer, see `gosvae.decoders.Decoder.last_layer`."""
        weight = (self.to_image if self.finish is None else self.finish.paint).weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def forward(
        self,
        z_q_BDhw: Tensor,
        condition_BA: Tensor,
        lost_B1hw: Tensor | None = None,
        margins: Margins = NO_MARGINS,
    ) -> Tensor:
        """Return the picture of a latent.

        Args:
            z_q_BDhw: latent, 0 where it is not known.
            condition_BA: values that describe the rate.
            lost_B1hw: 1 where the latent is not known, 0 elsewhere; None if all of it is known.
            margins: numbers of latent positions at the edges that are not part of the picture. They are cut off grid by
                grid, as soon as nothing depends on them.
        """
        x = self.from_latent(z_q_BDhw)
        if lost_B1hw is not None:
            x = x + self.from_lost(lost_B1hw)
        for i, (modulation, grid) in enumerate(zip(self.modulations, self.grids, strict=True)):
            if i > 0:
                x, margins = _cut(x, margins, self._halos[i], 2 ** (i - 1))
                x = F.pixel_shuffle(self.ups[i - 1](F.relu(x)), 2)
            x = grid(modulation(x, condition_BA))
        x = F.relu(x)
        image: Tensor = F.pixel_shuffle(self.to_image(x), UNSHUFFLE)
        if self.finish is not None:
            image = self.finish(image, x)
        image, _ = _cut(image, margins, 0, self._stride)
        return image.float() + 0.5  # in bfloat16, light pixels would have steps of 1 / 256
