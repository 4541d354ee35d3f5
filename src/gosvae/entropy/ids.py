"""Ids of the entropy models, the numbers in the headers of streams that say how a payload was coded.

This table is explicit and final: streams contain these numbers, so an id is never changed and never used again.
`docs/bitstream.md` describes the payload of each.
"""

from __future__ import annotations

from enum import IntEnum, unique


@unique
class EntropyModelId(IntEnum):
    """Id of an entropy model, 0..255."""

    FIXED_LENGTH = 0
    STATIC_HISTOGRAM = 1
    ADAPTIVE_COUNTS = 2
    CONTEXT = 3
    LATENT_CONTEXT = 4
    TEMPORAL_CONTEXT = 5
    TEMPORAL_TABLES = 6
    CHANNEL_HISTOGRAMS = 16
    LABEL_MAP = 32
    CLASS_MAP = 33
    CLASS_MAP_PASSES = 34
    AV1_STILL = 64

    # Messages and lists show the number, as a stream contains it.
    __repr__ = IntEnum.__str__


MARKED_MODELS: dict[int, str] = {
    EntropyModelId.CONTEXT: "context",
    EntropyModelId.LATENT_CONTEXT: "latent-context",
}
"""Names of the models whose weights the fingerprint of a codec does not cover; their streams have a mark."""
