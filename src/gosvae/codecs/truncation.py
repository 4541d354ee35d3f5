"""Truncation of streams: a relay makes a stream shorter without a model."""

from __future__ import annotations

from gosvae import bitstream
from gosvae.entropy.ids import EntropyModelId
from gosvae.errors import RateError
from gosvae.units import bytes_from_kib


def truncate(data: bytes, kib: float) -> bytes:
    """Return the longest beginning of a stream, in whole slices, that takes at most `kib` KiB.

    The slices of the detail layer are removed first, beginning with the last one. The rest of a stream of two layers is
    then the stream of its task layer, as the codec of that layer writes it. If it is still too long, its last slices
    are marked as lost, and `LossTolerantCodec.decompress_damaged` shows the picture of the others. A stream that fits
    is returned as it is. Slices that are damaged or missing already stay lost.

    Args:
        data: a stream; its end may be missing.
        kib: largest size of the result in KiB (1024 bytes).

    Raises:
        RateError: the first slice alone takes more.
        BitstreamError: the header is damaged, or no slice is intact.
        ConfigError: the size is not finite.
    """
    budget_bytes, data = bytes_from_kib(kib), bitstream.as_bytes(data)
    stream = bitstream.salvage(data)
    if not stream.damaged and len(data) <= budget_bytes:
        return data
    shortest = len(data)
    for count in range(len(stream.slices), 0, -1):
        kept = stream.slices[:count]
        if all(payload is None for payload in kept):
            break
        if kept[-1] is None and count > _task_count(stream):  # a lost slice of the detail layer
            continue
        made = _beginning(stream, count)
        if len(made) <= budget_bytes:
            return made
        shortest = min(shortest, len(made))
    raise RateError(
        f"this stream of {len(data)} bytes cannot be cut to {budget_bytes}: its first slice alone takes {shortest}; "
        "compress the image again with a smaller budget, or into more slices",
        argument="kib",
    )


def _task_count(stream: bitstream.Stream) -> int:
    """Return the number of slices that are needed together; every slice behind them is a picture of its own."""
    pictures = stream.header.entropy_model_id == EntropyModelId.AV1_STILL
    return 0 if pictures else len(stream.slices) - stream.detail_count


def _beginning(stream: bitstream.Stream, count: int) -> bytes:
    """Return the stream of the first `count` slices."""
    task_count = _task_count(stream)
    kept = list(stream.slices[:count]) + [None] * (task_count - count)
    detail_count = max(0, count - task_count) if task_count else 0
    return bitstream.pack_slices(stream.header, kept, stream.layout, detail_count)
