"""Coding of the arrays in answers, which are results of experts: a zlib stream (RFC 1950) of the values, row by row.

Values are little-endian. Floats have 16 bits, which keeps three decimal digits, if all values of the array are in the
range of 16-bit floats, and otherwise 32 bits.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from gosvae.errors import LinkError

ArrayType = Literal["uint8", "uint16", "float16", "float32"]
Values = npt.NDArray[np.generic]
MAX_VALUES = 2**24
"""Largest number of values of an array; it bounds the memory that a false shape can take."""
MAX_AXES = 8
"""Largest number of axes of an array."""
MAX_RESULT_BYTES = 2**22
"""Largest number of bytes of the coded arrays of one expert; a client reads messages of up to 2**24 bytes."""
_LEVEL = 3
_TYPES: dict[str, np.dtype[np.generic]] = {
    "uint8": np.dtype("u1"),
    "uint16": np.dtype("<u2"),
    "float16": np.dtype("<f2"),
    "float32": np.dtype("<f4"),
}


@dataclass(frozen=True)
class CodedArray:
    """An array in a message.

    Attributes:
        name: name of the array, such as `corners`.
        shape: number of values along each axis.
        kind: type of the values.
        data: the coded values.
    """

    name: str
    shape: tuple[int, ...]
    kind: ArrayType
    data: bytes

    def values(self) -> Values:
        """Return the values; floats are returned with 32 bits. The shape bounds memory and time.

        Raises:
            LinkError: the bytes are not an array of this shape, or the shape is too large.
        """
        if len(self.shape) > MAX_AXES or math.prod(self.shape) > MAX_VALUES:
            raise LinkError(f"an array of the shape {self.shape}: expected at most {MAX_VALUES} values")
        kind = _TYPES[self.kind]
        n_bytes = math.prod(self.shape) * kind.itemsize
        decoder = zlib.decompressobj()
        try:
            data = decoder.decompress(self.data, n_bytes + 1)
        except zlib.error as error:
            raise LinkError(f"the array {self.name!r} is a damaged zlib stream: {error}") from None
        if len(data) != n_bytes or not decoder.eof or decoder.unused_data:
            raise LinkError(f"{len(self.data)} bytes are not an array of the shape {self.shape}")
        values = np.frombuffer(bytearray(data), kind).reshape(self.shape)
        return values.astype(np.float32) if values.dtype.kind == "f" else values


def code_arrays(expert: str, arrays: Mapping[str, Values]) -> tuple[CodedArray, ...]:
    """Return the coded arrays of an expert's result.

    Args:
        expert: name of the expert, for errors.
        arrays: the arrays by name.

    Raises:
        LinkError: messages cannot hold the type or the shape of an array, or the result is too large.
    """
    coded = tuple(_coded(name, values) for name, values in arrays.items())
    n_bytes = sum(len(each.data) for each in coded)
    if n_bytes > MAX_RESULT_BYTES:
        raise LinkError(
            f"the result of {expert!r} has {n_bytes} bytes: messages hold {MAX_RESULT_BYTES}; let it have fewer outputs"
        )
    return coded


def _coded(name: str, values: Values) -> CodedArray:
    if values.dtype.kind == "f":
        largest = float(np.abs(values).max()) if values.size else 0.0
        kind: ArrayType = "float16" if largest <= float(np.finfo(np.float16).max) else "float32"
    elif values.dtype in (np.uint8, np.uint16):
        kind = "uint8" if values.dtype == np.uint8 else "uint16"
    else:
        raise LinkError(f"the array {name!r} is of {values.dtype}: messages hold uint8, uint16 and floats")
    if values.size > MAX_VALUES or values.ndim > MAX_AXES:
        raise LinkError(f"the array {name!r} has the shape {values.shape}: messages hold {MAX_VALUES} values")
    data = zlib.compress(np.ascontiguousarray(values, _TYPES[kind]).tobytes(), _LEVEL)
    return CodedArray(name, tuple(values.shape), kind, data)
