"""Committed streams decode for ever to the same indices, and encoding makes the same bytes on every machine.

The indices and counts come from integer arithmetic, so nothing here depends on a library's random numbers.
`python tests/golden/test_bitstream_golden.py` writes files that are missing; never replace one that was released.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_entropy_golden import golden_indices, golden_models

from gosvae.bitstream import Header, SliceLayout, pack, pack_slices, unpack_slices
from gosvae.codecs.slices import decode_slices, encode_slices
from gosvae.codecs.vq import IndexCoder
from gosvae.entropy.adaptive import AdaptiveCounts
from gosvae.entropy.base import EntropyModel, FrequencyTables, IndexArray
from gosvae.entropy.coder import decode, encode
from gosvae.entropy.fixed import FixedLength
from gosvae.entropy.static import StaticHistogram

FOLDER = Path(__file__).parent
DOCS = FOLDER.parents[1] / "docs" / "bitstream.md"
FINGERPRINT = hashlib.sha256(b"golden").digest()[:8]


def integers(n: int, seed: int) -> IndexArray:
    """n integers below 2**31 of a linear congruential generator."""
    values, state = [], seed
    for _ in range(n):
        state = (6364136223846793005 * state + 1442695040888963407) % 2**64
        values.append(state >> 33)
    return np.array(values, np.int64)


def skewed_counts(codebook_size: int) -> IndexArray:
    """Counts from 1 to a few hundred thousand, in no order."""
    return 1 + (integers(codebook_size, 1) % 1000) ** 2 // (1 + integers(codebook_size, 2) % 5000)


def skewed_indices(counts_K: IndexArray, shape_hw: tuple[int, int]) -> IndexArray:
    """Indices about as frequent as the counts say."""
    targets = integers(shape_hw[0] * shape_hw[1], 3) % counts_K.sum()
    return np.searchsorted(np.cumsum(counts_K), targets, side="right").astype(np.int64).reshape(shape_hw)


@dataclass(frozen=True)
class Golden:
    """One committed stream: of version 1 where `count` is 0, else of version 2 with so many slices."""

    name: str
    model: EntropyModel
    indices_hw: IndexArray
    count: int = 0
    layout: SliceLayout = "bands"

    @property
    def counts(self) -> list[int]:
        """The static histogram of the codec."""
        return skewed_counts(self.model.codebook_size).tolist()

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.gsva"

    @property
    def header(self) -> Header:
        height, width = self.indices_hw.shape
        return Header(FINGERPRINT[: 4 if self.count else 8], 4 * height, 4 * width - 3, self.model.model_id)

    def stream(self) -> bytes:
        _, payloads = encode_slices(IndexCoder([self.model]), self.indices_hw, 0, max(1, self.count), self.layout)
        if self.count:
            return pack_slices(self.header, payloads, self.layout)
        return pack(self.header, payloads[0], version=1)


def static(name: str, codebook_size: int, shape_hw: tuple[int, int], *cut: Any) -> Golden:
    counts_K = skewed_counts(codebook_size)
    return Golden(name, StaticHistogram(counts_K), skewed_indices(counts_K, shape_hw), *cut)


def adaptive(name: str, codebook_size: int, shape_hw: tuple[int, int], *cut: Any) -> Golden:
    """The indices are those that the counts say, shifted by one: there is something to adapt to."""
    counts_K = skewed_counts(codebook_size)
    indices_hw = (skewed_indices(counts_K, shape_hw) + 1) % codebook_size
    return Golden(name, AdaptiveCounts(counts_K), indices_hw, *cut)


def context(name: str, model_name: str, *cut: Any) -> Golden:
    """A context model of `test_entropy_golden` and its indices."""
    model = golden_models()[model_name]
    return Golden(name, model, golden_indices(model.codebook_size), *cut)


def fixed(name: str, codebook_size: int, shape_hw: tuple[int, int], *cut: Any) -> Golden:
    indices_hw = integers(shape_hw[0] * shape_hw[1], 4).reshape(shape_hw) % codebook_size
    return Golden(name, FixedLength(codebook_size), indices_hw, *cut)


GOLDEN = [
    static("static_2", 2, (31, 33)),
    static("static_512", 512, (12, 20)),
    static("static_65536", 65536, (7, 8)),
    fixed("fixed_12000", 12000, (7, 11)),
    static("v2_static_512", 512, (12, 20), 1),
    static("v2_static_512_bands_5", 512, (12, 20), 5, "bands"),
    static("v2_static_512_interleaved_8", 512, (12, 20), 8, "interleaved"),
    static("v2_static_40_interleaved_6", 40, (20, 9), 6, "interleaved"),
    fixed("v2_fixed_12000", 12000, (7, 11), 1),
    fixed("v2_fixed_1000_bands_3", 1000, (7, 11), 3, "bands"),
    fixed("v2_fixed_1000_interleaved_2", 1000, (7, 11), 2, "interleaved"),
    adaptive("v2_adaptive_5", 5, (190, 180), 1),
    adaptive("v2_adaptive_600_interleaved_4", 600, (40, 48), 4, "interleaved"),
    context("v2_context_40", "context, one digit", 1),
    context("v2_context_50_bands_3", "context, two digits by a table", 3, "bands"),
    context("v2_context_60_interleaved_4", "context, three digits, neighbours by digits", 4, "interleaved"),
    fixed("v2_example", 1000, (3, 4), 1),
    fixed("v2_example_sliced", 1000, (3, 4), 2, "interleaved"),
]
CASES = pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)


@CASES
def test_committed_streams_decode(golden: Golden) -> None:
    stream = unpack_slices(golden.path.read_bytes())
    assert (stream.header, stream.layout) == (golden.header, golden.layout)
    assert len(stream.slices) == max(1, golden.count)
    height, width = golden.indices_hw.shape
    decoded = decode_slices(IndexCoder([golden.model]), stream, (height, width))
    np.testing.assert_array_equal(decoded.symbols, golden.indices_hw)


@CASES
def test_encoding_makes_the_committed_bytes(golden: Golden) -> None:
    assert golden.stream() == golden.path.read_bytes()


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """The functions of the decoder in the documentation."""
    code = re.search(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code.group(1), names)
    return names


@pytest.mark.parametrize(
    "golden", [golden for golden in GOLDEN if golden.model.model_id < 3], ids=lambda golden: golden.name
)
def test_the_decoder_in_the_documentation_reads_them(golden: Golden, page: dict[str, Any]) -> None:
    container = page["read_container"](golden.path.read_bytes())
    assert container["entropy_model_id"] == golden.model.model_id
    assert container["fingerprint"] == golden.header.fingerprint
    name, tables = {
        0: ("decode_fixed_length", golden.model.codebook_size),
        1: ("decode_static_histogram", golden.counts),
        2: ("decode_adaptive_counts", golden.counts),
    }[golden.model.model_id]
    grid = page["read_grid"](container, 4, lambda payload, h, w: page[name](payload, h * w, tables))
    assert grid == golden.indices_hw.tolist()


@pytest.mark.parametrize("number", [0, 1])
def test_the_listings_in_the_documentation_are_golden_streams(number: int) -> None:
    listings = re.findall(r"```text\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    rows = [re.split(r" {2,}", line, maxsplit=1)[0] for line in listings[number].splitlines()]
    name = ("v2_example", "v2_example_sliced")[number]
    assert bytes.fromhex("".join(rows)) == (FOLDER / f"{name}.gsva").read_bytes()


def test_several_tables_make_the_committed_bytes() -> None:
    counts_TK = np.stack([skewed_counts(32), skewed_counts(32)[::-1], np.ones(32, np.int64)])
    table_of_N = integers(60, 5) % 3
    symbols_N = integers(60, 6) % 32
    tables = FrequencyTables(counts_TK, table_of_N)
    data = encode(symbols_N, tables)
    assert data.hex() == TABLES_HEX
    np.testing.assert_array_equal(decode(data, 60, tables), symbols_N)


TABLES_HEX = (
    "edd97630d32d55b7e81a0bdfe5adde4d0d16e62c6ca9601b2575ab32ac3eae6946d07774c0e3d96323545b59caccfd25e1723b5d62a132bd68"
)

if __name__ == "__main__":
    for item in GOLDEN:
        if not item.path.exists():
            item.path.write_bytes(item.stream())
