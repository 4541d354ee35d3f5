"""Whatever the bytes: round trips are exact, damage is found, nothing crashes. GOSVAE_FUZZ sets the number of tries."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gosvae.bitstream import (
    MAGIC,
    MAGIC_1,
    MAX_PIXELS,
    MAX_SIDE,
    Header,
    SliceLayout,
    Stream,
    pack,
    pack_slices,
    payload_bytes,
    salvage,
    unpack,
    unpack_slices,
)
from gosvae.codecs.classical import CLASSICAL_CODECS
from gosvae.codecs.slices import decode_slices, encode_slices, slice_count
from gosvae.codecs.vq import IndexCoder
from gosvae.entropy.base import EntropyModel, FrequencyTables
from gosvae.entropy.coder import decode, decode_indices, encode, encode_indices
from gosvae.entropy.fixed import FixedLength
from gosvae.entropy.static import StaticHistogram
from gosvae.errors import BitstreamError
from gosvae.seeding import numpy_generator
from tiny import has_vvc

FUZZ_TRIES = int(os.environ.get("GOSVAE_FUZZ", "2000"))

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.one_of(st.sampled_from([1, 2, 256, 257]), st.integers(1, 1000), st.just(65536))
SIDES = st.integers(1, 40)
LAYOUTS = st.sampled_from(["bands", "interleaved"])
HEADERS = st.builds(
    Header,
    st.binary(min_size=8, max_size=8),
    st.integers(1, MAX_SIDE),
    st.integers(1, MAX_SIDE),
    st.integers(0, 255),
).filter(lambda header: header.height * header.width <= MAX_PIXELS)


def skewed(codebook_size: int, seed: int) -> StaticHistogram:
    """A histogram between flat and nearly certain."""
    generator = numpy_generator(seed)
    logarithms_K = generator.uniform(0, generator.uniform(0, 30), codebook_size)
    return StaticHistogram((2.0 ** (logarithms_K * min(1.0, 22 / 30))).astype(np.int64))


@given(SIZES, SIDES, SIDES, SEEDS, st.booleans())
def test_entropy_round_trip(codebook_size: int, height: int, width: int, seed: int, probable: bool) -> None:
    model = skewed(codebook_size, seed)
    generator = numpy_generator(seed, "indices")
    p = model.counts_K / model.counts_K.sum() if probable else None
    indices_hw = generator.choice(codebook_size, size=(height, width), p=p)
    models: list[EntropyModel] = [model, FixedLength(codebook_size)]
    for m in models:
        data = encode_indices(m, indices_hw)
        np.testing.assert_array_equal(decode_indices(m, data, (height, width)), indices_hw)
        assert 8 * len(data) <= m.estimated_bits(indices_hw) * 1.005 + 40


@given(st.integers(1, 6), st.integers(1, 50), st.integers(1, 300), SEEDS)
def test_round_trip_with_several_tables(n_tables: int, codebook_size: int, n_symbols: int, seed: int) -> None:
    generator = numpy_generator(seed)
    counts_TK = generator.integers(1, 10 ** generator.integers(1, 9), size=(n_tables, codebook_size))
    tables = FrequencyTables(counts_TK, generator.integers(n_tables, size=n_symbols))
    symbols_N = generator.integers(codebook_size, size=n_symbols)
    np.testing.assert_array_equal(decode(encode(symbols_N, tables), n_symbols, tables), symbols_N)


@given(SIZES, st.binary(max_size=60), SIDES, SIDES, SEEDS)
def test_any_payload_is_a_stream_or_refused(
    codebook_size: int, data: bytes, height: int, width: int, seed: int
) -> None:
    models: list[EntropyModel] = [skewed(codebook_size, seed), FixedLength(codebook_size)]
    for model in models:
        try:
            indices_hw = decode_indices(model, data, (height, width))
        except BitstreamError:
            continue
        assert encode_indices(model, indices_hw) == data


def shortened(header: Header) -> Header:
    """The header as version 2 holds it."""
    return replace(header, fingerprint=header.fingerprint[:4])


@given(HEADERS, st.binary(max_size=300))
def test_container_round_trip(header: Header, payload: bytes) -> None:
    assert unpack(pack(header, payload, version=1)) == (header, payload)
    data = pack(header, payload)
    assert unpack(data) == (shortened(header), payload)
    assert len(data) - payload_bytes(data) <= 16


@given(HEADERS, st.lists(st.binary(max_size=200), min_size=2, max_size=9), LAYOUTS)
def test_sliced_container_round_trip(header: Header, payloads: list[bytes], layout: SliceLayout) -> None:
    data = pack_slices(header, payloads, layout)
    assert unpack_slices(data) == salvage(data) == Stream(2, shortened(header), layout, tuple(payloads))


def every_version(header: Header, payload: bytes) -> list[bytes]:
    """The payload in each form of the container."""
    half = len(payload) // 2
    sliced = pack_slices(header, [payload[:half], payload[half:], b"third"])
    return [pack(header, payload, version=1), pack(header, payload), sliced]


@given(HEADERS, st.binary(max_size=40))
def test_every_flipped_bit_and_every_truncation_is_found(header: Header, payload: bytes) -> None:
    for data in every_version(header, payload):
        for position in range(8 * len(data)):
            damaged = bytearray(data)
            damaged[position // 8] ^= 1 << position % 8
            with pytest.raises(BitstreamError):
                unpack_slices(bytes(damaged))
        for length in range(len(data)):
            with pytest.raises(BitstreamError):
                unpack_slices(data[:length])


@given(HEADERS, st.binary(max_size=100), st.binary(min_size=1, max_size=50))
def test_every_extension_is_found(header: Header, payload: bytes, more: bytes) -> None:
    for data in every_version(header, payload):
        with pytest.raises(BitstreamError):
            unpack_slices(data + more)


@given(st.binary(max_size=100))
def test_random_bytes_are_refused(data: bytes) -> None:
    magic = bytes([MAGIC])
    for beginning in (b"", MAGIC_1, MAGIC_1 + b"\x01", magic, magic + b"\x20", magic + b"\x21", magic + b"\x23"):
        for read in (unpack, unpack_slices, salvage):
            with pytest.raises(BitstreamError):
                read(beginning + data)


@given(st.integers(1, 300), SIDES, SIDES, st.integers(1, 12), LAYOUTS, SEEDS, st.data())
def test_lost_slices_leave_the_others_as_they_were(
    codebook_size: int, height: int, width: int, wanted: int, layout: SliceLayout, seed: int, choice: st.DataObject
) -> None:
    coder = IndexCoder([FixedLength(codebook_size), skewed(codebook_size, seed)])
    indices_hw = numpy_generator(seed, "indices").integers(codebook_size, size=(height, width))
    count = slice_count((height, width), wanted, layout)
    model_id, payloads = encode_slices(coder, indices_hw, 0, count, layout)
    assert len(payloads) == count <= wanted
    stream = Stream(2, Header(bytes(4), height, width, model_id), layout, tuple(payloads))
    whole = decode_slices(coder, stream, (height, width))
    np.testing.assert_array_equal(whole.symbols, indices_hw)
    assert whole.known_hw is None
    lost = choice.draw(st.sets(st.integers(0, count - 1), max_size=count - 1))
    kept = tuple(None if number in lost else payload for number, payload in enumerate(payloads))
    partial = decode_slices(coder, replace(stream, slices=kept), (height, width))
    assert partial.damaged == tuple(sorted(lost))
    known_hw = np.ones((height, width), bool) if partial.known_hw is None else partial.known_hw
    np.testing.assert_array_equal(partial.symbols, np.where(known_hw, indices_hw, -1))
    if layout == "bands":
        assert (known_hw.all(axis=1) == known_hw.any(axis=1)).all()
    # Slices share the positions out evenly, up to a row or a column.
    assert abs((~known_hw).sum() - len(lost) * height * width / count) <= len(lost) * (height + width)


def test_fuzzed_streams_never_crash() -> None:
    generator = numpy_generator(0, "fuzz")
    model = StaticHistogram.fit([generator.geometric(0.1, (20, 20)).clip(0, 63)], 64)
    data = pack(Header(bytes(8), 20, 20, 1), encode_indices(model, generator.integers(64, size=(20, 20))))
    for _ in range(FUZZ_TRIES):
        damaged = bytearray(data)
        for _ in range(generator.integers(1, 6)):
            position = int(generator.integers(len(damaged)))
            match generator.integers(4):
                case 0:
                    damaged[position] ^= int(generator.integers(1, 256))
                case 1:
                    del damaged[position : position + int(generator.integers(1, 9))]
                case 2:
                    damaged[position:position] = generator.bytes(int(generator.integers(1, 9)))
                case _:
                    damaged[position:] = generator.bytes(len(damaged) - position)
            if not damaged:
                break
        if bytes(damaged) != data:
            with pytest.raises(BitstreamError):
                unpack(bytes(damaged))
        # Behind the checksum too: a payload that no checksum protects decodes to a stream of its own or not at all.
        payload = bytes(damaged[19:-4])
        try:
            indices_hw = decode_indices(model, payload, (20, 20))
        except BitstreamError:
            continue
        assert encode_indices(model, indices_hw) == payload


@pytest.mark.parametrize("name", sorted(name for name in CLASSICAL_CODECS if name != "vvc" or has_vvc()))
def test_fuzzed_classical_files_never_crash(name: str) -> None:
    generator = numpy_generator(0, "fuzz", name)
    codec = CLASSICAL_CODECS[name]()
    data = codec.compress(generator.integers(256, size=(9, 13, 3), dtype=np.uint8))
    for _ in range(FUZZ_TRIES // 20):
        damaged = bytearray(data)
        for position in generator.integers(len(damaged), size=generator.integers(1, 4)):
            damaged[position] = int(generator.integers(256))
        try:
            image = codec.decompress(bytes(damaged))
        except BitstreamError:
            continue
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
