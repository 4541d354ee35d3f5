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

from gosvae.bitstream import Header, pack, unpack
from gosvae.entropy.base import EntropyModel, FrequencyTables, IndexArray
from gosvae.entropy.coder import decode, decode_indices, encode, encode_indices
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
    name: str
    model: EntropyModel
    indices_hw: IndexArray

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}.gsva"

    def stream(self) -> bytes:
        height, width = self.indices_hw.shape
        header = Header(FINGERPRINT, 4 * height, 4 * width - 3, self.model.model_id)
        return pack(header, encode_indices(self.model, self.indices_hw))


def static(codebook_size: int, shape_hw: tuple[int, int]) -> Golden:
    counts_K = skewed_counts(codebook_size)
    return Golden(f"static_{codebook_size}", StaticHistogram(counts_K), skewed_indices(counts_K, shape_hw))


GOLDEN = [
    static(2, (31, 33)),
    static(512, (12, 20)),
    static(65536, (7, 8)),
    Golden("fixed_12000", FixedLength(12000), integers(77, 4).reshape(7, 11) % 12000),
]
CASES = pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)


@CASES
def test_committed_streams_decode(golden: Golden) -> None:
    header, payload = unpack(golden.path.read_bytes())
    height, width = golden.indices_hw.shape
    assert header == Header(FINGERPRINT, 4 * height, 4 * width - 3, golden.model.model_id)
    np.testing.assert_array_equal(decode_indices(golden.model, payload, (height, width)), golden.indices_hw)


@CASES
def test_encoding_makes_the_committed_bytes(golden: Golden) -> None:
    assert golden.stream() == golden.path.read_bytes()


@CASES
def test_the_decoder_in_the_documentation_reads_them(golden: Golden) -> None:
    code = re.search(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    page: dict[str, Any] = {}
    exec(code.group(1), page)
    entropy_model_id, fingerprint, height, width, payload = page["read_container"](golden.path.read_bytes())
    assert (entropy_model_id, fingerprint) == (golden.model.model_id, FINGERPRINT)
    n_indices = -(-height // 4) * -(-width // 4)
    if isinstance(golden.model, StaticHistogram):
        indices = page["decode_static_histogram"](payload, n_indices, golden.model.counts_K.tolist())
    else:
        indices = page["decode_fixed_length"](payload, n_indices, golden.model.codebook_size)
    assert indices == golden.indices_hw.reshape(-1).tolist()


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
