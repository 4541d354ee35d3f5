"""Losses against what repeats with the grid of a decoder.

A mean over squares also holds errors that have nothing to do with the grid: the square of a mean of N is 1 / N of their
mean square. A loss with such a share would reward blurred pictures, as the squared error does. So squares get random
signs, as many of either kind: the square of the signed mean has the same share and no lattice, and is subtracted.

Axis legend: B images, H and W pixels; N and M windows, S squares of a window on each axis, R pixels of a square.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gosvae.errors import ShapeError


def repeated_pattern(
    x_B3HW: Tensor,
    x_hat_B3HW: Tensor,
    generator: torch.Generator | None = None,
    *,
    stride: int = 16,
    squares: int = 4,
) -> Tensor:
    """Return the mean square of the part of the error that repeats from square to square, a scalar.

    The error is averaged over the squares of `stride` pixels in every window of `squares` x `squares` of them; what is
    left, without its mean, is the same at all squares of the window. A pure lattice counts whole, errors without one
    nothing on average. Windows are small, so that a lattice that comes and goes with the texture below it counts as
    well; pictures that hold fewer squares have smaller ones.

    Args:
        x_B3HW, x_hat_B3HW: originals and reconstructions.
        generator: generator of the signs; None takes those of a chessboard.
        stride: side of a square in pixels.
        squares: number of squares of a window on each axis, even.

    Raises:
        ShapeError: the images differ in shape, or are below two squares a side.
    """
    if x_B3HW.shape != x_hat_B3HW.shape or min(x_B3HW.shape[-2:]) < 2 * stride:
        raise ShapeError(f"expected two batches of one shape of at least {2 * stride} pixels a side", x_hat_B3HW.shape)
    squares = min(squares, min(x_B3HW.shape[-2:]) // (2 * stride) * 2)
    side = stride * squares
    rows, columns = (length // side for length in x_B3HW.shape[-2:])
    error_B3HW = (x_hat_B3HW - x_B3HW)[..., : rows * side, : columns * side]
    error = error_B3HW.reshape(*error_B3HW.shape[:2], rows, squares, stride, columns, squares, stride)
    signs_SS = _signs(squares, squares, generator).to(error)
    repeated_B3NRMR, chance_B3NRMR = error.mean(dim=(3, 6)), (error * signs_SS[:, None, None, :, None]).mean(dim=(3, 6))
    return _energy(repeated_B3NRMR, (3, 5)) - _energy(chance_B3NRMR, (3, 5))


def fixed_pattern(
    x_B3HW: Tensor, x_hat_B3HW: Tensor, generator: torch.Generator | None = None, *, stride: int = 16
) -> Tensor:
    """Return the mean square of the part of the error that is the same in all squares of all images, a scalar.

    The error is averaged over all squares of `stride` pixels of the batch; what is left, without its mean, is a pattern
    that lies over every picture alike. It counts whole, errors without it nothing on average. With so many squares it
    is known well, and this term can have a much larger weight than `repeated_pattern`.

    Args:
        x_B3HW, x_hat_B3HW, generator, stride: see `repeated_pattern`.

    Raises:
        ShapeError: the images differ in shape, or are below two squares a side.
    """
    if x_B3HW.shape != x_hat_B3HW.shape or min(x_B3HW.shape[-2:]) < 2 * stride:
        raise ShapeError(f"expected two batches of one shape of at least {2 * stride} pixels a side", x_hat_B3HW.shape)
    rows, columns = (length // (2 * stride) * 2 for length in x_B3HW.shape[-2:])
    error_B3HW = (x_hat_B3HW - x_B3HW)[..., : rows * stride, : columns * stride]
    error = error_B3HW.reshape(len(error_B3HW), 3, rows, stride, columns, stride)
    signs = _signs(rows, columns, generator).to(error)
    repeated_3RR, chance_3RR = error.mean(dim=(0, 2, 4)), (error * signs[:, None, :, None]).mean(dim=(0, 2, 4))
    return _energy(repeated_3RR, (1, 2)) - _energy(chance_3RR, (1, 2))


def _signs(rows: int, columns: int, generator: torch.Generator | None) -> Tensor:
    """Return signs (rows, columns), as many of either kind; both numbers are even."""
    if generator is None:
        return 1.0 - 2.0 * ((torch.arange(rows)[:, None] + torch.arange(columns)) % 2)
    order = torch.randperm(rows * columns, generator=generator)
    return torch.where(order < rows * columns // 2, 1.0, -1.0).view(rows, columns)


def _energy(pattern: Tensor, square: tuple[int, int]) -> Tensor:
    """Return the mean square of patterns, each without its mean over the axes of the square."""
    mean_square: Tensor = (pattern - pattern.mean(dim=square, keepdim=True)).square().mean()
    return mean_square
