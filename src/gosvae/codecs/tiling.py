"""Large pictures in tiles: bounded memory, the same result as in one piece (up to the rounding of floats).

Each tile is computed with a halo at least as wide as what can influence it, and the halo is cut off again.
Axis legend: B images, C channels, H and W pixels, h and w latent positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

TILE_PIXELS = 512
"""Side of a tile, in pixels. Pictures of up to TILE_PIXELS**2 pixels are computed in one piece."""


def _spans(length: int, tile: int, halo: int) -> Iterator[tuple[slice, slice, slice]]:
    """(what to read, what to keep of the result, where it belongs), in units of latent positions."""
    for start in range(0, length, tile):
        stop = min(start + tile, length)
        low, high = max(0, start - halo), min(length, stop + halo)
        yield slice(low, high), slice(start - low, stop - low), slice(start, stop)


def _scaled(span: slice, factor: int) -> slice:
    return slice(span.start * factor, span.stop * factor)


def encode_in_tiles(encode: Callable[[Tensor], Tensor], x_13HW: Tensor, stride: int, halo: int) -> Tensor:
    """Indices (1, h, w) of a picture whose sides are multiples of the stride; `halo` in latent positions."""
    height, width = x_13HW.shape[-2] // stride, x_13HW.shape[-1] // stride
    if x_13HW.shape[-2] * x_13HW.shape[-1] <= TILE_PIXELS**2:
        return encode(x_13HW)
    tile = TILE_PIXELS // stride
    indices_1hw = torch.empty((1, height, width), dtype=torch.int64)
    for read_y, keep_y, put_y in _spans(height, tile, halo):
        for read_x, keep_x, put_x in _spans(width, tile, halo):
            part = encode(x_13HW[..., _scaled(read_y, stride), _scaled(read_x, stride)])
            indices_1hw[:, put_y, put_x] = part[:, keep_y, keep_x].cpu()
    return indices_1hw


def decode_in_tiles(decode: Callable[[Tensor], Tensor], indices_1hw: Tensor, stride: int, halo: int) -> Tensor:
    """Picture (1, 3, H, W) of indices; `halo` in latent positions."""
    height, width = indices_1hw.shape[-2:]
    if height * width * stride**2 <= TILE_PIXELS**2:
        return decode(indices_1hw)
    tile = TILE_PIXELS // stride
    x_hat_13HW = torch.empty((1, 3, height * stride, width * stride))
    for read_y, keep_y, put_y in _spans(height, tile, halo):
        for read_x, keep_x, put_x in _spans(width, tile, halo):
            part = decode(indices_1hw[:, read_y, read_x])
            kept = part[..., _scaled(keep_y, stride), _scaled(keep_x, stride)]
            x_hat_13HW[..., _scaled(put_y, stride), _scaled(put_x, stride)] = kept.cpu()
    return x_hat_13HW
