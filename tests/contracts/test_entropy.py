"""The contract of every entropy model: exact round trips, a fair estimate, and clear refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gosvae.entropy.adaptive import AdaptiveCounts
from gosvae.entropy.base import EntropyModel, FrequencyTables, TableModel
from gosvae.entropy.coder import decode_images, decode_indices, encode_images, encode_indices
from gosvae.entropy.context import ContextConfig, ContextModel, ContextNetwork
from gosvae.entropy.fixed import FixedLength
from gosvae.entropy.static import StaticHistogram
from gosvae.errors import BitstreamError, ShapeError
from gosvae.seeding import numpy_generator

SHAPES = [(1, 1), (1, 40), (40, 1), (7, 9), (16, 32)]


def context_model(values: tuple[int, ...], *, embed_digits: bool = False) -> ContextModel:
    """A small network of random weights."""
    config = ContextConfig(
        codebook_size=int(np.prod(values)), values=values, embed_digits=embed_digits,
        embedding_width=4, width=16, taps=(4, 6, 8),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ContextModel(config, ContextNetwork(config).freeze())


def models() -> dict[str, EntropyModel]:
    """Every entropy model, small and large."""
    geometric_K = (2.0 ** np.linspace(16, 0, 512)).astype(np.int64)
    return {
        "fixed-2": FixedLength(2),
        "fixed-512": FixedLength(512),
        "fixed-12000": FixedLength(12000),
        "static-2": StaticHistogram(np.array([99, 1])),
        "static-512": StaticHistogram(geometric_K),
        "static-65536": StaticHistogram(np.arange(1, 65537)),
        "adaptive-2": AdaptiveCounts(np.array([99, 1])),
        "adaptive-512": AdaptiveCounts(geometric_K),
        "adaptive-12000": AdaptiveCounts(np.arange(1, 12001)),
        "context-2": context_model((2,)),
        "context-512": context_model((512,)),
        "context-12000-clusters": context_model((120, 100)),
        "context-64000-levels": context_model((8, 8, 8, 5, 5, 5), embed_digits=True),
    }


MODELS = models()


@pytest.fixture(params=sorted(MODELS))
def model(request: pytest.FixtureRequest) -> EntropyModel:
    return MODELS[request.param]


@pytest.mark.parametrize("shape_hw", SHAPES)
def test_round_trip(model: EntropyModel, shape_hw: tuple[int, int]) -> None:
    generator = numpy_generator(0, *shape_hw)
    for indices_hw in (
        generator.integers(model.codebook_size, size=shape_hw),
        np.zeros(shape_hw, np.uint16),
        np.full(shape_hw, model.codebook_size - 1, np.int32),
    ):
        decoded_hw = decode_indices(model, encode_indices(model, indices_hw), shape_hw)
        assert decoded_hw.dtype == np.int64
        np.testing.assert_array_equal(decoded_hw, indices_hw)


def test_the_estimate_is_what_the_bytes_take(model: EntropyModel) -> None:
    indices_hw = numpy_generator(1).integers(model.codebook_size, size=(16, 32))
    measured_bits = 8 * len(encode_indices(model, indices_hw))
    assert measured_bits == pytest.approx(model.estimated_bits(indices_hw), rel=2e-3, abs=32)


def test_batches_cover_every_position_once_for_each_digit(model: EntropyModel) -> None:
    indices_N = numpy_generator(5).integers(model.codebook_size, size=15)
    coding, symbols, counts_N, n_digits = model.batches((3, 5)), None, np.zeros(15, np.int64), 1
    while True:
        try:
            batch = next(coding) if symbols is None else coding.send(symbols)
        except StopIteration as finished:
            np.testing.assert_array_equal(finished.value, indices_N)
            break
        symbols = batch.symbols(indices_N)
        assert len(symbols) == batch.length(15)
        assert symbols.max() < batch.tables.codebook_size
        counts_N[batch.where] += 1
        if isinstance(batch.tables, FrequencyTables):
            assert batch.tables.table_of_N is None or len(batch.tables.table_of_N) == len(symbols)
        else:
            n_digits = len(model.digits) if isinstance(model, ContextModel) else n_digits
            assert batch.tables.weights_NK.shape == (len(symbols), batch.tables.codebook_size)
    assert (counts_N == n_digits).all()


def test_images_that_are_coded_together_have_the_bytes_of_each(model: EntropyModel) -> None:
    shapes = [(3, 5), (1, 1), (16, 32), (2, 40), (40, 50), (4, 4)]  # the fifth has more than one chunk
    generator = numpy_generator(6)
    images = [generator.integers(model.codebook_size, size=shape_hw) for shape_hw in shapes]
    payloads = encode_images(model, images)
    assert payloads == [encode_indices(model, indices_hw) for indices_hw in images]
    for decoded_hw, indices_hw in zip(decode_images(model, payloads, shapes), images, strict=True):
        np.testing.assert_array_equal(decoded_hw, indices_hw)
    assert encode_images(model, []) == decode_images(model, [], []) == []


def test_one_payload_that_no_encoder_makes_is_refused_with_the_others(model: EntropyModel) -> None:
    shapes = [(3, 5), (6, 7), (2, 40)]
    generator = numpy_generator(7)
    payloads = encode_images(model, [generator.integers(model.codebook_size, size=shape_hw) for shape_hw in shapes])
    for number in range(len(shapes)):
        damaged = [data + 40 * b"x" if image == number else data for image, data in enumerate(payloads)]
        with pytest.raises(BitstreamError):
            decode_images(model, damaged, shapes)


def test_the_least_bits_are_a_lower_bound(model: EntropyModel) -> None:
    for value in (0, model.codebook_size - 1):
        indices_hw = np.full((60, 60), value)
        assert 8 * len(encode_indices(model, indices_hw)) >= model.least_bits(3600) - 1
    assert isinstance(model, TableModel) or model.least_bits(10**9) > 10**5


def test_the_id_fits_the_header(model: EntropyModel) -> None:
    assert 0 <= model.model_id <= 255
    assert model.name


def test_truncated_and_extended_payloads_are_refused(model: EntropyModel) -> None:
    indices_hw = numpy_generator(2).integers(model.codebook_size, size=(16, 32))
    data = encode_indices(model, indices_hw)
    for bad in (data[: len(data) // 2], data[:-4], b"", data + b"\0", data + b"\0\0\0\0", data + b"x", data + data):
        try:
            decoded_hw = decode_indices(model, bad, (16, 32))
        except BitstreamError:
            continue
        # Where one index takes 0.01 bit, or models adapt to what follows the cut, a shorter payload can be a stream in
        # its own right: of other indices. The checksum around it is what tells.
        assert model.codebook_size == 2 or not isinstance(model, TableModel)
        assert encode_indices(model, decoded_hw) == bad


def test_payloads_of_another_shape_are_refused(model: EntropyModel) -> None:
    indices_hw = numpy_generator(3).integers(model.codebook_size, size=(16, 32))
    data = encode_indices(model, indices_hw)
    for shape_hw in ((1, 1), (8, 32), (64, 64)):
        with pytest.raises(BitstreamError):
            decode_indices(model, data, shape_hw)


def test_impossible_indices_are_refused(model: EntropyModel) -> None:
    for outside in (-1, model.codebook_size):
        with pytest.raises(BitstreamError, match=rf"index {outside} is outside \[0, {model.codebook_size}\)"):
            encode_indices(model, np.array([[0, outside]]))
    for bad in (np.zeros((0, 3), np.int64), np.zeros(3, np.int64), np.zeros((2, 2)), np.zeros((1, 2, 2), np.int64)):
        with pytest.raises(ShapeError):
            encode_indices(model, bad)
        with pytest.raises(ShapeError):
            model.estimated_bits(bad)
    for shape_hw in ((0, 3), (3, 0), (-1, -3)):
        with pytest.raises(ShapeError):
            decode_indices(model, b"", shape_hw)
