"""The context model: exact everywhere, and no better or worse than its network says."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator

import constriction
import numpy as np
import pytest
import torch
from torch import Tensor

from gosvae.entropy.base import LARGEST_WEIGHT, IndexArray, SymbolTables
from gosvae.entropy.coder import decode_indices, encode_indices
from gosvae.entropy.context import ContextConfig, ContextModel, ContextNetwork
from gosvae.entropy.digits import Digits, clustered, positional
from gosvae.entropy.lattice import KINDS, is_edge, passes, reach, taps
from gosvae.entropy.logits import COUNTS, counts_of_logits
from gosvae.errors import BitstreamError, CheckpointError, ConfigError
from gosvae.seeding import numpy_generator, torch_generator


def small_model(
    values: tuple[int, ...] = (40,), *, size: int | None = None, embed_digits: bool = False
) -> ContextModel:
    """A small network of random weights: its distributions differ from place to place."""
    config = ContextConfig(
        codebook_size=size or math.prod(values), values=values, embed_digits=embed_digits,
        embedding_width=8, width=32, taps=(4, 8, 12),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ContextNetwork(config)
        with torch.no_grad():
            for head in network.heads:
                head.weight_OI.mul_(4.0)  # type: ignore[union-attr, operator]
    return ContextModel(config, network.freeze())


def counts_of(model: ContextModel, indices_hw: IndexArray) -> Iterator[IndexArray]:
    """The counts of all batches of an image."""
    height, width = indices_hw.shape
    coding, symbols = model.batches((height, width)), None
    while True:
        try:
            batch = next(coding) if symbols is None else coding.send(symbols)
        except StopIteration as finished:
            np.testing.assert_array_equal(finished.value, indices_hw.reshape(-1))
            return
        assert isinstance(batch.tables, SymbolTables)
        yield batch.tables.counts_NK
        symbols = batch.symbols(indices_hw.reshape(-1))


@pytest.mark.parametrize("refinements", [1, 2, 3])
@pytest.mark.parametrize("shape_hw", [(1, 1), (1, 9), (5, 3), (16, 24), (17, 9)])
def test_passes_cover_every_position_once(refinements: int, shape_hw: tuple[int, int]) -> None:
    numbers = np.concatenate([part.positions(shape_hw) for parts in passes(refinements) for part in parts])
    assert len(passes(refinements)) == 2 + 2 * refinements
    np.testing.assert_array_equal(np.sort(numbers), np.arange(math.prod(shape_hw)))


@pytest.mark.parametrize("refinements", [1, 2, 3])
def test_taps_see_what_is_decoded_and_lie_within_reach(refinements: int) -> None:
    size = 48
    known_hw = np.zeros((size, size), bool)
    for parts in passes(refinements):
        for part in parts:
            positions = part.positions((size, size))
            seen = () if part.kind is None else taps(part.kind, 100)
            assert part.kind is None or len(seen) == (16, 24, 40)[part.kind]
            for dy, dx in seen:
                y, x = positions // size + part.spacing * dy, positions % size + part.spacing * dx
                assert max(abs(part.spacing * dy), abs(part.spacing * dx)) <= reach(refinements)
                inside = (y >= 0) & (y < size) & (x >= 0) & (x < size)
                hidden = not part.sees_edges and is_edge(part.kind or 0, (dy, dx))
                assert (known_hw[y[inside], x[inside]] != hidden).all()
        for part in parts:
            known_hw.reshape(-1)[part.positions((size, size))] = True
    assert known_hw.all()
    assert [len(taps(kind, 5)) for kind in range(KINDS)] == [5, 5, 5]


def test_the_table_of_powers() -> None:
    exact = 2.0 ** (24 - np.arange(len(COUNTS) - 1) / 16)
    np.testing.assert_allclose(COUNTS[:-1], exact, atol=1)
    assert COUNTS[0] == 2**24
    assert COUNTS[16] == 2**23
    assert COUNTS[-2:].tolist() == [1, 0]
    counts = counts_of_logits(np.array([[5, 21, -400], [0, 0, 0]]))
    assert counts.tolist() == [[2**23, 2**24, 0], [2**24] * 3]


def python_weights(counts: list[int]) -> list[int]:
    """`SymbolTables.weights_NK` in Python's integers."""
    n = len(counts)
    factor = ((2**24 - n) << 24) // sum(counts)
    weights = [(count * factor >> 24) + 1 for count in counts]
    top = counts.index(max(counts))
    weights[top] += 2**24 - sum(weights)
    excess = weights[top] - LARGEST_WEIGHT
    if excess > 0:
        share, rest = divmod(excess, n - 1)
        weights = [w + share for w in weights]
        weights[1 if top == 0 else 0] += rest
        weights[top] = LARGEST_WEIGHT
    return weights


@pytest.mark.parametrize("size", [2, 3, 40, 512])
def test_weights_are_the_integer_formula(size: int) -> None:
    generator = numpy_generator(0, size)
    logits = (generator.normal(size=(50, size)) * generator.choice([1, 20, 200], size=(50, 1))).astype(np.int64)
    logits[0], logits[1, :2] = 0, (500, 0)
    tables = SymbolTables(counts_of_logits(logits))
    expected = [python_weights(row) for row in tables.counts_NK.tolist()]
    assert tables.weights_NK.tolist() == expected
    assert (tables.weights_NK.sum(axis=1) == 2**24).all()
    assert tables.weights_NK.min() >= 1
    assert tables.weights_NK.max() == LARGEST_WEIGHT


def test_constriction_uses_exactly_the_weights_of_each_symbol() -> None:
    generator = numpy_generator(1)
    tables = SymbolTables(counts_of_logits((generator.normal(size=(40, 100)) * 60).astype(np.int64)))
    family = constriction.stream.model.Categorical(perfect=False)
    for row, symbol in enumerate(generator.integers(100, size=40)):
        encoder = constriction.stream.queue.RangeEncoder()
        encoder.encode(np.array([symbol], np.int32), family, (tables.weights_NK[row : row + 1] - 1).astype(np.float64))
        n_words, (lower, span) = encoder.pos()
        weight, left = int(tables.weights_NK[row, symbol]), int(tables.weights_NK[row, :symbol].sum())
        scale, shift = (2**64 - 1) >> 24, 32 * n_words
        assert (lower, span) == ((left * scale << shift) % 2**64, weight * scale << shift)


def forward(model: ContextModel, dtype: torch.dtype, device: str = "cpu") -> list[Tensor]:
    """Logits of every kind of pass for random neighbours, as integers on the CPU."""
    network = ContextModel(model.config, model.tensors).network.to(device, dtype)
    generator, result = torch_generator(3), []
    for kind in (None, *range(KINDS)):
        n_taps = 0 if kind is None else model.config.taps[kind]
        rows = [torch.randint(n + 1, (60, n_taps), generator=generator).to(device) for n in model.config.tables]
        h_NC = network.features(rows, kind, 1, 60)
        for d, n in enumerate(model.config.values):
            result.append(network.logits(h_NC, d).long().cpu())
            if d < len(model.config.values) - 1:
                h_NC = network.with_digit(h_NC, d, torch.randint(n, (60,), generator=generator).to(device))
    return result


@pytest.mark.parametrize(("values", "embed_digits"), [((40,), False), ((7, 8), False), ((8, 5, 4), True)])
def test_the_trained_floats_are_the_integers(values: tuple[int, ...], embed_digits: bool) -> None:
    config = ContextConfig(
        codebook_size=math.prod(values), values=values, embed_digits=embed_digits, embedding_width=8, width=32
    )
    network = ContextNetwork(config)
    model = ContextModel(config, network.freeze())
    for kind in (None, *range(KINDS)):
        n_taps = 0 if kind is None else config.taps[kind]
        rows = [torch.randint(n + 1, (30, n_taps)) for n in config.tables]
        h_NC, whole_NC = network.features(rows, kind, 0, 30), model.network.features(rows, kind, 0, 30)
        assert torch.equal(h_NC * 32, whole_NC)
        for d, n in enumerate(values):
            assert torch.equal(network.logits(h_NC, d) * 16, model.network.logits(whole_NC, d))
            if d < len(values) - 1:
                known = torch.randint(n, (30,))
                h_NC, whole_NC = network.with_digit(h_NC, d, known), model.network.with_digit(whole_NC, d, known)
                assert torch.equal(h_NC * 32, whole_NC)


@pytest.mark.parametrize("values", [(40,), (7, 8)])
def test_threads_precision_and_autocast_change_nothing(values: tuple[int, ...]) -> None:
    model = small_model(values)
    indices_hw = numpy_generator(4).integers(math.prod(values), size=(9, 14))
    expected = encode_indices(model, indices_hw)
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            assert encode_indices(model, indices_hw) == expected
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            assert encode_indices(model, indices_hw) == expected
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
    np.testing.assert_array_equal(decode_indices(model, expected, (9, 14)), indices_hw)


def test_how_many_positions_are_evaluated_together_changes_no_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    indices_hw = numpy_generator(4).integers(40, size=(12, 20))
    expected = encode_indices(model, indices_hw)
    monkeypatch.setattr("gosvae.entropy.context.CHUNK", 7)
    assert encode_indices(model, indices_hw) == expected


@pytest.mark.parametrize("values", [(40,), (8, 5, 4)])
def test_float64_gives_the_same_integers(values: tuple[int, ...]) -> None:
    model = small_model(values)
    for single, double in zip(forward(model, torch.float32), forward(model, torch.float64), strict=True):
        assert torch.equal(single, double)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_writes_the_same_bytes() -> None:
    model = small_model((7, 8))
    indices_hw = numpy_generator(4).integers(56, size=(24, 40))
    data = encode_indices(model, indices_hw)
    elsewhere = ContextModel(model.config, model.tensors, device="cuda")
    torch.backends.cuda.matmul.allow_tf32 = True
    assert encode_indices(elsewhere, indices_hw) == data
    np.testing.assert_array_equal(decode_indices(elsewhere, data, (24, 40)), indices_hw)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "cl"))), reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_compiled_gives_the_same_integers() -> None:
    model = small_model((7, 8))
    rows_NT = torch.randint(57, (60, model.config.taps[2]), generator=torch_generator(5))

    def logits(rows_NT: Tensor) -> Tensor:
        return model.network.logits(model.network.features([rows_NT], 2, 1, 60), 0)

    expected = logits(rows_NT)
    assert torch.equal(torch.compile(logits)(rows_NT), expected)
    assert expected.std() > 1


def test_bytes_over_the_cross_entropy() -> None:
    model = small_model((300,))
    indices_hw = numpy_generator(6).integers(300, size=(32, 64))
    bits = model.estimated_bits(indices_hw)
    assert sum(len(counts_NK) for counts_NK in counts_of(model, indices_hw)) == indices_hw.size
    assert bits / 8 <= len(encode_indices(model, indices_hw)) <= 1.005 * bits / 8 + 8


def test_a_position_sees_no_index_that_comes_later() -> None:
    model = small_model()
    first_hw = numpy_generator(7).integers(40, size=(16, 16))
    second_hw = first_hw.copy()
    last = passes(model.config.refinements)[-1][0].positions((16, 16))
    second_hw.reshape(-1)[last] = (second_hw.reshape(-1)[last] + 1) % 40
    batches = list(zip(counts_of(model, first_hw), counts_of(model, second_hw), strict=True))
    for one, other in batches:
        np.testing.assert_array_equal(one, other)
    assert len(np.unique(batches[-1][0], axis=0)) > 10  # and what it sees matters


def test_a_stream_says_which_weights_made_it() -> None:
    one, other = small_model(), small_model()
    assert one.mark == other.mark
    assert len(one.mark) == 4
    other.tensors["start_C"] = one.tensors["start_C"] + 1
    assert ContextModel(other.config, other.tensors).mark != one.mark
    wider = one.config.model_copy(update={"taps": (4, 8, 13)})
    with pytest.raises(CheckpointError, match=r"do not fit its configuration: first\.2\.weight"):
        ContextModel(wider, one.tensors)


def test_tensors_that_do_not_fit_are_refused() -> None:
    model = small_model()
    for name, value in (
        ("start_C", None),
        ("heads.0.weight", model.tensors["heads.0.weight"].float()),
        ("heads.0.shift", model.tensors["heads.0.shift"][:3]),
    ):
        tensors = {key: tensor for key, tensor in model.tensors.items() if key != name}
        tensors |= {} if value is None else {name: value}
        with pytest.raises(CheckpointError, match=name):
            ContextModel(model.config, tensors)
    with pytest.raises(ConfigError, match="a sum can reach"):
        ContextModel(model.config, {**model.tensors, "heads.0.bias": model.tensors["heads.0.bias"] + 2**24})
    with pytest.raises(CheckpointError, match="digits of 39 codes"):
        ContextModel(model.config, {**model.tensors, "digits_KD": torch.zeros(39, 1, dtype=torch.uint16)})


def test_few_bytes_for_many_indices_are_refused_before_the_work() -> None:
    with pytest.raises(BitstreamError, match="not a stream of"):
        decode_indices(small_model(), b"\1\2\3\4", (10**6, 10**7))


def test_digits_that_no_index_has_are_refused() -> None:
    model = small_model((7, 8), size=50)
    for seed in range(40):
        data = numpy_generator(8, seed).bytes(6)
        try:
            decode_indices(model, data, (2, 4))
        except BitstreamError as error:
            if "digits that no index has" in str(error):
                return
    pytest.fail("40 random payloads, and none of them decodes to digits that no index has")


def test_digits() -> None:
    table_KD = positional(60, (3, 4, 5))
    assert table_KD[37].tolist() == [37 % 3, 37 // 3 % 4, 37 // 12]
    np.testing.assert_array_equal(Digits(table_KD, (3, 4, 5)).indices(table_KD.astype(np.int64)), np.arange(60))
    with pytest.raises(ConfigError, match="same digits"):
        Digits(np.zeros((2, 1), np.int64), (2,))
    with pytest.raises(ConfigError, match="does not fit"):
        Digits(np.full((1, 2), 4), (4, 5))


@pytest.mark.parametrize("size", [1, 2, 9, 50, 101])
def test_clusters_are_balanced_and_near(size: int) -> None:
    vectors_KC = numpy_generator(9).normal(size=(size, 3))
    table_KD = clustered(vectors_KC).astype(np.int64)
    side = math.isqrt(size - 1) + 1
    assert table_KD.max() < side
    digits = Digits(table_KD, (side, side))
    np.testing.assert_array_equal(digits.indices(table_KD), np.arange(size))
    if size > 40:
        within = np.mean([vectors_KC[table_KD[:, 0] == c].var(axis=0).sum() for c in range(table_KD[:, 0].max() + 1)])
        assert within < 0.6 * vectors_KC.var(axis=0).sum()
