"""The search for the best stream within a budget, against trying every setting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gosvae.codecs.rate_search import bisect_setting, check_smallest, fill_budget
from gosvae.errors import RateError


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(0, 400), st.booleans())
def test_the_best_setting_that_fits_is_found(growth: list[int], budget_bytes: int, descending: bool) -> None:
    sizes = [sum(growth[: n + 1]) for n in range(len(growth))]
    if descending:  # as the step of an autoencoder: a smaller one takes more bytes
        sizes = sizes[::-1]
    order = range(len(sizes) - 1, -1, -1) if descending else range(len(sizes))
    first, beyond = (len(sizes) - 1, -1) if descending else (0, len(sizes))
    fitting = [n for n in order if sizes[n] <= budget_bytes]
    if not fitting:
        return
    asked: list[int] = []

    def encode(setting: int) -> bytes:
        asked.append(setting)
        return bytes(sizes[setting])

    found, stream = bisect_setting(encode, budget_bytes, fits=first, exceeds=beyond, stream=bytes(sizes[first]))
    assert (found, len(stream)) == (fitting[-1], sizes[fitting[-1]])
    assert len(asked) <= len(sizes).bit_length()
    assert beyond not in asked


@pytest.mark.parametrize("budget_bytes", [100, 333, 799])
def test_what_is_left_of_a_budget_is_filled(budget_bytes: int) -> None:
    asked: list[float] = []

    def encode(setting: float) -> bytes:
        asked.append(setting)
        return bytes(int(100 * setting))

    stream = fill_budget(encode, budget_bytes, low=1.0, high=8.0, stream=bytes(90), enough=0.98)
    assert 0.9 * budget_bytes <= len(stream) <= budget_bytes
    assert len(asked) <= 5
    assert fill_budget(encode, budget_bytes, low=8.0, high=16.0, stream=b"kept", enough=0.98) == b"kept"
    asked.clear()
    assert fill_budget(encode, 100, low=1.0, high=8.0, stream=bytes(98), enough=0.98) == bytes(98)
    assert asked == []


def test_a_budget_below_the_smallest_stream_says_how_much_it_takes() -> None:
    assert check_smallest("a codec", (4, 6, 3), b"1234", 4) == b"1234"
    with pytest.raises(RateError, match="a codec cannot code this 4x6 image in 3 bytes: its smallest stream takes 4"):
        check_smallest("a codec", (4, 6, 3), b"1234", 3)
