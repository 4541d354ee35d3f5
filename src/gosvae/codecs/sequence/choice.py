"""Choice of the shortest way to code a frame, which never takes more bytes than the same symbols without a reference.

Axis legend: D latent channels, h and w latent positions.
"""

from __future__ import annotations

from collections.abc import Callable

from gosvae.codecs.latent import SymbolArray
from gosvae.codecs.sequence.coder import CodedFrame, FrameCoder
from gosvae.codecs.sequence.format import Mode
from gosvae.entropy.temporal import Memory

_CLEARLY = 0.75
"""Share of the size of an intra frame below which a frame is taken at once, without quantising it again for an intra
frame."""


def shortest(
    frames: FrameCoder,
    symbols: SymbolArray,
    level: int,
    number: int,
    reference: Memory,
    distance: int,
    alone: Callable[[], SymbolArray] | None = None,
) -> CodedFrame:
    """Return the shortest of the frames that the modes make; it is never longer than `frames.encode_intra(symbols)`.

    The attempt without a reference stops as soon as it is certain to take far more bytes, which is usually before half
    of the symbols are coded.

    Args:
        frames: coder of the frames of the session.
        symbols: symbols (D, h, w) that the temporal model finds cheap.
        level: level of the frame.
        number: number of the frame modulo 128.
        reference: memory of the reference.
        distance: number of frames from the reference to this frame.
        alone: function that returns symbols that are made for a frame without a reference. It is called unless such a
            frame is far longer. None tries `symbols` only.
    """
    best = frames.encode(symbols, level, number, reference, distance, tables=False)
    if best.header.mode is Mode.UNCHANGED:
        return best
    if frames.least_table_bytes(symbols, level, reference) < len(best.data):
        tables = frames.encode(symbols, level, number, reference, distance, tables=True)
        best = min(best, tables, key=_length)
    intra = frames.encode_intra_within(symbols, level, number, int(len(best.data) / _CLEARLY))
    if intra is None:
        return best
    best = min(best, intra, key=_length)
    if alone is None:
        return best
    return min(best, frames.encode_intra(alone(), level, number), key=_length)


def _length(coded: CodedFrame) -> int:
    return len(coded.data)
