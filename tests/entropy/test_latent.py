"""The context model of latents: exact everywhere, the same for an encoder that knows all as for a decoder."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from gosvae.entropy.base import Batch, IndexArray, SymbolTables
from gosvae.entropy.coder import decode_images, decode_indices, encode_images, encode_indices
from gosvae.entropy.latent import CHUNK, LatentContextModel
from gosvae.entropy.latent_few import MOST_POSITIONS, FewPositions
from gosvae.entropy.latent_network import (
    LEVELS,
    LatentContextConfig,
    LatentContextNetwork,
    integer_network,
    interpolation,
)
from gosvae.errors import BitstreamError, CheckpointError
from gosvae.seeding import numpy_generator, torch_generator

CONFIG = LatentContextConfig(
    channels=6, group=3, bound=2, anchors=3, embedding_width=8, width=32, taps=(4, 8, 12), blocks=1
)


def trainable(config: LatentContextConfig = CONFIG) -> LatentContextNetwork:
    """A network of random weights whose distributions differ from place to place."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = LatentContextNetwork(config)
        with torch.no_grad():
            for head in network.heads:
                head.weight_OI.mul_(4.0)  # type: ignore[union-attr, operator]
    return network


def model(level: int = 100, config: LatentContextConfig = CONFIG) -> LatentContextModel:
    return LatentContextModel(config, integer_network(config, trainable(config).freeze()), level)


def latent(height: int, width: int, seed: int = 0, config: LatentContextConfig = CONFIG) -> IndexArray:
    """Stacked symbols (D * h, w)."""
    symbols = numpy_generator(seed, height, width).integers(config.values, size=(config.channels * height, width))
    return symbols.astype(np.int64)


def one_by_one(made: LatentContextModel, indices_hw: IndexArray) -> Iterator[Batch]:
    """The batches of a decoder."""
    coding, symbols = made.batches((indices_hw.shape[0], indices_hw.shape[1])), None
    while True:
        try:
            batch = next(coding) if symbols is None else coding.send(symbols)
        except StopIteration as finished:
            np.testing.assert_array_equal(finished.value, indices_hw.reshape(-1))
            return
        yield batch
        symbols = batch.symbols(indices_hw.reshape(-1))


def counts(batches: Iterator[Batch]) -> list[tuple[IndexArray, IndexArray]]:
    """Positions and tables of all batches."""
    result = []
    for batch in batches:
        assert isinstance(batch.tables, SymbolTables)
        assert isinstance(batch.where, np.ndarray)
        result.append((batch.where, batch.tables.counts_NK))
    return result


def assert_same(a: list[tuple[IndexArray, IndexArray]], b: list[tuple[IndexArray, IndexArray]]) -> None:
    assert len(a) == len(b)
    for (where_a, counts_a), (where_b, counts_b) in zip(a, b, strict=True):
        np.testing.assert_array_equal(where_a, where_b)
        np.testing.assert_array_equal(counts_a, counts_b)


@pytest.mark.parametrize("shape_hw", [(1, 1), (1, 9), (9, 1), (16, 24), (17, 9)])
def test_an_encoder_that_knows_all_gets_the_tables_of_a_decoder(shape_hw: tuple[int, int]) -> None:
    made, indices_hw = model(), latent(*shape_hw)
    assert_same(counts(one_by_one(made, indices_hw)), counts(made.known_batches_of([indices_hw])))
    data = encode_indices(made, indices_hw)
    np.testing.assert_array_equal(decode_indices(made, data, indices_hw.shape), indices_hw)  # type: ignore[arg-type]


def test_large_latents_are_evaluated_in_chunks() -> None:
    indices_hw = latent(150, 140)
    made = model()
    few, many = counts(made.known_batches_of([indices_hw])), counts(one_by_one(made, indices_hw))
    assert max(len(where) for where, _ in few) <= CHUNK * CONFIG.group
    assert_same(few, many)


def test_latents_that_are_coded_together_have_the_bytes_of_each() -> None:
    made = model()
    for sizes in ([(1, 9), (2, 9), (1, 9)], [(3, 4), (3, 3), (2, 4), (2, 3)], [(70, 70), (8, 8), (60, 65), (1, 1)]):
        images = [latent(*size_hw, seed=number) for number, size_hw in enumerate(sizes)]
        payloads = encode_images(made, images)
        assert payloads == [encode_indices(made, indices_hw) for indices_hw in images]
        shapes = [(CONFIG.channels * height, width) for height, width in sizes]
        for decoded_hw, indices_hw in zip(decode_images(made, payloads, shapes), images, strict=True):
            np.testing.assert_array_equal(decoded_hw, indices_hw)
        for bits, indices_hw in zip(made.bits_of_values_of(images), images, strict=True):
            np.testing.assert_array_equal(bits, made.bits_of_values(indices_hw))
        with pytest.raises(BitstreamError):
            decode_images(made, [*payloads[:-1], payloads[-1] + b"xx"], shapes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_few_positions_have_the_integers_of_many(dtype: torch.dtype) -> None:
    config = CONFIG.model_copy(update={"blocks": 2})
    network = integer_network(config, trainable(config).freeze()).to(dtype)
    few, generator = FewPositions(network), torch_generator(4)
    for n_positions in range(1, MOST_POSITIONS + 1):
        h_NC = torch.randint(256, (n_positions, config.width), generator=generator).to(dtype)
        symbols_NG = torch.randint(config.values, (n_positions, config.group), generator=generator)
        logits = [network.logits(network.features(h_NC), 0)]
        logits.append(network.logits(network.with_group(network.features(h_NC), 0, symbols_NG), 1))
        before = few.features(h_NC.numpy())
        found = [few.logits(before, 0), few.logits(few.with_group(before, 0, symbols_NG.numpy()), 1)]
        for expected_NGV, found_NV in zip(logits, found, strict=True):
            np.testing.assert_array_equal(expected_NGV.reshape(found_NV.shape).numpy(), found_NV)


def test_levels_have_distributions_of_their_own() -> None:
    indices_hw = latent(8, 8)
    bits = {level: model(level).estimated_bits(indices_hw) for level in (0, 100, LEVELS - 1)}
    assert len(set(bits.values())) == 3
    data = encode_indices(model(0), indices_hw)
    assert 8 * len(data) == pytest.approx(bits[0], rel=2e-3, abs=32)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tables_do_not_depend_on_threads_or_precision(threads: int, dtype: torch.dtype) -> None:
    indices_hw = latent(16, 24)
    expected = counts(model().known_batches_of([indices_hw]))
    made, before = model(), torch.get_num_threads()
    made.network.to(dtype)
    torch.set_num_threads(threads)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert_same(expected, counts(made.known_batches_of([indices_hw])))
    finally:
        torch.set_num_threads(before)


def test_what_is_trained_is_what_runs() -> None:
    network = trainable()
    integer = integer_network(CONFIG, network.freeze())
    symbols_ND = torch.randint(CONFIG.values, (50, CONFIG.channels), generator=torch_generator(3))
    with torch.no_grad():
        real_NE, whole_NE = network.embed(network.rows(symbols_ND)), integer.embed(integer.rows(symbols_ND))
        assert torch.equal(real_NE * 32, whole_NE)
        assert torch.equal(network.level_table() * 32, integer.level_table())
        n_inputs = CONFIG.embedding_width * 5
        real = network.features(network.look(real_NE[:40].reshape(-1, n_inputs), 0, 1))
        whole = integer.features(integer.look(whole_NE[:40].reshape(-1, n_inputs), 0, 1))
        for group in range(CONFIG.groups):
            assert torch.equal(network.logits(real, group) * 16, integer.logits(whole, group))
            if group + 1 < CONFIG.groups:
                real = network.with_group(real, group, symbols_ND[:8, :3])
                whole = integer.with_group(whole, group, symbols_ND[:8, :3])


def test_training_can_go_on_from_integers() -> None:
    frozen = trainable().freeze()
    again = LatentContextNetwork(CONFIG)
    again.thaw(frozen)
    refrozen = again.freeze()
    indices_hw = latent(8, 12)
    before = LatentContextModel(CONFIG, integer_network(CONFIG, frozen), 100).estimated_bits(indices_hw)
    after = LatentContextModel(CONFIG, integer_network(CONFIG, refrozen), 100).estimated_bits(indices_hw)
    assert after == pytest.approx(before, rel=1e-3)
    for name in ("embedding", "known.0"):
        assert torch.equal(frozen[name], refrozen[name])
    assert (frozen["levels"].int() - refrozen["levels"].int()).abs().max() <= 1


def test_groups_that_are_not_coded_at_a_level_take_no_bits() -> None:
    config = CONFIG.model_copy(update={"first_levels": (0, 120)})
    low, high = model(119, config), model(120, config)
    indices_hw = latent(9, 14)
    with pytest.raises(BitstreamError, match="not coded at level 119"):
        encode_indices(low, indices_hw)
    assert decode_indices(high, encode_indices(high, indices_hw), (54, 14)).tolist() == indices_hw.tolist()
    bits_of_all = high.bits_of_values(indices_hw)
    indices_hw[27:] = CONFIG.bound
    assert_same(counts(one_by_one(low, indices_hw)), counts(low.known_batches_of([indices_hw])))
    data = encode_indices(low, indices_hw)
    assert decode_indices(low, data, (54, 14)).tolist() == indices_hw.tolist()
    assert 8 * len(data) == pytest.approx(low.estimated_bits(indices_hw), rel=5e-3, abs=32)
    assert low.least_bits(1000) == pytest.approx(high.least_bits(1000) / 2)
    bits_of_values = low.bits_of_values(indices_hw)
    assert (bits_of_values[27:, :, CONFIG.bound] == 0.0).all()
    assert np.isinf(np.delete(bits_of_values[27:], CONFIG.bound, axis=2)).all()
    assert np.isfinite(bits_of_values[:27]).all()
    assert np.isfinite(bits_of_all).all()
    for first_levels in ((0, 5), (1, 2, 3), (0, 5, 3)):
        with pytest.raises(ValidationError, match="rising from 0"):
            LatentContextConfig(channels=12, first_levels=first_levels)


def test_levels_lie_between_their_anchors() -> None:
    weights_LA = interpolation(5)
    assert weights_LA.shape == (LEVELS, 5)
    torch.testing.assert_close(weights_LA.sum(dim=1), torch.ones(LEVELS))
    torch.testing.assert_close(weights_LA @ torch.linspace(0, 255, 5), torch.arange(256.0))


def test_other_shapes_and_weights_are_refused() -> None:
    with pytest.raises(BitstreamError, match="does not hold 6 channels"):
        encode_indices(model(), np.zeros((7, 3), np.int64))
    tensors = trainable().freeze()
    del tensors["levels"]
    with pytest.raises(CheckpointError, match="levels"):
        integer_network(CONFIG, tensors)
    with pytest.raises(ValidationError, match="whole groups"):
        LatentContextConfig(channels=6, group=4)
