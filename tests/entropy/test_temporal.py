"""The temporal models: exact for encoder and decoder, on every device, and cheap where nothing changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gosvae.bitstream import SliceLayout
from gosvae.codecs.slices import grid_parts
from gosvae.entropy.base import EntropyModel, IndexArray
from gosvae.entropy.coder import decode_images, decode_indices, encode_images, encode_indices
from gosvae.entropy.latent_few import MOST_POSITIONS
from gosvae.entropy.latent_network import LatentContextConfig
from gosvae.entropy.temporal import (
    FewWithReference,
    Memory,
    TemporalConditions,
    TemporalContextModel,
    TemporalTables,
)
from gosvae.entropy.temporal_network import (
    ACTIVITIES,
    TemporalConfig,
    TemporalContextNetwork,
    integer_temporal_network,
    reference_taps,
)
from gosvae.errors import BitstreamError, CheckpointError, ConfigError, ShapeError
from gosvae.seeding import numpy_generator, torch_generator

CONTEXT = LatentContextConfig(
    channels=6, group=3, bound=2, anchors=3, embedding_width=8, width=32, taps=(4, 8, 12), first_levels=(0, 50)
)
CONFIG = TemporalConfig(context=CONTEXT, taps=9)
SHAPES = [(1, 1), (1, 9), (7, 5), (16, 32)]


def trainable() -> TemporalContextNetwork:
    """A network of random weights, whose tables of the reference are random too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = TemporalContextNetwork(CONFIG)
        with torch.no_grad():
            for table in (network.centre, network.direct, *network.near):
                table.normal_(std=0.5)
            for head in network.space.heads:
                head.weight_OI.mul_(2.0)  # type: ignore[union-attr, operator]
    return network


def latent(height: int, width: int, seed: int = 0, level: int = 100) -> IndexArray:
    """Symbols (D, h, w); those of channels that are not coded at the level are 0."""
    shape = (CONTEXT.channels, height, width)
    symbols = numpy_generator(seed, height, width).integers(CONTEXT.values, size=shape)
    symbols[CONTEXT.groups_at(level) * CONTEXT.group :] = CONTEXT.bound
    return symbols.astype(np.int64)


def reference(height: int, width: int, level: int = 100) -> Memory:
    """A reference with symbols of several ages."""
    memory = Memory.after(latent(height, width, 1, level), level, None)
    changed = latent(height, width, 2, level)
    half = np.where(numpy_generator(3).random(changed.shape) < 0.5, memory.symbols, changed)
    return Memory.after(half, level, memory)


def stacked(symbols: IndexArray) -> IndexArray:
    return symbols.reshape(-1, symbols.shape[2])


def models(height: int, width: int, level: int = 100) -> list[EntropyModel]:
    memory = reference(height, width)
    network = integer_temporal_network(CONFIG, trainable().freeze())
    counts = numpy_generator(4).integers(1000, size=(ACTIVITIES, CONTEXT.channels, CONTEXT.values, CONTEXT.values))
    return [
        TemporalContextModel(network, level, memory, 3),
        TemporalTables(CONTEXT, counts.astype(np.int32), level, memory, 3),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_few_positions_have_the_integers_of_many(dtype: torch.dtype) -> None:
    network = integer_temporal_network(CONFIG, trainable().freeze()).to(dtype)
    many, few = TemporalConditions(network, [reference(7, 5)], 3), FewWithReference(network)
    generator = torch_generator(4)
    for n_positions in range(1, MOST_POSITIONS + 1):
        h_NC = torch.randint(256, (n_positions, CONTEXT.width), generator=generator).to(dtype)
        at_ND = many.at(np.arange(3, 3 + n_positions))
        for group in range(CONTEXT.groups):
            expected_NC, expected_NGV = many.grouped(h_NC, group, at_ND)
            found_NC, found_NV = few.grouped(h_NC.numpy(), group, at_ND.numpy())
            np.testing.assert_array_equal(expected_NC.numpy(), found_NC)
            np.testing.assert_array_equal(expected_NGV.reshape(found_NV.shape).numpy(), found_NV)


@pytest.mark.parametrize("shape_hw", SHAPES)
@pytest.mark.parametrize("level", [10, 100])
def test_round_trip(shape_hw: tuple[int, int], level: int) -> None:
    symbols = stacked(latent(*shape_hw, level=level))
    for model in models(*shape_hw, level):
        data = encode_indices(model, symbols)
        np.testing.assert_array_equal(decode_indices(model, data, symbols.shape), symbols)
        assert 8 * len(data) == pytest.approx(model.estimated_bits(symbols), rel=2e-3, abs=32)
        assert 8 * len(data) >= model.least_bits(symbols.size) - 1
        with pytest.raises(BitstreamError):
            decode_indices(model, data + b"x", symbols.shape)


@pytest.mark.parametrize("layout", ["bands", "interleaved"])
def test_slices_that_are_coded_together_have_the_bytes_of_each(layout: SliceLayout) -> None:
    network, memory, symbols = integer_temporal_network(CONFIG, trainable().freeze()), reference(7, 11), latent(7, 11)
    parts = grid_parts((7, 11), 6, layout)
    memories, images = [memory.part(part) for part in parts], [stacked(symbols[:, *part]) for part in parts]
    together = TemporalContextModel(network, 100, memories, 3)
    single = [TemporalContextModel(network, 100, part, 3) for part in memories]
    payloads = encode_images(together, images)
    assert payloads == [encode_indices(*pair) for pair in zip(single, images, strict=True)]
    shapes = [(image.shape[0], image.shape[1]) for image in images]
    for decoded_hw, image in zip(decode_images(together, payloads, shapes), images, strict=True):
        np.testing.assert_array_equal(decoded_hw, image)
    for bits, model, image in zip(together.bits_of_values_of(images), single, images, strict=True):
        np.testing.assert_array_equal(bits, model.bits_of_values(image))


def test_the_trained_network_and_its_integers_give_the_same_logits() -> None:
    network = trainable()
    exact = integer_temporal_network(CONFIG, network.freeze())
    memory, unit = reference(4, 6), 2.0**-5
    rows = memory.ages.astype(np.int64) * CONTEXT.values + memory.symbols
    rows_ND = torch.from_numpy(rows.reshape(CONTEXT.channels, -1).T.copy())
    with torch.no_grad():
        torch.testing.assert_close(exact.embed(rows_ND) * unit, network.embed(rows_ND))
        torch.testing.assert_close(exact.centred(rows_ND) * unit, network.centred(rows_ND))
        x_NI = (torch.rand(len(rows_ND), (8 + 1 + CONFIG.taps + 2) * 8) * 100).round()
        added_NC = exact.centred(rows_ND)
        h_NC = exact.space.look(x_NI, 1, 0, added_NC)
        torch.testing.assert_close(h_NC * unit, network.space.look(x_NI * unit, 1, 0, added_NC * unit))
        for group in range(CONTEXT.groups):
            mixed_NC = exact.with_reference(h_NC, group, rows_ND)
            torch.testing.assert_close(mixed_NC * unit, network.with_reference(h_NC * unit, group, rows_ND))
            logits = exact.logits(mixed_NC, group, rows_ND)
            torch.testing.assert_close(logits / 16, network.logits(mixed_NC * unit, group, rows_ND))
            assert (logits == logits.round()).all()


def test_the_bits_of_values_are_those_of_the_tables() -> None:
    model, _ = models(5, 7)
    assert isinstance(model, TemporalContextModel)
    symbols = stacked(latent(5, 7))
    bits = np.take_along_axis(model.bits_of_values(symbols), symbols[..., None], axis=2).sum()
    assert float(bits) == pytest.approx(model.estimated_bits(symbols), rel=1e-3)


def test_a_reference_changes_every_table_around_it() -> None:
    symbols = stacked(latent(5, 7))
    network = integer_temporal_network(CONFIG, trainable().freeze())
    memory = reference(5, 7)
    other = memory.symbols.copy()
    other[0, 2, 3] = (other[0, 2, 3] + 1) % CONTEXT.values
    first, second = (
        TemporalContextModel(network, 100, seen, 3).bits_of_values(symbols)
        for seen in (memory, Memory(other, memory.ages, memory.level))
    )
    changed = np.abs(first - second).max(axis=2).reshape(CONTEXT.channels, 5, 7).max(axis=0) > 0
    assert changed[1:4, 2:5].all()
    assert not changed[2, 0]


def test_ages_count_the_frames_since_a_symbol_changed() -> None:
    memory = Memory.after(latent(3, 3), 100, None)
    assert (memory.ages == 1).all()
    for age in (2, 3, 3):
        memory = Memory.after(memory.symbols, 100, memory)
        assert (memory.ages == age).all()
    changed = memory.symbols.astype(np.int64)
    changed[0, 0, 0] = (changed[0, 0, 0] + 1) % CONTEXT.values
    following = Memory.after(changed, 100, memory)
    assert following.ages[0, 0, 0] == 0
    assert (following.ages.reshape(-1)[1:] == 3).all()
    assert following.checksum != Memory(following.symbols, memory.ages, 100).checksum
    assert (Memory.after(changed, 101, memory).ages == 1).all()
    with pytest.raises(ShapeError):
        Memory.after(latent(3, 4), 100, memory)


def test_activity_is_the_share_of_changes() -> None:
    memory = Memory.after(latent(16, 32), 100, None)
    symbols = memory.symbols.astype(np.int64)
    size = symbols.size
    for count, expected in ((0, 0), (size // 256 - 1, 0), (size // 256, 1), (size // 9, 5), (size // 3, 7), (size, 7)):
        changed = symbols.reshape(-1).copy()
        changed[:count] = (changed[:count] + 1) % CONTEXT.values
        assert memory.activity(changed.reshape(symbols.shape), CONTEXT.channels) == expected


def test_the_nearest_taps_come_first() -> None:
    assert reference_taps(5) == ((0, 0), (-1, 0), (0, -1), (0, 1), (1, 0))
    assert len(reference_taps(25)) == len(set(reference_taps(25))) == 25


def test_a_network_starts_from_the_codecs_own_model() -> None:
    network = trainable()
    donor = TemporalContextNetwork(CONFIG).space
    tensors = type(donor)(CONTEXT).freeze()
    network.start_from(tensors)
    torch.testing.assert_close(network.space.embedding * 32, tensors["embedding"].float())


def test_what_does_not_fit_is_refused() -> None:
    tensors = trainable().freeze()
    with pytest.raises(CheckpointError, match="near"):
        integer_temporal_network(CONFIG, {name: value for name, value in tensors.items() if name != "near.1"})
    for model in models(4, 4):
        with pytest.raises(ShapeError):
            encode_indices(model, stacked(latent(4, 5)))
    with pytest.raises(ConfigError, match="counts"):
        TemporalTables(CONTEXT, np.ones((1, 2), np.int32), 100, reference(4, 4), 0)


@pytest.mark.parametrize(("threads", "dtype"), [(1, torch.float32), (3, torch.float32), (2, torch.float64)])
def test_bytes_do_not_depend_on_threads_or_precision(threads: int, dtype: torch.dtype) -> None:
    symbols = stacked(latent(16, 24))
    expected = encode_indices(models(16, 24)[0], symbols)
    network, before = integer_temporal_network(CONFIG, trainable().freeze()).to(dtype), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            model = TemporalContextModel(network, 100, reference(16, 24), 3)
            assert encode_indices(model, symbols) == expected
            np.testing.assert_array_equal(decode_indices(model, expected, symbols.shape), symbols)
    finally:
        torch.set_num_threads(before)
