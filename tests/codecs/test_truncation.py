"""Truncation keeps whole slices from the first on, needs no model, and gives streams that every reader takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gosvae.bitstream import Header, pack, pack_slices, salvage, unpack_slices
from gosvae.codecs.truncation import truncate
from gosvae.entropy.ids import EntropyModelId
from gosvae.errors import BitstreamError, ConfigError, RateError

HEADER = Header(bytes(range(4)), 64, 96, 4)
TASK, DETAIL = [b"a" * 90, b"b" * 70], [b"c" * 300, b"d" * 900]
LAYERED = pack_slices(HEADER, TASK + DETAIL, "interleaved", 2)


def cut(data: bytes, n_bytes: int) -> bytes:
    return truncate(data, n_bytes / 1024)


def test_the_detail_goes_first_and_the_task_layer_is_a_stream_of_its_own() -> None:
    assert cut(LAYERED, len(LAYERED)) == LAYERED
    without_last = cut(LAYERED, len(LAYERED) - 1)
    assert unpack_slices(without_last).slices == (*TASK, DETAIL[0])
    assert unpack_slices(without_last).detail_count == 1
    task = cut(without_last, len(without_last) - 1)
    assert task == pack_slices(HEADER, TASK, "interleaved")
    assert cut(LAYERED, len(task)) == task


def test_the_layer_of_one_slice_is_the_stream_of_one_slice() -> None:
    data = pack_slices(HEADER, [TASK[0], DETAIL[0]], "bands", 1)
    assert cut(data, 200) == pack_slices(HEADER, TASK[:1])


def test_slices_of_the_task_layer_are_marked_as_lost() -> None:
    task = pack_slices(HEADER, TASK, "interleaved")
    first = cut(LAYERED, len(task) - 1)
    assert salvage(first).slices == (TASK[0], None)
    assert salvage(first).layout == "interleaved"
    with pytest.raises(RateError, match=f"its first slice alone takes {len(first)}") as caught:
        cut(LAYERED, len(first) - 1)
    assert caught.value.argument == "kib"


def test_pictures_without_a_task_layer_are_dropped_from_the_last_on() -> None:
    header = Header(HEADER.fingerprint, 64, 96, EntropyModelId.AV1_STILL)
    data = pack_slices(header, DETAIL)
    assert cut(data, len(data) - 1) == pack_slices(header, DETAIL[:1])


def test_a_stream_whose_end_is_missing_can_be_cut() -> None:
    assert unpack_slices(cut(LAYERED[:-1], len(LAYERED))).slices == (*TASK, DETAIL[0])
    lost = pack_slices(HEADER, [None, *TASK[1:], *DETAIL], "interleaved", 2)
    assert salvage(cut(lost, 300)).slices == (None, TASK[1])
    with pytest.raises(RateError):
        cut(lost, 90)


def test_what_cannot_be_cut() -> None:
    least = len(pack(HEADER, b"payload"))
    for data in (pack(HEADER, b"payload"), pack(Header(bytes(8), 64, 96, 1), b"payload", version=1)):
        assert cut(data, 1000) == data
        with pytest.raises(RateError, match=f"its first slice alone takes {least}"):
            cut(data, least - 1)
    with pytest.raises(BitstreamError):
        truncate(b"nothing", 1.0)
    with pytest.raises(ConfigError):
        truncate(LAYERED, float("inf"))


@given(
    sizes=st.lists(st.integers(0, 200), min_size=1, max_size=8),
    details=st.integers(0, 7),
    budget=st.integers(1, 2000),
    interleaved=st.booleans(),
)
def test_any_budget_is_met_or_refused(sizes: list[int], details: int, budget: int, interleaved: bool) -> None:
    payloads = [bytes([number]) * size for number, size in enumerate(sizes)]
    data = pack_slices(HEADER, payloads, "interleaved" if interleaved else "bands", min(details, len(sizes) - 1))
    try:
        shorter = cut(data, budget)
    except RateError:
        assert budget < len(data)
        return
    assert len(shorter) <= budget
    kept = [payload for payload in salvage(shorter).slices if payload is not None]
    assert kept == payloads[: len(kept)]
    assert cut(shorter, budget) == shorter or salvage(shorter).damaged
    assert cut(data, len(data)) == data
