"""Layouts of arrays and tensors, with checks and conversions.

Axis legend, used in names throughout: B images, 3 RGB channels, H and W pixels, D latent channels, h and w latent
positions, K codes, m classes. `x_B3HW` is RGB in [0, 1]; files and users have images as `image_uint8_HW3`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from gosvae.errors import ImageError, ShapeError

ImageArray = npt.NDArray[np.uint8]
"""One RGB image, uint8, shape (H, W, 3)."""
LabelArray = npt.NDArray[np.uint8]
"""One label map, uint8, shape (H, W); 255 is ignored."""


def check_image(image_uint8_HW3: ImageArray) -> ImageArray:
    """Return the image if it is a uint8 array (H, W, 3) with at least one pixel.

    Raises:
        ShapeError: the array has another layout.
        ImageError: the image is not an array; the message names the function that takes it.
    """
    image = image_uint8_HW3
    if not isinstance(image, np.ndarray):
        raise ImageError(
            f"expected a uint8 array (H, W, 3), got {type(image).__name__}: gosvae.read_image reads files, and "
            "gosvae.compress takes paths, images of Pillow and uint8 tensors"
        )
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape or image.dtype != np.uint8:
        raise ShapeError(f"expected a uint8 image (H, W, 3) with pixels in it, got {image.dtype}", got=image.shape)
    return image


def check_layout(x: Tensor, layout: str, *, axis_1: int | None = None) -> None:
    """Raise `ShapeError` unless `x` has as many axes as `layout` names and axis 1 has the given length."""
    if x.ndim != 4 or (axis_1 is not None and x.shape[1] != axis_1):
        channels = f" with {axis_1} channels" if axis_1 is not None else ""
        raise ShapeError(f"expected {layout}{channels}", got=x.shape)


def image_to_tensor(image_uint8_HW3: ImageArray) -> Tensor:
    """Return an image, uint8 (H, W, 3), as float32 (1, 3, H, W) in [0, 1]."""
    image = np.require(check_image(image_uint8_HW3), requirements=["C", "W"])  # PyTorch warns of read-only arrays
    return torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0).float() / 255.0


def tensor_to_image(x_B3HW: Tensor) -> ImageArray:
    """Return a float image (1, 3, H, W) as uint8 (H, W, 3), clamped to [0, 1] and rounded to the nearest level."""
    check_layout(x_B3HW, "(1, 3, H, W)", axis_1=3)
    x = x_B3HW[0].detach().float().clamp(0, 1).mul(255.0).round().to(torch.uint8)
    image: ImageArray = x.permute(1, 2, 0).contiguous().cpu().numpy()
    return image


def pad_to_multiple(x_BCHW: Tensor, multiple: int) -> Tensor:
    """Return images, padded right and bottom with the edge pixels until H and W are multiples of `multiple`."""
    height, width = x_BCHW.shape[-2:]
    return F.pad(x_BCHW, (0, -width % multiple, 0, -height % multiple), mode="replicate")
