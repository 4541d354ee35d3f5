"""Slices: the grid of a latent is cut into parts whose payloads can be decoded without each other.

Axis legend: h and w latent positions of the whole grid.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np

from gosvae.bitstream import MAX_SLICES, VERSION, SliceLayout, Stream
from gosvae.codecs.latent import Latent, LatentCoder, SymbolArray
from gosvae.entropy.base import EntropyModel
from gosvae.entropy.coder import encode_images
from gosvae.entropy.ids import EntropyModelId
from gosvae.errors import BitstreamError, ConfigError

FREE_INDICES = 2**18
"""Largest number of indices that a stream may announce with an empty payload."""
INDICES_PER_BYTE = 1024
"""Number of further indices for each byte of payload, so that a decoder reserves memory in proportion to its input."""
MOST_EFFORT = 9
MOST_DETAIL_SLICES = 8

GridPart = tuple[slice, slice]
"""Rows and columns of the grid that one slice holds."""

EntropyChoice = Literal["auto", "fixed", "static", "adaptive", "context"]
Purpose = Literal["auto", "machine", "people", "both"]
"""Whom a picture is for: perception models, people, or both; `auto` decides by the picture."""
ENTROPY_MODELS: dict[str, int] = {
    "fixed": EntropyModelId.FIXED_LENGTH,
    "static": EntropyModelId.STATIC_HISTOGRAM,
    "adaptive": EntropyModelId.ADAPTIVE_COUNTS,
    "context": EntropyModelId.CONTEXT,
}
"""Ids of the entropy models that a writer can choose, by the name of the choice."""


@dataclass(frozen=True)
class StreamOptions:
    """Options for writing streams, for codecs of any kind; reading does not need them.

    A kind that does not have an option refuses every value but the default.

    Attributes:
        entropy: entropy model: `auto` for the one that makes the stream the shortest, or the name of one. Fixed-length
            codes are the fallback that no image exceeds, whatever is chosen.
        slices: number of parts that decode without each other, 1..256: one takes the fewest bytes, more suit lossy
            links. Small grids have fewer.
        layout: positions of a slice: `bands` of rows, or `interleaved`, where a lost slice thins the grid out.
        version: version of the container: 2, or 1 for a receiver of gosvae 0.1 (one slice, fixed or static codes).
        effort: work for fewer bytes in a variable-rate codec: 0 rounds the integers, 1 reassigns them by their
            histogram, which takes hardly any time, and 2 to 9 reassign them by the context model, effort - 1 times.
        purpose: whom the picture is for, in a codec of two layers: `machine`, `people`, `both`, or `auto`.
        detail_slices: number of slices of the detail layer, in a codec of two layers, 1..8; a stream can be cut after
            each.

    Raises:
        ConfigError: a number of slices, the version, the effort or the purpose does not exist.
    """

    entropy: EntropyChoice = "auto"
    slices: int = 1
    layout: SliceLayout = "bands"
    version: int = VERSION
    effort: int = 2
    purpose: Purpose = "auto"
    detail_slices: int = 1

    def __post_init__(self) -> None:
        check_container(self.slices, self.version, self.entropy)
        check_effort(self.effort)
        check_purpose(self.purpose)
        check_detail_slices(self.detail_slices)


def check_container(slices: int, version: int, entropy: str) -> None:
    """Raise `ConfigError` if the container has no such streams."""
    if not 1 <= slices <= MAX_SLICES:
        raise ConfigError(f"{slices} slices: expected 1..{MAX_SLICES}")
    if version not in (1, VERSION):
        raise ConfigError(f"container version {version}: 1 and {VERSION} can be written")
    if version == 1 and (slices > 1 or entropy in ("adaptive", "context")):
        raise ConfigError(
            f"container version 1 holds one slice of fixed or static codes, not {slices} of {entropy}: "
            f"take version {VERSION}"
        )


def check_effort(effort: int) -> None:
    """Raise `ConfigError` unless the effort is one of 0..9."""
    if not 0 <= effort <= MOST_EFFORT:
        raise ConfigError(f"effort {effort}: expected 0..{MOST_EFFORT}")


def check_purpose(purpose: str) -> None:
    """Raise `ConfigError` unless the purpose is one of `Purpose`."""
    if purpose not in get_args(Purpose):
        raise ConfigError(f"purpose {purpose!r}: expected one of {', '.join(get_args(Purpose))}", argument="purpose")


def check_detail_slices(count: int) -> None:
    """Raise `ConfigError` unless a detail layer may have so many slices."""
    if not 1 <= count <= MOST_DETAIL_SLICES:
        raise ConfigError(
            f"{count} slices of the detail layer: expected 1..{MOST_DETAIL_SLICES}", argument="detail_slices"
        )


DEFAULT_OPTIONS = StreamOptions()


@dataclass(frozen=True)
class Slicing:
    """Options with which the template cuts a latent and packs its slices; see `StreamOptions`."""

    slices: int = 1
    layout: SliceLayout = "bands"
    version: int = VERSION


def _steps(shape_hw: tuple[int, int], count: int) -> tuple[int, int]:
    """Return the numbers of interleaved slices along height and width; the longer side has the larger number."""
    small = max(n for n in range(1, math.isqrt(count) + 1) if count % n == 0)
    large = count // small
    return (large, small) if shape_hw[0] > shape_hw[1] else (small, large)


def _fits(shape_hw: tuple[int, int], count: int, layout: SliceLayout) -> bool:
    """Return whether every slice holds a position."""
    rows, columns = (count, 1) if layout == "bands" else _steps(shape_hw, count)
    return rows <= shape_hw[0] and columns <= shape_hw[1]


def grid_parts(shape_hw: tuple[int, int], count: int, layout: SliceLayout) -> list[GridPart]:
    """Return the positions of a grid that each of `count` slices holds.

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


def part_shape(grid_hw: tuple[int, int], part: GridPart) -> tuple[int, int]:
    """Return the numbers of rows and columns of a part of a grid."""
    return len(range(grid_hw[0])[part[0]]), len(range(grid_hw[1])[part[1]])


def slice_count(shape_hw: tuple[int, int], wanted: int, layout: SliceLayout) -> int:
    """Return the largest number of slices, up to `wanted` (at least 1), that the grid can be cut into."""
    return max(n for n in range(1, wanted + 1) if _fits(shape_hw, n, layout))


def least_bytes(n_indices: int) -> int:
    """Return the least number of bytes of payload with which readers accept a stream of `n_indices` indices."""
    return -(-max(0, n_indices - FREE_INDICES) // INDICES_PER_BYTE)


def xor_mark(fingerprint: bytes, mark: bytes) -> bytes:
    """Return a fingerprint with a mark in its first bytes."""
    return bytes(a ^ b for a, b in zip(fingerprint, mark.ljust(len(fingerprint), b"\0"), strict=True))


def shortest_payloads(
    models: Sequence[EntropyModel], parts_hw: Sequence[SymbolArray], least: int = 0
) -> tuple[int, list[bytes]]:
    """Return the id of the entropy model that takes the fewest bytes, the first of equals, and its payloads.

    Args:
        models: entropy models to choose from.
        parts_hw: indices (h, w) of each slice.
        least: number of bytes that a reader expects at least: models that take fewer are left out.

    Raises:
        ShapeError: the indices are not an integer array (h, w), or have a side of 0.
        BitstreamError: an index is outside [0, K), or every model takes fewer bytes than a reader expects (a large
            image of a codebook with one entry).
    """
    coded = [(model.model_id, encode_images(model, parts_hw)) for model in models]
    lengths = [sum(map(len, payloads)) for _, payloads in coded]
    believed = [n for n, length in enumerate(lengths) if length >= least]
    if not believed:
        raise BitstreamError(
            f"{sum(part.size for part in parts_hw)} indices in {min(lengths)} bytes: a stream holds at most "
            f"{FREE_INDICES}, and {INDICES_PER_BYTE} more for each byte"
        )
    return coded[min(believed, key=lengths.__getitem__)]


def encode_slices(
    coder: LatentCoder, symbols: SymbolArray, setting: int, count: int, layout: SliceLayout
) -> tuple[int, list[bytes]]:
    """Return the id of the entropy model and the payloads of `count` slices; errors as `LatentCoder.encode`."""
    grid_hw = (symbols.shape[-2], symbols.shape[-1])
    return coder.encode([symbols[..., *part] for part in grid_parts(grid_hw, count, layout)], setting)


def decode_slices(coder: LatentCoder, stream: Stream, grid_hw: tuple[int, int]) -> Latent:
    """Return the latent of the slices that are intact.

    Raises:
        BitstreamError: the coder does not read the entropy model, the grid cannot be cut in this way or is too large
            for so few bytes, slices have different settings, or no encoder makes a payload.
    """
    header = stream.header
    if header.entropy_model_id not in coder.marks:
        raise BitstreamError(f"unknown entropy model {header.entropy_model_id}: this codec knows {sorted(coder.marks)}")
    if len(stream.slices) > 1 and not coder.sliceable:
        raise BitstreamError(f"a stream of {len(stream.slices)} slices where one is expected")
    parts = grid_parts(grid_hw, len(stream.slices), stream.layout)
    payload = b"".join(stream.payloads)
    if len(payload) < coder.least_bytes(grid_hw):
        raise BitstreamError(
            f"damaged: a payload of {len(payload)} bytes is not a stream of {grid_hw[0]}x{grid_hw[1]} latent positions"
        )
    intact = [(part, data) for part, data in zip(parts, stream.slices, strict=True) if data is not None]
    if not intact:
        raise BitstreamError(f"none of the {len(parts)} slices is intact")
    shapes = [part_shape(grid_hw, part) for part, _ in intact]
    decoded, setting = coder.decode(header.entropy_model_id, [data for _, data in intact], shapes)
    seed = hashlib.sha256(payload).hexdigest()
    if len(parts) == 1:
        return Latent(decoded[0], header.height, header.width, setting, seed=seed)
    # Allocated only now, after a false size would have been refused.
    symbols, known_hw = np.full((*decoded[0].shape[:-2], *grid_hw), -1), np.zeros(grid_hw, np.bool_)
    for (part, _), found in zip(intact, decoded, strict=True):
        symbols[..., *part] = found
        known_hw[part] = True
    mask = known_hw if stream.damaged else None
    return Latent(symbols, header.height, header.width, setting, mask, stream.damaged, seed)
