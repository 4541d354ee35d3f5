"""Ids of the entropy models: the number in the header of a stream that says how its payload was coded.

This table is explicit and final: streams hold these numbers for ever, so an id is never changed and never used again.
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
    CHANNEL_HISTOGRAMS = 16
    LABEL_MAP = 32
    CLASS_MAP = 33

    # Messages and lists show the number, which is what a stream holds.
    __repr__ = IntEnum.__str__


MARKED_MODELS: dict[int, str] = {
    EntropyModelId.CONTEXT: "context",
    EntropyModelId.LATENT_CONTEXT: "latent-context",
}
"""Models whose weights the fingerprint of a codec does not cover, with their names: their streams hold a mark."""
