"""A light layer at full resolution behind the last pixel shuffle of a decoder.

A decoder that ends in a pixel shuffle paints squares: no convolution sees two neighbouring pixels of different squares,
so whatever differs between the positions of a square stays in the picture as a lattice (Odena et al. 2016,
"Deconvolution and checkerboard artifacts"). The layer here sees the picture and a few features at full resolution,
which begin without a lattice (ICNR, Aitken et al. 2017), and can take away what is the same in all squares.

Axis legend: B images, C channels, H and W pixels, h and w positions of the decoder's last grid, R pixels of a square.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Finish(nn.Module):
    """The picture and the decoder's last features to a picture of the same size; a new layer changes nothing.

    Args:
        in_channels: of the features.
        channels: of the features at full resolution, and of the hidden layer.
        upscale: pixels for each position of the features on each axis.
        stride: pixels for each position of the latent: R, the side of the squares.
    """

    def __init__(self, in_channels: int, channels: int, upscale: int, stride: int) -> None:
        super().__init__()
        self._upscale = upscale
        self.spread = nn.Conv2d(in_channels, channels * upscale**2, 1)
        self.look = nn.Conv2d(3 + channels, channels, 3, padding=1, padding_mode="replicate")
        self.paint = nn.Conv2d(3 + channels, 3, 3, padding=1, padding_mode="replicate")
        self.square_3RR = nn.Parameter(torch.zeros(3, stride, stride))
        assert self.spread.bias is not None
        assert self.paint.bias is not None
        with torch.no_grad():
            # One kernel for all positions of a square: the features begin without a lattice.
            self.spread.weight.copy_(self.spread.weight[:: upscale**2].repeat_interleave(upscale**2, dim=0))
        for start in (self.spread.bias, self.paint.weight, self.paint.bias):
            nn.init.zeros_(start)

    def forward(self, image_B3HW: Tensor, features_BChw: Tensor) -> Tensor:
        """The finished picture (B, 3, H, W); H and W are multiples of R."""
        spread_BCHW = F.pixel_shuffle(self.spread(features_BChw), self._upscale)
        seen_BCHW = F.relu(self.look(torch.cat([image_B3HW, spread_BCHW], dim=1)))
        change_B3HW = self.paint(torch.cat([image_B3HW, seen_BCHW], dim=1))
        rows, columns = (side // self.square_3RR.shape[-1] for side in image_B3HW.shape[-2:])
        finished_B3HW: Tensor = image_B3HW + change_B3HW + self.square_3RR.repeat(1, rows, columns)
        return finished_B3HW
