"""`gosvae compress` and `gosvae decompress`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from gosvae.bitstream import SliceLayout
from gosvae.codecs.base import ImageCodec
from gosvae.codecs.registry import DEFAULT_CODEC, codec_of_stream, load_codec
from gosvae.codecs.shortcuts import compress
from gosvae.codecs.slices import DEFAULT_OPTIONS, ENTROPY_MODELS, StreamOptions
from gosvae.codecs.trained import TrainedCodec
from gosvae.datasets.registry import contents
from gosvae.errors import BitstreamError, ConfigError, RateError
from gosvae.files import write_atomically
from gosvae.images import read_image, write_image
from gosvae.units import kib, rate_bpp

SUFFIX = ".gos"
"""Of files that a learned codec makes."""


def add_compress(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae compress`."""
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="image files: PNG, JPEG, WebP, AVIF, TIFF, ..."
    )
    parser.add_argument(
        "-o", "--out", type=Path, help="output file, or folder for several images; default: beside the image"
    )
    parser.add_argument(
        "--codec", default=DEFAULT_CODEC, help="name from gosvae list, NAME:LEVEL, or checkpoint folder"
    )
    parser.add_argument(
        "--kib", type=float, metavar="KIB",
        help="largest size of a stream: take the best quality within it; for variable-rate and classical codecs",
    )  # fmt: skip
    parser.add_argument(
        "--entropy",
        choices=("auto", *ENTROPY_MODELS),
        default=DEFAULT_OPTIONS.entropy,
        help="entropy model; auto: that with the fewest bytes; others give way to fixed length where it is shorter",
    )
    parser.add_argument(
        "--slices",
        type=int,
        default=DEFAULT_OPTIONS.slices,
        metavar="N",
        help="number of parts that decode independently: 1 for the fewest bytes, more where some may be lost",
    )
    parser.add_argument(
        "--slice-layout",
        choices=get_args(SliceLayout),
        default=DEFAULT_OPTIONS.layout,
        help="positions of a slice: a band of rows, or every n-th position",
    )
    parser.add_argument(
        "--container",
        type=int,
        default=DEFAULT_OPTIONS.version,
        metavar="VERSION",
        help="version of the stream format; 1 can be read by gosvae 0.1",
    )
    parser.add_argument(
        "--effort", type=int, default=DEFAULT_OPTIONS.effort, metavar="N",
        help="0 to 9: number of searches for integers that take fewer bytes; for variable-rate codecs",
    )  # fmt: skip
    parser.set_defaults(run=run_compress)


def add_decompress(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae decompress`."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="files that gosvae compress wrote")
    parser.add_argument(
        "-o", "--out", type=Path, help="output file, or folder for several; default: PNG beside the file"
    )
    parser.add_argument(
        "--codec",
        help="checkpoint folder of the codec that made the files; default: the model of the package that made them",
    )
    parser.set_defaults(run=run_decompress)


def _target(source: Path, out: Path | None, suffix: str, count: int) -> Path:
    """Where the result of one of `count` sources goes."""
    if out is None:
        return source.with_suffix(suffix)
    if count > 1 and out.exists() and not out.is_dir():
        raise ConfigError(f"{count} files cannot go into the one file {out}: give a folder")
    if count > 1 or out.is_dir():
        return out / source.with_suffix(suffix).name
    return out


def _pairs(sources: Iterable[Path], out: Path | None, suffix: str) -> list[tuple[Path, Path]]:
    """Sources and targets; refuses to write over a source or to write one target twice."""
    sources = list(sources)
    pairs = [(source, _target(source, out, suffix, len(sources))) for source in sources]
    seen: set[Path] = set()
    for source, target in pairs:
        if target.resolve() == source.resolve():
            raise ConfigError(f"{target} would be written over itself: give another name with -o")
        if target in seen:
            raise ConfigError(f"two files would be written to {target}: take them one by one, each with its own -o")
        seen.add(target)
    return pairs


def _purpose(codec: ImageCodec) -> str | None:
    """Return one line that says which pictures a codec was trained for; None where its provenance does not tell."""
    if not isinstance(codec, TrainedCodec):
        return None
    shown = contents(str(codec.checkpoint.provenance.get("dataset", "")))
    return shown and f"{codec.name} is made for {shown}; other pictures may come out badly"


def run_compress(options: argparse.Namespace) -> int:
    """Compress images to files."""
    stream_options = StreamOptions(
        options.entropy, options.slices, options.slice_layout, options.container, options.effort
    )
    codec = load_codec(options.codec, options=stream_options)
    name = options.codec.partition(":")[0]
    suffix = {"jpeg": ".jpg", "webp": ".webp", "avif": ".avif", "jpegxl": ".jxl"}.get(name, SUFFIX)
    purpose = _purpose(codec)
    if purpose:
        print(f"gosvae: note: {purpose}", file=sys.stderr)
    for source, target in _pairs(options.images, options.out, suffix):
        image = read_image(source)
        try:
            data = compress(image, codec, kib=options.kib)
        except RateError as error:
            raise RateError(f"{source}: {error}") from None
        write_atomically(target, data)
        height, width = image.shape[:2]
        rate = f"{kib(len(data)):.2f} KiB, {rate_bpp(len(data), height, width):.3f} bpp"
        print(f"{source} -> {target}: {width}x{height}, {rate} ({codec.name})")
    return 0


def read_stream(path: Path) -> bytes:
    """Bytes of a file.

    Raises:
        BitstreamError: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise BitstreamError(f"cannot read {path}: {error.strerror}") from None


def run_decompress(options: argparse.Namespace) -> int:
    """Reconstruct images from files."""
    codec: ImageCodec | None = load_codec(options.codec) if options.codec else None
    for source, target in _pairs(options.files, options.out, ".png"):
        data = read_stream(source)
        try:
            maker = codec or codec_of_stream(data)
            image = maker.decompress(data)
        except BitstreamError as error:
            raise type(error)(f"{source}: {error}", argument=error.argument) from None
        write_image(target, image)
        print(f"{source} -> {target}: {image.shape[1]}x{image.shape[0]} ({maker.name})")
    return 0
