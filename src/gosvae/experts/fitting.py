"""Images brought to the size that a network takes, and its answers brought back: stretched, framed or padded.

Axis legend: B images, H and W pixels of the image, h and w of the network's input, C channels, N boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

Fit = Literal["resize", "letterbox", "pad"]
GREY = 114.0 / 255.0
"""Level of the frame around an image of another shape, which detectors of the YOLO family are trained with."""


@dataclass(frozen=True)
class Placement:
    """Place of an image within the input of a network, in pixels of that input.

    Attributes:
        image_hw: height and width of the image.
        input_hw: height and width of the network's input.
        top, left, height, width: rectangle that the image fills.
    """

    image_hw: tuple[int, int]
    input_hw: tuple[int, int]
    top: int
    left: int
    height: int
    width: int

    def corners(self, corners_BN4: Tensor) -> Tensor:
        """Return corners as shares of the image from shares of the network's input."""
        height, width = self.input_hw
        if (self.top, self.left, self.height, self.width) == (0, 0, height, width):
            return corners_BN4
        scale = corners_BN4.new_tensor([width / self.width, height / self.height] * 2)
        shift = corners_BN4.new_tensor([self.left / self.width, self.top / self.height] * 2)
        return corners_BN4 * scale - shift

    def inside(self, maps_BChw: Tensor) -> Tensor:
        """Return the part of maps, on any grid over the network's input, that belongs to the image."""
        rows, columns = maps_BChw.shape[-2] / self.input_hw[0], maps_BChw.shape[-1] / self.input_hw[1]
        top, left = round(self.top * rows), round(self.left * columns)
        bottom = max(top + 1, round((self.top + self.height) * rows))
        right = max(left + 1, round((self.left + self.width) * columns))
        return maps_BChw[..., top:bottom, left:right]

    def on_image(self, maps_BChw: Tensor) -> Tensor:
        """Return maps (B, C, H, W) at every pixel of the image, bilinearly resized."""
        if maps_BChw.shape[-2:] != self.input_hw and (self.height, self.width) != self.input_hw:
            maps_BChw = F.interpolate(maps_BChw.float(), self.input_hw, mode="bilinear", align_corners=False)
        own = self.inside(maps_BChw)
        if own.shape[-2:] == self.image_hw:
            return own
        return F.interpolate(own.float(), self.image_hw, mode="bilinear", align_corners=False)


def place(x_B3HW: Tensor, input_hw: tuple[int, int], fit: Fit) -> tuple[Tensor, Placement]:
    """Return images at the size of a network's input, differentiable, and their place in it.

    Args:
        x_B3HW: images in [0, 1].
        input_hw: height and width of the input.
        fit: `resize` stretches the image, `letterbox` keeps its proportions within a grey frame, `pad` repeats its
            right and lower edge; the input must not be smaller then.
    """
    image_hw = (x_B3HW.shape[-2], x_B3HW.shape[-1])
    if fit == "pad":
        below, right = input_hw[0] - image_hw[0], input_hw[1] - image_hw[1]
        return F.pad(x_B3HW, (0, right, 0, below), mode="replicate"), Placement(image_hw, input_hw, 0, 0, *image_hw)
    size = input_hw
    if fit == "letterbox":
        ratio = min(input_hw[0] / image_hw[0], input_hw[1] / image_hw[1])
        size = (max(1, round(image_hw[0] * ratio)), max(1, round(image_hw[1] * ratio)))
    x = x_B3HW
    if size != image_hw:
        x = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
    top, left = (input_hw[0] - size[0]) // 2, (input_hw[1] - size[1]) // 2
    if size != input_hw:
        frame = (left, input_hw[1] - size[1] - left, top, input_hw[0] - size[0] - top)
        x = F.pad(x, frame, value=GREY)
    return x, Placement(image_hw, input_hw, top, left, *size)
