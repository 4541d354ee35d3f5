"""Computation of large pictures in tiles, with bounded memory and the same result (up to the rounding of floats).

Each tile is computed with a halo of all the positions that can influence it, and the halo is then cut off.
Axis legend: B images, C channels, H and W pixels, h and w latent positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gosvae.errors import ImageError
from gosvae.nn.pyramid import NO_MARGINS, Margins

TILE_PIXELS = 512
"""Least side of a tile, in pixels. Pictures of up to TILE_PIXELS**2 pixels are always computed in one piece."""
MOST_TILE_PIXELS = 2048
"""Greatest side of a tile, in pixels, which bounds the memory."""
HALO_COST = 1.3
"""Number of positions that are computed for each one that is kept, at most, unless the tiles would be too large."""
WHOLE_PIXELS = 2**20
"""Size of the largest picture, in pixels, for most networks that cannot work in tiles, which bounds the memory."""


def fits_in_one_tile(height: int, width: int, side: int | None = None) -> bool:
    """Return whether a picture is computed in one piece although its network could work in tiles of this side."""
    return height * width <= (side or TILE_PIXELS) ** 2


def tile_side(stride: int, halo: int) -> int:
    """Return the side of the tiles, in pixels and a multiple of the stride, for which the halo costs `HALO_COST`."""
    side = 2 * halo * stride / (math.sqrt(HALO_COST) - 1)
    return -(-min(max(TILE_PIXELS, math.ceil(side)), max(TILE_PIXELS, MOST_TILE_PIXELS)) // stride) * stride


def _check_size(height: int, width: int, halo: int | None, whole_pixels: int) -> None:
    """Raise `ImageError` if a picture without a halo, which cannot be cut into tiles, is too large for one piece."""
    if halo is None and height * width > whole_pixels:
        raise ImageError(
            f"this codec looks at the whole picture at once and takes at most {whole_pixels} pixels, got "
            f"{height}x{width}: make the picture smaller, cut it, or use a codec that works in tiles"
        )


def _spans(length: int, tile: int, halo: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield the span to read, the part of the result to keep, and its place, in units of latent positions."""
    for start in range(0, length, tile):
        stop = min(start + tile, length)
        low, high = max(0, start - halo), min(length, stop + halo)
        yield slice(low, high), slice(start - low, stop - low), slice(start, stop)


def _scaled(span: slice, factor: int) -> slice:
    return slice(span.start * factor, span.stop * factor)


def encode_in_tiles(
    encode: Callable[[Tensor], Tensor],
    x_13HW: Tensor,
    stride: int,
    halo: int | None,
    whole_pixels: int = WHOLE_PIXELS,
) -> Tensor:
    """Return the latent (1, h, w) or (1, D, h, w) of a picture whose sides are multiples of the stride.

    Args:
        encode: network, from a picture or a tile to its latent.
        x_13HW: picture.
        stride: pixels per latent position on each axis.
        halo: latent positions around a tile that can influence it; None where the network cannot work in tiles.
        whole_pixels: size of the largest picture, in pixels, where there is no halo.

    Raises:
        ImageError: the halo is None, and the picture is too large for one piece.
    """
    height, width = x_13HW.shape[-2] // stride, x_13HW.shape[-1] // stride
    _check_size(x_13HW.shape[-2], x_13HW.shape[-1], halo, whole_pixels)
    if halo is None or fits_in_one_tile(x_13HW.shape[-2], x_13HW.shape[-1], tile_side(stride, halo)):
        return encode(x_13HW)
    tile = tile_side(stride, halo) // stride
    latent: Tensor | None = None
    for read_y, keep_y, put_y in _spans(height, tile, halo):
        for read_x, keep_x, put_x in _spans(width, tile, halo):
            part = encode(x_13HW[..., _scaled(read_y, stride), _scaled(read_x, stride)])
            if latent is None:
                latent = torch.empty((*part.shape[:-2], height, width), dtype=part.dtype)
            latent[..., put_y, put_x] = part[..., keep_y, keep_x].cpu()
    assert latent is not None  # a picture has at least one tile
    return latent


def decode_in_tiles(
    decode: Callable[[Tensor, Margins], Tensor],
    indices_Bhw: Tensor,
    stride: int,
    halo: int | None,
    whole_pixels: int = WHOLE_PIXELS,
) -> Tensor:
    """Return the pictures (B, 3, H, W) of indices; arguments and errors as in `encode_in_tiles`.

    `decode` gets the indices of a tile and the margins around it, which its pictures leave out.
    """
    height, width = indices_Bhw.shape[-2:]
    _check_size(height * stride, width * stride, halo, whole_pixels)
    if halo is None or fits_in_one_tile(height * stride, width * stride, tile_side(stride, halo)):
        return decode(indices_Bhw, NO_MARGINS)
    tile = tile_side(stride, halo) // stride
    x_hat_B3HW = torch.empty((len(indices_Bhw), 3, height * stride, width * stride), dtype=torch.float32)
    for read_y, _, put_y in _spans(height, tile, halo):
        for read_x, _, put_x in _spans(width, tile, halo):
            margins = (
                *(put_y.start - read_y.start, read_y.stop - put_y.stop),
                *(put_x.start - read_x.start, read_x.stop - put_x.stop),
            )
            part = decode(indices_Bhw[..., read_y, read_x], margins)
            x_hat_B3HW[..., _scaled(put_y, stride), _scaled(put_x, stride)] = part.cpu()
    return x_hat_B3HW


def without_margins(x_B3HW: Tensor, margins: Margins, stride: int) -> Tensor:
    """Return pictures without the pixels of latent positions at their edges."""
    top, bottom, left, right = (stride * margin for margin in margins)
    return x_B3HW[..., top : x_B3HW.shape[-2] - bottom, left : x_B3HW.shape[-1] - right]
