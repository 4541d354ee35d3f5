"""Indices to payloads and back: a grid is cut into slices that can be decoded without each other.

Axis legend: h and w latent positions of the whole grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from gosvae.bitstream import MAX_SLICES, VERSION, SliceLayout, Stream
from gosvae.entropy.base import EntropyModel
from gosvae.entropy.coder import decode_indices, encode_indices
from gosvae.entropy.ids import EntropyModelId
from gosvae.errors import BitstreamError, ConfigError

FREE_INDICES = 2**18
"""So many indices a stream may announce with no payload at all."""
INDICES_PER_BYTE = 1024
"""And so many more for each byte of payload: what a decoder reserves is bounded by what it was sent."""

MOST_EFFORT = 9
VERSION_1_MODELS = (EntropyModelId.FIXED_LENGTH, EntropyModelId.STATIC_HISTOGRAM)
"""Ids of the entropy models that readers of container version 1 know."""

GridPart = tuple[slice, slice]
"""Rows and columns of the grid that one slice holds."""

EntropyChoice = Literal["auto", "fixed", "static", "adaptive", "context"]
ENTROPY_MODELS: dict[str, int] = {
    "fixed": EntropyModelId.FIXED_LENGTH,
    "static": EntropyModelId.STATIC_HISTOGRAM,
    "adaptive": EntropyModelId.ADAPTIVE_COUNTS,
    "context": EntropyModelId.CONTEXT,
}
"""Ids of the entropy models that a writer can choose, by the name of the choice."""


@dataclass(frozen=True)
class StreamOptions:
    """How streams are written. Reading needs none of it.

    Attributes:
        entropy: `auto`, the model that makes the stream the shortest, or one of them; fixed-length codes are always
            there as the fallback that no image exceeds.
        slices: into how many parts that decode without each other the indices are cut, 1..256: one for the fewest
            bytes, more for lossy links; fewer where the grid is too small.
        layout: `bands` of rows, or `interleaved` positions, of which a lost slice thins the grid out.
        version: of the container: 2, or 1 for a receiver of gosvae 0.1 (one slice, fixed or static).
        effort: of variable-rate codecs: 0 rounds, 1 reassigns the integers for fewer bytes by their histogram, which
            costs next to no time, 2 to 9 do so under the context model, effort - 1 times.

    Raises:
        ConfigError: a number of slices, a version or an effort that there is not.
    """

    entropy: EntropyChoice = "auto"
    slices: int = 1
    layout: SliceLayout = "bands"
    version: int = VERSION
    effort: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.slices <= MAX_SLICES:
            raise ConfigError(f"{self.slices} slices: expected 1..{MAX_SLICES}")
        if not 0 <= self.effort <= MOST_EFFORT:
            raise ConfigError(f"effort {self.effort}: expected 0..{MOST_EFFORT}")
        if self.version not in (1, VERSION):
            raise ConfigError(f"container version {self.version}: 1 and {VERSION} can be written")
        if self.version == 1 and (self.slices > 1 or self.entropy in ("adaptive", "context")):
            raise ConfigError(
                f"container version 1 holds one slice of fixed or static codes, not {self.slices} of {self.entropy}: "
                f"take version {VERSION}"
            )

    def writers(self, models: Sequence[EntropyModel]) -> list[EntropyModel]:
        """Of the codec's models those that may be written, the quickest first.

        Raises:
            ConfigError: the codec has no model of the kind that was asked for.
        """
        known = {model.model_id: model for model in models}
        if self.entropy != "auto" and ENTROPY_MODELS[self.entropy] not in known:
            raise ConfigError(
                f"this codec has no {self.entropy} entropy model; it has "
                + ", ".join(name for name, model_id in ENTROPY_MODELS.items() if model_id in known)
            )
        chosen = known.keys() if self.entropy == "auto" else {0, ENTROPY_MODELS[self.entropy]}
        return [known[n] for n in known if n in chosen and (self.version > 1 or n in VERSION_1_MODELS)]


DEFAULT_OPTIONS = StreamOptions()


@dataclass(frozen=True)
class PartialIndices:
    """Indices of which some may be lost.

    Attributes:
        indices_hw: int64 (h, w); 0 where they are not known.
        known_hw: bool (h, w), whether the slice that holds the position was intact.
        damaged: numbers, from 0, of the slices that were not.
    """

    indices_hw: npt.NDArray[np.int64]
    known_hw: npt.NDArray[np.bool_]
    damaged: tuple[int, ...]


def _steps(shape_hw: tuple[int, int], count: int) -> tuple[int, int]:
    """Of `count` interleaved slices, how many lie below and beside each other: the larger factor on the longer side."""
    small = max(n for n in range(1, math.isqrt(count) + 1) if count % n == 0)
    large = count // small
    return (large, small) if shape_hw[0] > shape_hw[1] else (small, large)


def _fits(shape_hw: tuple[int, int], count: int, layout: SliceLayout) -> bool:
    """Whether every one of the slices holds a position."""
    rows, columns = (count, 1) if layout == "bands" else _steps(shape_hw, count)
    return rows <= shape_hw[0] and columns <= shape_hw[1]


def grid_parts(shape_hw: tuple[int, int], count: int, layout: SliceLayout) -> list[GridPart]:
    """Which positions of a grid each of `count` slices holds.

    `bands`: slice i of n holds the rows from `floor(i * h / n)` to `floor((i + 1) * h / n)`. `interleaved`: with
    `a * b = n` steps, slice `i * b + j` holds every a-th row from i and every b-th column from j.

    Raises:
        BitstreamError: a slice would hold no position.
    """
    if not _fits(shape_hw, count, layout):
        raise BitstreamError(f"{count} slices ({layout}) of a grid of {shape_hw[0]}x{shape_hw[1]}: some would be empty")
    if layout == "bands":
        edges = [i * shape_hw[0] // count for i in range(count + 1)]
        return [(slice(low, high), slice(None)) for low, high in pairwise(edges)]
    rows, columns = _steps(shape_hw, count)
    return [(slice(i, None, rows), slice(j, None, columns)) for i in range(rows) for j in range(columns)]


def slice_count(shape_hw: tuple[int, int], wanted: int, layout: SliceLayout) -> int:
    """The most slices, up to `wanted` (at least 1), that the grid can be cut into."""
    return max(n for n in range(1, wanted + 1) if _fits(shape_hw, n, layout))


def least_bytes(n_indices: int) -> int:
    """Bytes of payload that a stream of so many indices has at least, so that readers believe it."""
    return -(-max(0, n_indices - FREE_INDICES) // INDICES_PER_BYTE)


def marked_fingerprint(fingerprint: bytes, model: EntropyModel) -> bytes:
    """What streams of an entropy model hold: the codec's fingerprint xor the model's mark, if it has one."""
    return xor_mark(fingerprint, model.mark)


def xor_mark(fingerprint: bytes, mark: bytes) -> bytes:
    """A fingerprint with a mark in its first bytes."""
    return bytes(a ^ b for a, b in zip(fingerprint, mark.ljust(len(fingerprint), b"\0"), strict=True))


def encode_slices(
    models: Sequence[EntropyModel], indices_hw: npt.NDArray[np.int64], count: int, layout: SliceLayout
) -> tuple[int, list[bytes]]:
    """The payloads of all slices under the model that makes them the shortest, and its id; the first of equals.

    Raises:
        ShapeError: the indices are not an integer array (h, w), or have a side of 0.
        BitstreamError: an index is outside [0, K), or so many indices take so few bytes that no decoder would
            believe it (a large image of a codebook with one entry).
    """
    height, width = indices_hw.shape
    parts = grid_parts((height, width), count, layout)
    coded = [(model.model_id, [encode_indices(model, indices_hw[part]) for part in parts]) for model in models]
    lengths = [sum(map(len, payloads)) for _, payloads in coded]
    believed = [n for n, length in enumerate(lengths) if length >= least_bytes(indices_hw.size)]
    if not believed:
        raise BitstreamError(
            f"{indices_hw.size} indices in {min(lengths)} bytes: a stream holds at most {FREE_INDICES}, and "
            f"{INDICES_PER_BYTE} more for each byte"
        )
    return coded[min(believed, key=lengths.__getitem__)]


def decode_slices(readers: Mapping[int, EntropyModel], stream: Stream, shape_hw: tuple[int, int]) -> PartialIndices:
    """The indices (h, w) of the slices that are intact.

    Raises:
        BitstreamError: an entropy model that is not among the readers, a grid that cannot be cut like this or that
            is too large for so few bytes, or a payload that no encoder makes.
    """
    model = readers.get(stream.header.entropy_model_id)
    if model is None:
        raise BitstreamError(
            f"unknown entropy model {stream.header.entropy_model_id}: this codec knows {sorted(readers)}"
        )
    parts = grid_parts(shape_hw, len(stream.slices), stream.layout)
    n_bytes = sum(map(len, stream.payloads))
    if n_bytes < least_bytes(math.prod(shape_hw)):
        raise BitstreamError(f"damaged: a payload of {n_bytes} bytes is not a stream of {math.prod(shape_hw)} indices")
    indices_hw = np.zeros(shape_hw, np.int64)
    known_hw = np.zeros(shape_hw, np.bool_)
    for part, payload in zip(parts, stream.slices, strict=True):
        if payload is not None:
            view = indices_hw[part]
            height, width = view.shape
            view[:] = decode_indices(model, payload, (height, width))
            known_hw[part] = True
    return PartialIndices(indices_hw, known_hw, stream.damaged)
