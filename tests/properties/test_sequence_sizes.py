"""Whatever the symbols, levels and references: no frame is longer than the same symbols without a reference."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gosvae.codecs.registry import embedded_codecs, load_sequence_codec, models_folder
from gosvae.codecs.sequence.choice import shortest
from gosvae.codecs.sequence.codec import SequenceCodec
from gosvae.codecs.sequence.format import HEADER_BYTES, Mode, SessionHeader, is_session
from gosvae.codecs.temporal_model import has_temporal_model
from gosvae.entropy.temporal import Memory
from gosvae.seeding import numpy_generator
from tiny import sequence_codec, streets

RELEASED = [name for name in embedded_codecs() if has_temporal_model(models_folder() / name)]


@cache
def released(name: str) -> SequenceCodec:
    return load_sequence_codec(name)


def grid(codec: SequenceCodec, level: int, shape_hw: tuple[int, int], spread: float, seed: int) -> np.ndarray:
    """Random symbols around 0; channels that are not coded at the level are 0."""
    config = codec.codec.config.context
    values = numpy_generator(seed).normal(0.0, spread, (config.channels, *shape_hw))
    symbols = np.clip(np.rint(values), -config.bound, config.bound).astype(np.int64) + config.bound
    symbols[config.groups_at(level) * config.group :] = config.bound
    return symbols


def check(
    codec: SequenceCodec, levels: tuple[int, int], spread: float, changed: float, distance: int, slices: int, seed: int
) -> None:
    """Code a grid given another one of which a share of the symbols is different."""
    header = SessionHeader(codec.codec.fingerprint[:4], codec.mark, 64, 96, slices=slices)
    frames = codec.frame_coder(header)
    stride = codec.codec.transform.stride
    shape_hw = (64 // stride, 96 // stride)
    level, before = levels
    symbols, other = (grid(codec, level, shape_hw, spread, seed + n) for n in range(2))
    older = np.where(numpy_generator(seed + 2).random(symbols.shape) < changed, other, symbols)
    reference = Memory.after(older, before, Memory.after(other, before, None))
    intra = frames.encode_intra(symbols, level, 5)
    coded = shortest(frames, symbols, level, 5, reference, distance)
    assert len(coded.data) <= len(intra.data)
    if coded.header.mode is Mode.INTRA:
        assert coded.data == intra.data
    alone = grid(codec, level, shape_hw, spread, seed + 3)
    coded = shortest(frames, symbols, level, 5, reference, distance, lambda: alone)
    assert len(coded.data) <= len(intra.data)


CASES = {
    "level": st.integers(0, 255),
    "before": st.integers(0, 255) | st.none(),
    "spread": st.floats(0.0, 4.0),
    "changed": st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]),
    "distance": st.integers(1, 63),
    "slices": st.integers(1, 4),
    "seed": st.integers(0, 2**31),
}


@settings(max_examples=60, deadline=None)
@given(**CASES)
def test_no_frame_is_longer_than_without_a_reference(
    level: int, before: int | None, spread: float, changed: float, distance: int, slices: int, seed: int
) -> None:
    check(sequence_codec(), (level, level if before is None else before), spread, changed, distance, slices, seed)


@pytest.mark.parametrize("name", RELEASED)
@settings(max_examples=12, deadline=None)
@given(**CASES)
def test_the_same_holds_for_every_released_codec(
    name: str, level: int, before: int | None, spread: float, changed: float, distance: int, slices: int, seed: int
) -> None:
    check(released(name), (level, level if before is None else before), spread, changed, distance, slices, seed)


@pytest.mark.parametrize("name", RELEASED)
@pytest.mark.parametrize("level", [0, 120])
def test_frames_of_released_codecs_are_not_longer_than_streams_of_pictures(name: str, level: int) -> None:
    codec, picture = released(name).at(level), streets()[0].image_uint8_HW3
    noise = numpy_generator(0).integers(256, size=picture.shape).astype(np.uint8)
    encoder = codec.encoder(64, 96, frames_per_second=10.0)
    for frame in (picture, np.roll(picture, 1, axis=1), noise, noise[::-1].copy(), picture, picture):
        data = encoder.encode(frame)
        assert len(data) - HEADER_BYTES * is_session(data) <= len(codec.codec.compress_at(frame, level)) + 2
