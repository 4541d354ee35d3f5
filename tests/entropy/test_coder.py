"""Entropy models and the coder: tables, lengths, and what they refuse."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Generator

import constriction
import numpy as np
import pytest

from gosvae.entropy import coder
from gosvae.entropy.adaptive import AdaptiveCounts
from gosvae.entropy.base import Batch, EntropyModel, FrequencyTables, IndexArray, SymbolTables
from gosvae.entropy.coder import decode, decode_indices, encode, encode_indices
from gosvae.entropy.fixed import FixedLength
from gosvae.entropy.static import StaticHistogram
from gosvae.errors import BitstreamError, ConfigError, ShapeError
from gosvae.seeding import numpy_generator


def drawn(shape_hw: tuple[int, int], codebook_size: int, *, concentration: float, seed: int = 0) -> IndexArray:
    """Random indices; a small concentration makes few of them frequent."""
    generator = numpy_generator(seed, codebook_size)
    p = generator.dirichlet(np.full(codebook_size, concentration))
    return generator.choice(codebook_size, size=shape_hw, p=p)


def test_weights_are_the_integer_formula_and_sum_to_24_bits() -> None:
    counts = [1, 10**6, 1, 3, 2**30]
    tables = FrequencyTables(np.array([counts], np.int64))
    left = [sum(counts[:i]) * (2**24 - 5) // sum(counts) + i for i in range(6)]
    np.testing.assert_array_equal(tables.weights_TK[0], np.diff(left))
    assert tables.weights_TK.sum() == 2**24
    assert tables.weights_TK.min() == 1


@pytest.mark.parametrize("codebook_size", [2, 512, 65536])
def test_constriction_uses_exactly_our_integer_weights(codebook_size: int) -> None:
    counts_K = 1 + (numpy_generator(1).pareto(0.5, codebook_size) * 10).clip(0, 10**6).astype(np.int64)
    tables = FrequencyTables(counts_K[None])
    for symbol in (0, codebook_size // 2, codebook_size - 1):
        encoder = constriction.stream.queue.RangeEncoder()
        encoder.encode(symbol, tables.coder_models[0])
        n_words, (lower, span) = encoder.pos()
        weight, left = int(tables.weights_TK[0, symbol]), int(tables.weights_TK[0, :symbol].sum())
        scale = (2**64 - 1) >> 24
        shift = 32 * n_words  # a symbol of low probability has already moved a word out
        assert (lower, span) == ((left * scale << shift) % 2**64, weight * scale << shift)


@pytest.mark.parametrize("codebook_size", [2, 512, 12000, 65536])
def test_static_coding_is_within_a_word_of_the_cross_entropy(codebook_size: int) -> None:
    indices_hw = drawn((64, 128), codebook_size, concentration=0.3)
    model = StaticHistogram.fit([indices_hw], codebook_size)
    measured_bits = 8 * len(encode_indices(model, indices_hw))
    assert measured_bits == pytest.approx(model.estimated_bits(indices_hw), rel=1e-3, abs=32)


def test_static_beats_fixed_length_on_skewed_indices() -> None:
    indices_hw = drawn((32, 64), 512, concentration=0.05)
    model = StaticHistogram.fit([indices_hw], 512)
    assert len(encode_indices(model, indices_hw)) < 0.7 * len(encode_indices(FixedLength(512), indices_hw))


def test_estimated_bits_by_hand() -> None:
    model = StaticHistogram(np.array([1, 2, 5]))
    assert model.estimated_bits(np.array([[0, 1], [2, 2]])) == pytest.approx(3 + 2 + 2 * np.log2(8 / 5))
    assert FixedLength(12000).estimated_bits(np.zeros((3, 5), np.int64)) == 15 * 14


def test_fit_counts_and_adds_one() -> None:
    model = StaticHistogram.fit([np.array([[0, 2, 2]]), np.array([[2]], np.uint8)], 4)
    assert model.counts_K.tolist() == [2, 1, 4, 1]


@pytest.mark.parametrize("codebook_size", [1, 2, 3, 256, 257, 512, 12000, 65535, 65536])
def test_fixed_length_is_exactly_ceil_log2(codebook_size: int) -> None:
    indices_hw = drawn((3, 7), codebook_size, concentration=1.0)
    indices_hw[0, 0] = codebook_size - 1
    model = FixedLength(codebook_size)
    data = encode_indices(model, indices_hw)
    assert len(data) == -(-21 * int(np.ceil(np.log2(codebook_size))) // 8)
    np.testing.assert_array_equal(decode_indices(model, data, (3, 7)), indices_hw)


def test_a_codebook_of_one_index_takes_no_bytes() -> None:
    zeros_hw = np.zeros((4, 4), np.int64)
    models: list[EntropyModel] = [FixedLength(1), StaticHistogram(np.array([9]))]
    for model in models:
        assert encode_indices(model, zeros_hw) == b""
        np.testing.assert_array_equal(decode_indices(model, b"", (4, 4)), zeros_hw)
        with pytest.raises(BitstreamError):
            decode_indices(model, b"\0", (4, 4))


def test_every_length_of_the_last_word_occurs_and_decodes() -> None:
    generator = numpy_generator(2)
    tables = FrequencyTables(np.array([[900, 60, 30, 9, 1]], np.int64))
    lengths = set()
    for n in range(1, 400):
        symbols_N = generator.choice(5, size=n, p=[0.7, 0.1, 0.1, 0.05, 0.05])
        data = encode(symbols_N, tables)
        lengths.add(len(data) % 4)
        np.testing.assert_array_equal(decode(data, n, tables), symbols_N)
    assert lengths == {0, 1, 2, 3}


def test_the_last_word_is_the_shortest_number_in_the_interval() -> None:
    generator = numpy_generator(3)
    for _ in range(2000):
        lower = int(generator.integers(2**63)) * 2 + int(generator.integers(2))
        if generator.integers(4) == 0:
            lower = 2**64 - 1 - int(generator.integers(2**33))  # near the carry
        span = 2**32 + int(generator.integers(2**31)) * 2 ** int(generator.integers(32))
        data = coder._last_word(lower, min(span, 2**64 - 1))
        carry = (lower + 2**32 - 1) >> 64
        named = int.from_bytes(data.ljust(8, b"\0"), "big") + (carry << 64)
        assert 1 <= len(data) <= 4
        assert lower <= named < lower + span
    assert coder._last_word(2**64 - 5, 2**40) == b"\0"
    assert coder._last_word(0x01_0000_0000_0000_01, 2**63) == b"\x02"


def test_tables_chosen_for_each_symbol() -> None:
    generator = numpy_generator(4)
    counts_TK = np.array([[1000, 1, 1, 1], [1, 1, 1, 1000], [5, 5, 5, 5]], np.int64)
    table_of_N = generator.integers(3, size=500)
    symbols_N = np.choose(table_of_N, [np.zeros(500, np.int64), np.full(500, 3), generator.integers(4, size=500)])
    tables = FrequencyTables(counts_TK, table_of_N)
    data = encode(symbols_N, tables)
    np.testing.assert_array_equal(decode(data, 500, tables), symbols_N)
    assert 8 * len(data) < 1.1 * 2 * (table_of_N == 2).sum()
    with pytest.raises(ShapeError, match="499 table numbers"):
        encode(symbols_N[1:], tables)


def test_tables_survive_copies_and_pickles() -> None:
    model = StaticHistogram(np.array([3, 1, 7]))
    indices_hw = np.array([[0, 2], [1, 2]])
    data = encode_indices(model, indices_hw)  # builds the cached models, which cannot be copied
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert encode_indices(twin, indices_hw) == data


@pytest.mark.parametrize(
    "counts",
    [
        np.zeros((1, 2), np.int64),
        np.ones((1, 2)),
        np.ones(2, np.int64),
        np.ones((1, 0), np.int64),
        np.ones((1, 65537), np.int64),
        np.full((1, 2), 2**38, np.int64),
        np.full((1, 4), 2**62, np.int64),  # the sum overflows
    ],
)
def test_impossible_tables_are_refused(counts: IndexArray) -> None:
    with pytest.raises(ConfigError):
        FrequencyTables(counts)


def test_impossible_models_are_refused() -> None:
    for counts in (np.array([1.0, 2.0]), np.ones((2, 2), np.int64), np.array([], np.int64)):
        with pytest.raises(ConfigError):
            StaticHistogram(counts)
    for codebook_size in (0, 65537):
        with pytest.raises(ConfigError):
            FixedLength(codebook_size)
    with pytest.raises(ConfigError):
        FrequencyTables(np.ones((2, 2), np.int64), np.array([0, 2]))


def test_a_huge_shape_with_few_bytes_is_refused_before_memory_is_taken() -> None:
    shape_hw = (10**6, 10**7)  # 80 TB of indices
    for model in (FixedLength(512), StaticHistogram(np.array([1000, 1, 1]))):
        with pytest.raises(BitstreamError):
            decode_indices(model, b"\1\2\3\4", shape_hw)


class Counted(AdaptiveCounts):
    """An adaptive model that counts its batches and promises nothing about the bytes."""

    batches_read = 0

    def least_bits(self, n_indices: int) -> float:
        del n_indices
        return 0.0

    def batches(self, shape_hw: tuple[int, int]) -> Generator[Batch, IndexArray, IndexArray]:
        coding = super().batches(shape_hw)
        batch = next(coding)
        while True:
            self.batches_read += 1
            try:
                batch = coding.send((yield batch))
            except StopIteration as finished:
                return finished.value


def test_a_decoder_ends_when_its_bytes_are_used_up() -> None:
    """Zeros follow the bytes without end: a decoder must not go on in them for all the indices of a large image."""
    for data in (b"\x5a" * 40, b"\xff" * 40, bytes(range(40))):
        model = Counted(np.full(16, 100))
        with pytest.raises(BitstreamError):
            decode_indices(model, data, (1000, model.batch_size))
        assert 1 <= model.batches_read < 20


def test_weights_of_symbols_follow_the_documented_rule() -> None:
    tables = SymbolTables(np.array([[1000, 0, 0], [0, 0, 1000], [1, 1, 2]]), largest_weight=2**24 - 101)
    expected = [[2**24 - 101, 51, 50], [51, 50, 2**24 - 101], [2**22, 2**22, 2**23]]
    assert tables.weights_NK.tolist() == expected
