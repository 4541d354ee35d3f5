"""Entropy coder: symbols become bytes and bytes become symbols, by the range coder of constriction.

The bytes are the 32-bit words of the coder, most significant byte first, without trailing bytes that are not needed:
the last word keeps one to four bytes, and a decoder reads zeros after the end. The coder writes the number in its final
interval that has the fewest bytes, so symbols and bytes determine each other. `docs/bitstream.md` has a complete
decoder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

from gosvae.entropy.base import (
    TABLE_BITS,
    EntropyModel,
    FrequencyTables,
    IndexArray,
    SymbolTables,
    TableModel,
    check_indices,
    check_shape,
)
from gosvae.entropy.fixed import FixedLength
from gosvae.errors import BitstreamError, ShapeError

_STEPS = 4
"""Number of steps in which an image is coded that may turn out to be too long."""
_FAMILY = constriction.stream.model.Categorical(perfect=False)
"""Model of constriction that takes a row of weights for each symbol, see `SymbolTables.coder_weights_NK`."""


def _order(n_symbols: int, tables: FrequencyTables) -> list[tuple[int, slice | IndexArray]]:
    """Return pairs of a table and the symbols that it codes, in the order of coding: table 0, table 1, and so on.

    Symbols are coded table by table because it takes few calls and no copies.
    """
    if tables.table_of_N is None:
        return [(0, slice(None))]
    if len(tables.table_of_N) != n_symbols:
        raise ShapeError(f"expected {n_symbols} table numbers, one for each symbol", tables.table_of_N.shape)
    by_table = np.argsort(tables.table_of_N, kind="stable")
    numbers, starts = np.unique(tables.table_of_N[by_table], return_index=True)
    return list(zip(numbers.tolist(), np.split(by_table, starts[1:]), strict=True))


def _last_word(lower: int, span: int) -> bytes:
    """Return the fewest bytes (1 to 4) that, followed by zeros, are a 64-bit number in [lower, lower + span)."""
    carry = (lower + 2**32 - 1) >> 64  # constriction has already added it to the words before
    for n_bytes in (1, 2, 3):
        step = 1 << (64 - 8 * n_bytes)
        number = -(-lower // step) * step
        if number < lower + span and number >> 64 == carry:
            break
    else:
        n_bytes, number = 4, -(-lower >> 32) << 32  # span is at least 2**32, so this one always fits
    return (number % 2**64).to_bytes(8, "big")[:n_bytes]


def finished_bytes(encoder: Any) -> bytes:
    """Return the output of constriction's `RangeEncoder` in the fewest bytes that decode to the same symbols."""
    n_words, (lower, span) = encoder.pos()
    words: bytes = encoder.get_compressed()[:n_words].astype(">u4").tobytes()
    return words + _last_word(lower, span)


class BatchWriter:
    """Writer of symbols, batch by batch; a decoder uses one too, to check that it gets the same bytes."""

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()
        self._empty = True

    def write(self, symbols_N: IndexArray, tables: FrequencyTables | SymbolTables) -> None:
        if tables.codebook_size == 1 or len(symbols_N) == 0:
            return
        self._empty = False
        symbols = np.ascontiguousarray(symbols_N, np.int32)
        if isinstance(tables, SymbolTables):
            self._encoder.encode(symbols, _FAMILY, tables.coder_weights_NK)
            return
        for table, where in _order(len(symbols), tables):
            self._encoder.encode(np.ascontiguousarray(symbols[where]), tables.coder_models[table])

    @property
    def least_bytes(self) -> int:
        """Number of bytes that the stream exceeds, whatever is written next."""
        return 4 * int(self._encoder.pos()[0])

    def finish(self) -> bytes:
        if self._empty:
            return b""
        return finished_bytes(self._encoder)


class BatchReader:
    """Reader of the symbols of a payload, batch by batch."""

    def __init__(self, data: bytes) -> None:
        padded = data + bytes(-len(data) % 4)
        self._decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32))

    def read(self, n_symbols: int, tables: FrequencyTables | SymbolTables) -> IndexArray:
        """Return the next symbols.

        Raises:
            AssertionError: constriction finds bytes that no encoder makes.
        """
        if tables.codebook_size == 1 or n_symbols == 0:
            return np.zeros(n_symbols, np.int64)
        if isinstance(tables, SymbolTables):
            decoded: IndexArray = self._decoder.decode(_FAMILY, tables.coder_weights_NK).astype(np.int64)
            return decoded
        symbols_N = np.zeros(n_symbols, np.int64)
        for table, where in _order(n_symbols, tables):
            count = n_symbols if isinstance(where, slice) else len(where)
            symbols_N[where] = self._decoder.decode(tables.coder_models[table], count)
        return symbols_N


def encode(symbols_N: IndexArray, tables: FrequencyTables) -> bytes:
    """Return the bytes of one or more integers in [0, K); a codebook of one index takes no bytes."""
    writer = BatchWriter()
    writer.write(symbols_N, tables)
    return writer.finish()


def _least_bits(order: list[tuple[int, Any]], n_symbols: int, tables: FrequencyTables) -> float:
    """Return the bits that the symbols take if each is the most probable one."""
    bits_T = TABLE_BITS - np.log2(tables.weights_TK.max(axis=1))
    return float(sum(bits_T[t] * (n_symbols if isinstance(where, slice) else len(where)) for t, where in order))


def decode(data: bytes, n_symbols: int, tables: FrequencyTables) -> IndexArray:
    """Return the symbols, int64 (N,) in [0, K), from which `encode` made these bytes.

    Raises:
        BitstreamError: `encode` never makes these bytes from `n_symbols` symbols.
    """
    if tables.codebook_size == 1:
        if data:
            raise _not_a_stream(data, n_symbols)
        return np.zeros(n_symbols, np.int64)
    # Refuse a payload that is too short for the symbols before memory is taken for them.
    if not data or _least_bits(_order(n_symbols, tables), n_symbols, tables) > _most_bits(data):
        raise _not_a_stream(data, n_symbols)
    try:
        symbols_N = BatchReader(data).read(n_symbols, tables)
    except AssertionError:  # constriction: bytes that no encoder makes
        raise _not_a_stream(data, n_symbols) from None
    # Missing, extra or changed bytes that still decode: only the bytes that `encode` makes are a stream.
    if encode(symbols_N, tables) != data:
        raise _not_a_stream(data, n_symbols)
    return symbols_N


def _most_bits(data: bytes) -> int:
    """Return the largest number of bits that the symbols of a payload can have taken."""
    return 8 * (len(data) + -len(data) % 4) + 1


def _not_a_stream(data: bytes, n_symbols: int) -> BitstreamError:
    return BitstreamError(
        f"payload of {len(data)} bytes is not a stream of {n_symbols} indices: damaged, or another entropy model's"
    )


def encode_indices(model: EntropyModel, indices_hw: npt.NDArray[Any]) -> bytes:
    """Return the payload of one image, given its indices (h, w).

    Raises:
        ShapeError: the indices are not an integer array (h, w), or have a side of 0.
        BitstreamError: an index is outside [0, K).
    """
    return encode_images(model, [indices_hw])[0]


def encode_images(model: EntropyModel, images: Sequence[npt.NDArray[Any]]) -> list[bytes]:
    """Return the payloads of images, given the indices (h, w) of each; errors as `encode_indices`.

    The payloads are those of `encode_indices`, and take less time: the model evaluates the images together.
    """
    symbols = [check_indices(indices_hw, model.codebook_size) for indices_hw in images]
    if isinstance(model, FixedLength):
        return [model.pack(symbols_N) for symbols_N in symbols]
    writers = [BatchWriter() for _ in images]
    known = model.known_batches_of(images)
    if known is not None:
        for batch in known:
            writers[batch.image].write(batch.symbols(symbols[batch.image]), batch.tables)
        return [writer.finish() for writer in writers]
    coding = model.batches_of([(image.shape[0], image.shape[1]) for image in images])
    try:
        batch = next(coding)
        while True:
            coded = batch.symbols(symbols[batch.image])
            writers[batch.image].write(coded, batch.tables)
            batch = coding.send(coded)
    except StopIteration:
        return [writer.finish() for writer in writers]


def encode_within(model: EntropyModel, indices_hw: npt.NDArray[Any], most_bytes: int) -> bytes | None:
    """Return the payload of one image; None as soon as it is certain to take more than `most_bytes`.

    Args:
        model: entropy model that has `known_batches`.
        indices_hw: indices (h, w).
        most_bytes: largest number of bytes of the payload.
    """
    symbols_N = check_indices(indices_hw, model.codebook_size)
    batches, writer = model.known_batches(indices_hw, parts=_STEPS), BatchWriter()
    assert batches is not None
    for batch in batches:
        writer.write(batch.symbols(symbols_N), batch.tables)
        if writer.least_bytes > most_bytes:
            return None
    payload = writer.finish()
    return payload if len(payload) <= most_bytes else None


def decode_indices(model: EntropyModel, data: bytes, shape_hw: tuple[int, int]) -> IndexArray:
    """Return the indices (h, w), int64 in [0, K), of a payload.

    Raises:
        ShapeError: a side of the shape is not positive.
        BitstreamError: the payload is not a stream of that shape.
    """
    return decode_images(model, [data], [shape_hw])[0]


def decode_images(
    model: EntropyModel, payloads: Sequence[bytes], shapes: Sequence[tuple[int, int]]
) -> list[IndexArray]:
    """Return the indices of several images, one for each payload and shape (h, w), as `decode_indices` does for one.

    The model evaluates the images together, which takes less time. If one of the payloads is not a stream of its shape,
    all are refused; errors as `decode_indices`.
    """
    sizes = [check_shape(shape_hw) for shape_hw in shapes]
    images = list(zip(payloads, sizes, shapes, strict=True))
    if isinstance(model, FixedLength):
        return [model.unpack(data, n_symbols).reshape(shape_hw) for data, n_symbols, shape_hw in images]
    if isinstance(model, TableModel):
        return [decode(data, size, model.tables(shape_hw)).reshape(shape_hw) for data, size, shape_hw in images]
    for data, n_symbols, _ in images:
        if model.least_bits(n_symbols) > _most_bits(data):
            raise _not_a_stream(data, n_symbols)
    found = _decode_batches(model, payloads, shapes)
    return [indices_N.reshape(shape_hw) for indices_N, shape_hw in zip(found, shapes, strict=True)]


def _decode_batches(
    model: EntropyModel, payloads: Sequence[bytes], shapes: Sequence[tuple[int, int]]
) -> list[IndexArray]:
    """Return the indices of payloads, encoded again to check that an encoder makes the same bytes."""
    sizes = [math.prod(shape_hw) for shape_hw in shapes]
    readers, writers = [BatchReader(data) for data in payloads], [BatchWriter() for _ in payloads]
    coding = model.batches_of(shapes)
    try:
        batch = next(coding)
        while True:
            data, n_indices = payloads[batch.image], sizes[batch.image]
            writer = writers[batch.image]
            symbols = readers[batch.image].read(batch.length(n_indices), batch.tables)
            writer.write(symbols, batch.tables)
            if writer.least_bytes > len(data):  # everything further would be decoded from the zeros after the end
                raise _not_a_stream(data, n_indices)
            batch = coding.send(symbols)
    except StopIteration as finished:
        found: list[IndexArray] = finished.value
    except AssertionError:  # constriction: bytes that no encoder makes
        raise _not_a_stream(data, n_indices) from None
    for writer, data, n_indices in zip(writers, payloads, sizes, strict=True):
        if writer.finish() != data:
            raise _not_a_stream(data, n_indices)
    return found
