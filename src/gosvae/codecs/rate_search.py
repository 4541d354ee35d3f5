"""Search for the best stream that fits a budget, for every codec whose rate can be set."""

from __future__ import annotations

import math
from collections.abc import Callable

from gosvae.errors import RateError


def bisect_setting(
    encode: Callable[[int], bytes], budget_bytes: int, *, fits: int, exceeds: int, stream: bytes
) -> tuple[int, bytes]:
    """Return the setting nearest to `exceeds` whose stream fits the budget, and that stream.

    It is the best setting if sizes grow with every step towards `exceeds`; otherwise the stream still fits.

    Args:
        encode: function that makes the stream at a setting.
        budget_bytes: number of bytes that the stream may take.
        fits: setting whose stream fits; it may be larger or smaller than `exceeds`, and is not encoded again.
        exceeds: setting whose stream does not fit, or the first setting that does not exist.
        stream: stream at `fits`.
    """
    while abs(exceeds - fits) > 1:
        middle = (fits + exceeds) // 2
        tried = encode(middle)
        if len(tried) <= budget_bytes:
            fits, stream = middle, tried
        else:
            exceeds = middle
    return fits, stream


def fill_budget(
    encode: Callable[[float], bytes], budget_bytes: int, *, low: float, high: float, stream: bytes, enough: float
) -> bytes:
    """Return a longer stream that fits the budget, or the given one if five steps do not find a longer one.

    The range of a positive setting is halved on a logarithmic scale; a larger setting takes more bytes.

    Args:
        encode: function that makes the stream at a setting.
        budget_bytes: number of bytes that the stream may take.
        low, high: range of the setting.
        stream: stream that fits.
        enough: share of the budget at which the search ends.
    """
    for _ in range(5):
        if len(stream) >= enough * budget_bytes:
            break
        middle = math.sqrt(low * high)
        tried = encode(middle)
        if len(tried) <= budget_bytes:
            low, stream = middle, max(stream, tried, key=len)
        else:
            high = middle
    return stream


def check_smallest(name: str, shape: tuple[int, ...], smallest: bytes, budget_bytes: int) -> bytes:
    """Return the smallest stream of an image if it fits the budget.

    Args:
        name: name of the codec.
        shape: shape of the image, height and width first.
        smallest: stream at the lowest rate.
        budget_bytes: number of bytes that the stream may take.

    Raises:
        RateError: the stream takes more; the message says how much.
    """
    if len(smallest) > budget_bytes:
        raise RateError(
            f"{name} cannot code this {shape[0]}x{shape[1]} image in {budget_bytes} bytes: its smallest stream takes "
            f"{len(smallest)}; raise the budget or shrink the image"
        )
    return smallest
