#!/usr/bin/env python3
"""Measure the processor time of streams of every kind until they are refused or their symbols are known.

scripts/stream_time.py --json stream-times.json

The networks behind the symbols and the pictures of AV1 are not counted. Each stream is decoded `--repeats` times on one
thread, and the smallest processor time (not wall time) counts, so that other work on the machine changes little. The
streams are the slowest that the script can make: class maps just below the limit of their effort and beyond it, noise,
flat pictures, and payloads of arbitrary bytes whose checksums agree. The script takes about 3 minutes of processor time
and exits with 1 if a stream takes more than 20 ms and 2 us for each pixel that it announces.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from gosvae.bitstream import Header, Stream, pack, pack_slices, unpack_slices
from gosvae.codecs.class_map import decode_class_map, padded
from gosvae.codecs.class_map_passes import encode_passes
from gosvae.codecs.class_map_scan import encode_scan
from gosvae.codecs.registry import embedded_codecs, load_codec, load_sequence_codec
from gosvae.codecs.sequence.decoder import SequenceDecoder
from gosvae.codecs.variable import VariableRateCodec, VariableRateOptions
from gosvae.codecs.vq import VqCodec, VqOptions
from gosvae.datasets.streets import Streets
from gosvae.entropy.ids import EntropyModelId
from gosvae.errors import BitstreamError, ConfigError
from gosvae.provenance import hardware
from gosvae.tensors import ImageArray

FREE_SECONDS, SECONDS_PER_PIXEL = 0.020, 2e-6
"""Processor time that a stream may take, and for each pixel that it announces."""
CLASSES = 12
"""Number of classes of most maps, as many as CamVid has."""

Decode = Callable[[bytes], object]
ClassMap = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Row:
    """Times of the slowest stream of a kind.

    Attributes:
        kind: what codes the streams.
        stream: what the slowest one holds.
        pixels: number of pixels that it announces.
        cpu_ms: its processor time.
        share: share of the time that it may take.
        tried: number of streams of the kind.
    """

    kind: str
    stream: str
    pixels: int
    cpu_ms: float
    share: float
    tried: int


def processor_time(decode: Decode, data: bytes, repeats: int) -> float:
    """Return the smallest processor time, in seconds, of several decodings."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        with suppress(BitstreamError):
            decode(data)
        times.append(time.process_time() - began)
    return min(times)


def images(height: int, width: int) -> dict[str, ImageArray]:
    """Return pictures by name: a scene, noise, and one of a single grey."""
    noise = np.random.default_rng(0).integers(256, size=(height, width, 3), dtype=np.uint8)
    scene = Streets(1, seed=7, height=height, width=width)[0].image_uint8_HW3
    return {"scene": scene, "noise": noise, "grey": np.full((height, width, 3), 128, np.uint8)}


def with_other_payload(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield streams with the same header and other payloads, whose checksums agree."""
    stream: Stream = unpack_slices(data)
    random = np.random.default_rng(1)
    largest = max(range(len(stream.payloads)), key=lambda number: len(stream.payloads[number]))
    payload = stream.payloads[largest]
    others = {
        "arbitrary bytes": random.bytes(len(payload)),
        "another byte in the middle": payload[: len(payload) // 2] + b"\x5a" + payload[len(payload) // 2 + 1 :],
        "a last byte that is different": payload[:-1] + bytes([payload[-1] ^ 1]) if payload else b"",
        "zeros": bytes(len(payload)),
    }
    for name, other in others.items():
        payloads = [other if number == largest else each for number, each in enumerate(stream.payloads)]
        if stream.version == 2:
            yield name, pack_slices(stream.header, payloads, stream.layout)
        else:
            yield name, pack(stream.header, payloads[0], version=1)


def trained_streams(size_hw: tuple[int, int]) -> Iterator[tuple[str, str, bytes, Decode]]:
    """Yield kind, description, bytes and decoder of streams of released codecs, with every entropy model."""
    for name in embedded_codecs():
        codec = load_codec(name)
        for shown, image in images(*size_hw).items():
            if isinstance(codec, VqCodec):
                for entropy in ("fixed", "static", "adaptive", "context"):
                    with suppress(ConfigError):  # models without a network have no context model
                        maker = VqCodec(codec.checkpoint, options=VqOptions(entropy=entropy))
                        yield f"{name}, {entropy}", shown, maker.compress(image), codec.decode
            elif isinstance(codec, VariableRateCodec):
                for slices, level in ((1, 0), (1, 128), (1, 255), (16, 255)):
                    made = VariableRateCodec(codec.checkpoint, options=VariableRateOptions(slices=slices))
                    what = f"{shown}, level {level}, {slices} slices"
                    yield name, what, made.compress_at(image, level), codec.decode


def sequence_streams(size_hw: tuple[int, int]) -> Iterator[tuple[str, str, bytes, Decode]]:
    """Yield frames of a video that depend on an earlier frame: of the same picture that has moved, and of another."""
    codec = load_sequence_codec("gosvae-variable-camvid:255")
    pictures = images(*size_hw)
    for shown, second in (("moved", np.roll(pictures["scene"], 7, axis=1)), ("noise", pictures["noise"])):
        encoder = codec.encoder(*size_hw)
        decoder = codec.decoder()
        decoder.decode_latent(encoder.encode(pictures["scene"]))
        encoder.encode(second)
        wrapped = codec.wrapped(encoder.parts, *size_hw)

        def decode(data: bytes, known: SequenceDecoder = decoder) -> object:
            return known.decode_parts(codec.unwrapped(unpack_slices(data)))

        yield "video", f"frame {shown}", wrapped, decode


def drawn_maps(size_hw: tuple[int, int], amount: float) -> dict[str, ClassMap]:
    """Return maps by name that take more effort the larger `amount` is, 0 to 1."""
    random, (height, width) = np.random.default_rng(2), size_hw
    base = Streets(1, seed=5, height=height, width=width)[0].labels_uint8_HW
    assert base is not None
    base = np.minimum(base, CLASSES - 1)
    some = random.random(size_hw) < amount
    rows = (np.arange(height) < amount * height)[:, None]
    noise = random.integers(CLASSES, size=size_hw)
    lines = np.arange(width) // 2 % CLASSES
    return {
        "a scene with noise": np.where(some, noise, base).astype(np.uint8),
        "two classes with noise": np.where(some, random.integers(2, size=size_hw), 0).astype(np.uint8),
        "rows of noise": np.where(rows, noise, 0).astype(np.uint8),
        "rows of two classes": np.where(rows, random.integers(2, size=size_hw), 0).astype(np.uint8),
        "rows of lines": np.where(rows, np.roll(lines, 1)[None], 0).astype(np.uint8),
        "shifted lines": np.where(rows, (np.arange(height)[:, None] + lines[None]) % CLASSES, 0).astype(np.uint8),
    }


def maps_at_the_limit(size_hw: tuple[int, int]) -> Iterator[tuple[str, ClassMap]]:
    """Yield maps that take as much effort as a scan may, found by bisection."""
    for name in drawn_maps(size_hw, 0.0):
        low, high = 0.0, 1.0
        for _ in range(9):
            middle = (low + high) / 2
            fits = encode_scan(drawn_maps(size_hw, middle)[name], CLASSES) is not None
            low, high = (middle, high) if fits else (low, middle)
        yield name, drawn_maps(size_hw, low)[name]


def map_streams(size_hw: tuple[int, int]) -> Iterator[tuple[str, str, bytes, Decode]]:
    """Yield class maps in both codings."""
    for model_id, kind in ((EntropyModelId.LABEL_MAP, "scan"), (EntropyModelId.CLASS_MAP_PASSES, "passes")):

        def decode(data: bytes, model_id: int = model_id) -> object:
            return decode_class_map(model_id, unpack_slices(data).payloads[0], size_hw, CLASSES)

        encode = encode_scan if model_id == EntropyModelId.LABEL_MAP else encode_passes
        for name, drawn in maps_at_the_limit(size_hw):
            payload = encode(drawn, CLASSES)
            assert payload is not None
            yield f"class map, {kind}", name, pack(_header(size_hw, model_id), padded(payload, drawn.size)), decode
        noise = encode_passes(drawn_maps(size_hw, 1.0)["rows of noise"], CLASSES)
        for name, payload in (("noise", noise), ("arbitrary bytes", np.random.default_rng(3).bytes(len(noise)))):
            yield f"class map, {kind}", name, pack(_header(size_hw, model_id), payload), decode


def _header(size_hw: tuple[int, int], model_id: int) -> Header:
    return Header(b"time", *size_hw, model_id)


def measured(streams: Iterator[tuple[str, str, bytes, Decode]], size_hw: tuple[int, int], repeats: int) -> list[Row]:
    """Return the slowest stream of each kind, as each stream is and with other payloads."""
    slowest: dict[str, Row] = {}
    pixels = size_hw[0] * size_hw[1]
    for kind, what, data, decode in streams:
        with suppress(BitstreamError):
            decode(data)  # whatever is set up at the first use is no stream's time
        for name, each in ((what, data), *((f"{what}: {name}", other) for name, other in with_other_payload(data))):
            seconds = processor_time(decode, each, repeats)
            share = seconds / (FREE_SECONDS + SECONDS_PER_PIXEL * pixels)
            tried = slowest[kind].tried + 1 if kind in slowest else 1
            if kind in slowest and slowest[kind].share >= share:
                name, seconds, share = slowest[kind].stream, slowest[kind].cpu_ms / 1000, slowest[kind].share
            slowest[kind] = Row(kind, name, pixels, round(1000 * seconds, 2), round(share, 3), tried)
    return list(slowest.values())


def main() -> int:
    """Measure, print a table, and write it as JSON if a file is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="number of times that each stream is decoded")
    parser.add_argument("--only", choices=("maps", "codecs", "video"), help="measure these only")
    parser.add_argument("--sizes", nargs="+", default=["64x96", "256x512"], metavar="HxW", help="sizes of the pictures")
    parser.add_argument("--json", type=Path, help="file for the result")
    options = parser.parse_args()
    torch.set_num_threads(1)
    makers = {"maps": map_streams, "codecs": trained_streams, "video": sequence_streams}
    rows: list[Row] = []
    print("| kind | slowest stream | pixels | CPU time, ms | share of 20 ms + 2 us a pixel | streams |")
    print("|---|---|--:|--:|--:|--:|", flush=True)
    for size in options.sizes:
        size_hw = (int(size.partition("x")[0]), int(size.partition("x")[2]))
        for name, make in makers.items():
            if options.only not in (None, name):
                continue
            for row in measured(make(size_hw), size_hw, options.repeats):
                rows.append(row)
                cells = f"| {row.kind} | {row.stream} | {row.pixels} | {row.cpu_ms} | {row.share} | {row.tried} |"
                print(cells, flush=True)
    worst = max(rows, key=lambda row: row.share)
    print(f"\nlargest share: {worst.share} ({worst.kind}, {worst.stream}); {sum(row.tried for row in rows)} streams")
    if options.json is not None:
        tree = {"hardware": hardware(), "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
    return int(worst.share > 1)


if __name__ == "__main__":
    raise SystemExit(main())
