"""Comparison of the entropy models of a codec: bits by formula, bytes as written, and times."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np
import numpy.typing as npt
import torch

from gosvae.entropy.base import EntropyModel
from gosvae.entropy.coder import decode_indices, encode_indices
from gosvae.entropy.ids import EntropyModelId
from gosvae.errors import DatasetError
from gosvae.metrics import zero_order_bits


@dataclass(frozen=True)
class EntropyRow:
    """Result of one entropy model on all images.

    Attributes:
        model: name of the entropy model.
        bits_per_index: mean cross-entropy in bits.
        payload_bytes: mean bytes of an image as written, without header and checksum.
        overhead_bytes: mean bytes of the payload above the cross-entropy.
        saved: share of the bytes of static coding that the model saves; negative if it needs more.
        encode_ms, decode_ms: median times for one image; decoding includes the check of the bytes.
    """

    model: str
    bits_per_index: float
    payload_bytes: float
    overhead_bytes: float
    saved: float
    encode_ms: float
    decode_ms: float


@dataclass(frozen=True)
class EntropyReport:
    """Results of all entropy models of a codec on a data set.

    Attributes:
        codec, dataset: names of the codec and of the data set.
        images: number of images.
        indices_per_image: mean number of indices.
        raw_bits: bits of an index in a code of fixed length.
        zero_order_bits: mean bits of an index by the entropy of each image's own frequencies, which no decoder knows.
        threads: number of threads of PyTorch during the timing.
        rows: one row for each model.
    """

    codec: str
    dataset: str
    images: int
    indices_per_image: float
    raw_bits: int
    zero_order_bits: float
    threads: int
    rows: tuple[EntropyRow, ...]


def measure_entropy(
    codec: str, dataset: str, grids: Iterable[npt.NDArray[np.int64]], models: Sequence[EntropyModel]
) -> EntropyReport:
    """Code every grid of indices (h, w) with every model, check that decoding gives it back, and return the report.

    The share that a model saves is relative to the static histogram (model id 1), or to the first model without one.

    Raises:
        DatasetError: there are no grids.
    """
    grids = list(grids)
    if not grids:
        raise DatasetError(f"dataset {dataset!r} has no images to measure")
    n_indices = sum(grid.size for grid in grids)
    estimates = {m.name: [m.estimated_bits(grid) for grid in grids] for m in models}
    measured = {m.name: [_timed(m, grid) for grid in grids] for m in models}
    reference = next((m for m in models if m.model_id == EntropyModelId.STATIC_HISTOGRAM), models[0]).name
    static_bytes = fmean(n_bytes for n_bytes, _, _ in measured[reference])
    rows = []
    for model in models:
        n_bytes, encode_s, decode_s = zip(*measured[model.name], strict=True)
        payload, bits = fmean(n_bytes), sum(estimates[model.name])
        rows.append(
            EntropyRow(
                model=model.name,
                bits_per_index=bits / n_indices,
                payload_bytes=payload,
                overhead_bytes=payload - bits / 8 / len(grids),
                saved=1.0 - payload / static_bytes,
                encode_ms=1e3 * median(encode_s),
                decode_ms=1e3 * median(decode_s),
            )
        )
    return EntropyReport(
        codec=codec,
        dataset=dataset,
        images=len(grids),
        indices_per_image=n_indices / len(grids),
        raw_bits=(models[0].codebook_size - 1).bit_length(),
        zero_order_bits=sum(zero_order_bits(torch.from_numpy(grid)) for grid in grids) / n_indices,
        threads=torch.get_num_threads(),
        rows=tuple(rows),
    )


def _timed(model: EntropyModel, indices_hw: npt.NDArray[np.int64]) -> tuple[int, float, float]:
    """Return the bytes of the payload, and the seconds of encoding and decoding."""
    height, width = indices_hw.shape
    started = time.perf_counter()
    payload = encode_indices(model, indices_hw)
    encoded = time.perf_counter()
    decoded_hw = decode_indices(model, payload, (height, width))
    finished = time.perf_counter()
    if not np.array_equal(decoded_hw, indices_hw):
        raise AssertionError(f"{model.name}: a grid of indices did not come back as it was: a defect of gosvae")
    return len(payload), encoded - started, finished - encoded


def entropy_table(report: EntropyReport) -> str:
    """Return the report as a table for a terminal."""
    header = ["model", "bits/index", "payload B", "over B", "saved", "encode ms", "decode ms"]
    lines = [
        [
            row.model,
            f"{row.bits_per_index:.3f}",
            f"{row.payload_bytes:.1f}",
            f"{row.overhead_bytes:.1f}",
            f"{100 * row.saved:.1f} %",
            f"{row.encode_ms:.2f}",
            f"{row.decode_ms:.2f}",
        ]
        for row in report.rows
    ]
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    table = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in [header, ["-" * width for width in widths], *lines]
    ]
    plural = "image" if report.images == 1 else "images"
    caption = (
        f"{report.codec} on {report.dataset}, {report.images} {plural}, {report.indices_per_image:.0f} indices each; "
        f"raw {report.raw_bits} bits, each image's own zero-order entropy {report.zero_order_bits:.3f} bits an index.\n"
        "bits/index: cross-entropy. payload: as written, without the header. over: payload less cross-entropy.\n"
        f"saved: against static coding. ms: medians, PyTorch threads: {report.threads}."
    )
    return "\n".join([*table, "", caption, ""])
