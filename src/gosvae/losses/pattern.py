"""Losses against what repeats with the grid of a decoder.

Axis legend: B images, H and W pixels; N and M windows, S squares of a window on each axis, R pixels of a square.
"""

from __future__ import annotations

from torch import Tensor

from gosvae.errors import ShapeError


def repeated_pattern(x_B3HW: Tensor, x_hat_B3HW: Tensor, *, stride: int = 16, squares: int = 4) -> Tensor:
    """Mean square of the part of the error that repeats from square to square, a scalar.

    The error is averaged over the squares of `stride` pixels in every window of `squares` x `squares` of them; what is
    left, without its mean, is the same at all squares of the window. Errors without a lattice give 1 / squares^2 of
    their mean square, a pure lattice all of it. Windows are small, so that a lattice that comes and goes with the
    texture below it counts as well; pictures that hold fewer squares have smaller ones.

    Raises:
        ShapeError: the images differ in shape, or are below two squares a side.
    """
    if x_B3HW.shape != x_hat_B3HW.shape or min(x_B3HW.shape[-2:]) < 2 * stride:
        raise ShapeError(f"expected two batches of one shape of at least {2 * stride} pixels a side", x_hat_B3HW.shape)
    squares = min(squares, min(x_B3HW.shape[-2:]) // stride)
    side = stride * squares
    rows, columns = (length // side for length in x_B3HW.shape[-2:])
    error_B3HW = (x_hat_B3HW - x_B3HW)[..., : rows * side, : columns * side]
    shape = (*error_B3HW.shape[:2], rows, squares, stride, columns, squares, stride)
    pattern_B3NRMR = error_B3HW.reshape(shape).mean(dim=(3, 6))
    mean_square: Tensor = (pattern_B3NRMR - pattern_B3NRMR.mean(dim=(3, 5), keepdim=True)).square().mean()
    return mean_square


def fixed_pattern(x_B3HW: Tensor, x_hat_B3HW: Tensor, *, stride: int = 16) -> Tensor:
    """Return the mean square of the part of the error that is the same in all squares of all images, a scalar.

    The error is averaged over all squares of `stride` pixels of the batch; what is left, without its mean, is a pattern
    that lies over every picture alike. Errors of N squares without such a pattern give 1 / N of their mean square, so
    that this term can have a much larger weight than `repeated_pattern`.

    Raises:
        ShapeError: the images differ in shape, or are below one square.
    """
    if x_B3HW.shape != x_hat_B3HW.shape or min(x_B3HW.shape[-2:]) < stride:
        raise ShapeError(f"expected two batches of one shape of at least {stride} pixels a side", x_hat_B3HW.shape)
    rows, columns = (length // stride for length in x_B3HW.shape[-2:])
    error_B3HW = (x_hat_B3HW - x_B3HW)[..., : rows * stride, : columns * stride]
    squares = error_B3HW.reshape(len(error_B3HW), 3, rows, stride, columns, stride)
    pattern_3RR = squares.mean(dim=(0, 2, 4))
    mean_square: Tensor = (pattern_3RR - pattern_3RR.mean(dim=(1, 2), keepdim=True)).square().mean()
    return mean_square
