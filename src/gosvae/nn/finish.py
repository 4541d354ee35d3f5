"""A light layer at full resolution behind the last pixel shuffle of a decoder.

A decoder that ends in a pixel shuffle paints squares: no convolution sees two neighbouring pixels of different squares,
so whatever differs between the positions of a square stays in the picture as a lattice (Odena et al. 2016,
"Deconvolution and checkerboard artifacts"). The layer here sees the picture and a few features at full resolution,
which begin without a lattice (ICNR, Aitken et al. 2017).

Axis legend: B images, C channels, H and W pixels, h and w positions of the decoder's last grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

START_DEVIATION = 0.6
"""Standard deviation, in pixels, of the Gaussian that a new layer applies to the picture."""


class Finish(nn.Module):
    """The picture and the decoder's last features to a picture of the same size.

    A new layer blurs the picture a little and ignores the features: on pictures with a lattice this alone helps
    networks that were not imitated.

    Args:
        in_channels: of the features.
        channels: of the features at full resolution, and of the hidden layer.
        upscale: r; pixels for each position of the features on each axis.
    """

    def __init__(self, in_channels: int, channels: int, upscale: int) -> None:
        super().__init__()
        self._upscale = upscale
        self.spread = nn.Conv2d(in_channels, channels * upscale**2, 1)
        self.look = nn.Conv2d(3 + channels, channels, 3, padding=1)
        self.paint = nn.Conv2d(3 + channels, 3, 3, padding=1)
        with torch.no_grad():
            # One kernel for all positions of a square: the features begin without a lattice.
            self.spread.weight.copy_(self.spread.weight[:: upscale**2].repeat_interleave(upscale**2, dim=0))
            assert self.spread.bias is not None
            self.spread.bias.zero_()
            self.paint.weight.zero_()
            assert self.paint.bias is not None
            self.paint.bias.zero_()
            for colour in range(3):
                self.paint.weight[colour, colour] = _gaussian_33(START_DEVIATION)

    def forward(self, image_B3HW: Tensor, features_BChw: Tensor) -> Tensor:
        """The finished picture, 0 being its middle grey as in `image_B3HW`; the edges are repeated outwards."""
        spread_BCHW = F.pixel_shuffle(self.spread(features_BChw), self._upscale)
        seen_BCHW = F.relu(_convolved(self.look, torch.cat([image_B3HW, spread_BCHW], dim=1)))
        return _convolved(self.paint, torch.cat([image_B3HW, seen_BCHW], dim=1))


def _convolved(convolution: nn.Conv2d, x_BCHW: Tensor) -> Tensor:
    """A 3x3 convolution that repeats the edge: zeros would darken the border of the picture."""
    return F.conv2d(F.pad(x_BCHW, (1, 1, 1, 1), mode="replicate"), convolution.weight, convolution.bias)


def _gaussian_33(deviation: float) -> Tensor:
    """A Gaussian of 3x3 taps with sum 1."""
    line_3 = torch.exp(-torch.tensor([1.0, 0.0, 1.0]) / (2.0 * deviation**2))
    kernel_33 = line_3[:, None] * line_3
    return kernel_33 / kernel_33.sum()
