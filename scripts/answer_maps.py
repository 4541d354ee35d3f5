#!/usr/bin/env python3
"""Compare codings of the class maps in answers, and print the table of `gosvae.protocol.class_maps`.

scripts/answer_maps.py

The maps are those of ten drawn scenes of 256x512 pixels with 12 classes, and one of noise. Times are the smallest
processor times of several runs on one thread. The script takes about 15 s of processor time.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from gosvae.codecs.class_map import decode_class_map as decode_stream_map
from gosvae.codecs.class_map import encode_class_map as encode_stream_map
from gosvae.datasets.streets import Streets
from gosvae.entropy.ids import EntropyModelId
from gosvae.protocol.class_maps import decode_class_map, encode_class_map

CLASSES, SIZE_HW, REPEATS = 12, (256, 512), 2
ClassMap = npt.NDArray[np.uint8]
Result = TypeVar("Result")


def timed(function: Callable[[], Result]) -> tuple[float, Result]:
    """Return the smallest processor time, in ms, and the result."""
    times = []
    for _ in range(REPEATS):
        began = time.process_time()
        result = function()
        times.append(1000 * (time.process_time() - began))
    return min(times), result


def png(classes: ClassMap) -> bytes:
    """Return a grey PNG."""
    file = io.BytesIO()
    Image.fromarray(classes).save(file, "PNG")
    return file.getvalue()


def read_png(data: bytes) -> ClassMap:
    """Return the pixels of a PNG."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        return np.asarray(image)


def of_streams(classes: ClassMap) -> tuple[EntropyModelId, bytes]:
    """Return the coding of streams."""
    return encode_stream_map(classes, CLASSES, EntropyModelId.LABEL_MAP)


def read_stream(coded: tuple[EntropyModelId, bytes]) -> ClassMap:
    """Return the map of a coding of streams."""
    return decode_stream_map(*coded, SIZE_HW, CLASSES)


def row(name: str, encode: Callable[[ClassMap], object], decode: Callable[[object], ClassMap]) -> str:
    """Return the row of a coding: mean bytes and times of the scenes, and times of noise."""
    scenes = [sample.labels_uint8_HW for sample in Streets(10, seed=3, height=SIZE_HW[0], width=SIZE_HW[1])]
    noise = np.random.default_rng(0).integers(CLASSES, size=SIZE_HW).astype(np.uint8)
    cells = []
    for maps in ([np.minimum(classes, CLASSES - 1) for classes in scenes if classes is not None], [noise]):
        sizes, coding, decoding = [], [], []
        for classes in maps:
            coding_ms, coded = timed(lambda classes=classes: encode(classes))  # type: ignore[misc]
            decoding_ms, found = timed(lambda coded=coded: decode(coded))  # type: ignore[misc]
            assert np.array_equal(found, classes)
            sizes.append(len(coded[1] if isinstance(coded, tuple) else coded))  # type: ignore[arg-type]
            coding.append(coding_ms)
            decoding.append(decoding_ms)
        cells += [f"{np.mean(sizes):,.0f}", f"{np.mean(coding):.2f}", f"{np.mean(decoding):.2f}"]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    print("| coding | bytes | code, ms | decode, ms | noise: bytes | code, ms | decode, ms |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    zlib_decode: Callable[[object], ClassMap] = lambda data: decode_class_map(data, "zlib", *SIZE_HW)  # type: ignore[arg-type]  # noqa: E731
    print(row("zlib", lambda classes: encode_class_map(classes, "zlib"), zlib_decode))
    print(row("grey PNG", png, read_png))  # type: ignore[arg-type]
    print(row("`codecs.class_map`", of_streams, read_stream))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
