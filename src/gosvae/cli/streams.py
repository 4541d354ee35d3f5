"""`gosvae compress` and `gosvae decompress`: images to files, and back."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, get_args

from PIL import Image

from gosvae.bitstream import SliceLayout
from gosvae.cli.batch import Result, Work, add_batch, run_all, write_result
from gosvae.cli.loading import Loading, add_loading, add_sender_loading, loading_of
from gosvae.cli.options import parse_kib, standard_input
from gosvae.cli.sequence_files import add_sequence_range, is_sequence_to_decompress, run_decompress_sequence
from gosvae.cli.sequences import add_sequence, is_sequence_job, run_compress_sequence
from gosvae.cli.targets import Existing, Job, Naming, Plan, files_below, plan
from gosvae.codecs.announced import DEFAULT_MAX_PIXELS, check_pixels
from gosvae.codecs.base import ImageCodec
from gosvae.codecs.layered import LayeredCodec, layers_of
from gosvae.codecs.registry import LAYERED, codec_of_stream
from gosvae.codecs.shortcuts import compress
from gosvae.codecs.slices import DEFAULT_OPTIONS, ENTROPY_MODELS, Purpose, StreamOptions
from gosvae.codecs.trained import TrainedCodec
from gosvae.datasets.registry import contents
from gosvae.errors import BitstreamError, ImageError, RateError
from gosvae.images import read_image, write_image
from gosvae.units import kib, rate_bpp
from gosvae.walk import IMAGE_SUFFIXES, find_images

SUFFIX = ".gos"
"""Ending of the names of files that a learned codec makes."""
SUFFIXES = {"jpeg": ".jpg", "webp": ".webp", "avif": ".avif", "jpegxl": ".jxl"}
"""Endings of the names of files that classical codecs make."""


def add_compress(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae compress`."""
    parser.add_argument(
        "sources", nargs="+", metavar="IMAGE",
        help="image files (PNG, JPEG, WebP, AVIF, TIFF, ...), folders of them, or - for standard input; or one video; "
        "with -o NAME.gosv, the images are the frames of one sequence",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--out",
        help="output file; folder for several images (FOLDER/ makes it); - for standard output; a link is written "
        "through; default: NAME.gos beside the image",
    )  # fmt: skip
    parser.add_argument("--codec", default=LAYERED, help="name from gosvae list, NAME:LEVEL, or checkpoint folder")
    parser.add_argument(
        "--for", dest="purpose", choices=get_args(Purpose), default=DEFAULT_OPTIONS.purpose,
        help="whom the picture is for; auto: machine for pictures like those of the training, people for others",
    )  # fmt: skip
    parser.add_argument(
        "--detail-slices", type=int, default=DEFAULT_OPTIONS.detail_slices, metavar="N",
        help="number of slices of the detail layer, 1..8: gosvae truncate can cut after each; more take more bytes",
    )  # fmt: skip
    add_sender_loading(parser)
    parser.add_argument(
        "--kib", type=parse_kib, metavar="KIB",
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
    add_sequence(parser)
    add_batch(parser)
    parser.set_defaults(run=run_compress)


def add_decompress(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae decompress`."""
    parser.add_argument(
        "sources", nargs="+", metavar="FILE",
        help="files that gosvae compress wrote, folders of them, or - for standard input",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--out",
        help="output file; folder for several (FOLDER/ makes it); - for a PNG on standard output; a link is written "
        "through; for a .gosv file: a video such as NAME.mp4, or a folder for its frames; default: NAME.gos.png beside "
        "NAME.gos, NAME.gosv.mp4 beside NAME.gosv",
    )  # fmt: skip
    parser.add_argument(
        "--codec",
        help="checkpoint folder of the codec that made the files; default: the model of the package that made them",
    )
    parser.add_argument(
        "--max-pixels", type=int, default=DEFAULT_MAX_PIXELS, metavar="N",
        help="refuse pictures and frames of more pixels, whose size a few bytes may announce; default: %(default)s",
    )  # fmt: skip
    add_sequence_range(parser)
    add_loading(parser)
    add_batch(parser)
    parser.set_defaults(run=run_decompress)


def _purpose(codec: ImageCodec) -> str | None:
    """Return one line that says which pictures a codec was trained for; None if its provenance does not tell."""
    if not isinstance(codec, TrainedCodec):
        return None
    shown = contents(str(codec.checkpoint.provenance.get("dataset", "")))
    return shown and f"{codec.name} is made for {shown}; other pictures may come out badly"


def plan_of(options: argparse.Namespace, naming: Naming) -> Plan:
    """Return what a command reads and writes."""
    existing: Existing = "replace" if options.force else "skip" if options.skip_existing else "refuse"
    return plan(options.sources, options.out, naming, existing)


@dataclass
class _Compressing(Work):
    """Compresses images; a codec that is at hand is not loaded again, except in other processes."""

    spec: str
    options: StreamOptions
    kib: float | None
    loading: Loading
    codec: ImageCodec | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "codec": None}

    def prepare(self) -> None:
        self.codec = self.codec or self.loading.load_codec(self.spec, options=self.options)

    def __call__(self, job: Job) -> Result:
        assert self.codec is not None
        source = BytesIO(standard_input().read()) if job.source is None else job.source
        image = read_image(source)
        try:
            data = compress(image, self.codec, kib=self.kib)
        except RateError as error:
            raise RateError(f"{job.shown}: {error}", argument=error.argument) from None
        write_result(job.target, data)
        height, width = image.shape[:2]
        read_bytes = len(source.getbuffer()) if isinstance(source, BytesIO) else source.stat().st_size
        facts = {
            "width": width,
            "height": height,
            "bytes": len(data),
            "bpp": rate_bpp(len(data), height, width),
            "codec": self.codec.name,
        }
        rate = f"{kib(len(data)):.2f} KiB, {rate_bpp(len(data), height, width):.3f} bpp"
        told = ""
        if isinstance(self.codec, LayeredCodec):
            layers = layers_of(data)
            told = f": {layers}"
            facts |= {"task_bytes": layers.task_bytes, "detail_bytes": layers.detail_bytes}
        line = f"{width}x{height}, {rate} ({self.codec.name}){told}"
        return Result(job, read_bytes, len(data), facts, line)


def run_compress(options: argparse.Namespace) -> int:
    """Compress images to files, or a video to one file."""
    if is_sequence_job(options):
        return run_compress_sequence(options)
    stream_options = StreamOptions(
        options.entropy,
        options.slices,
        options.slice_layout,
        options.container,
        options.effort,
        options.purpose,
        options.detail_slices,
    )
    loading = loading_of(options, expert=options.expert)
    work = _Compressing(options.codec, stream_options, options.kib, loading)
    work.prepare()
    assert work.codec is not None
    suffix = SUFFIXES.get(options.codec.partition(":")[0], SUFFIX)
    naming = Naming(
        suffix,
        beside=lambda source: source.with_suffix(suffix),
        find=_images,
        folder_needs_out=suffix in IMAGE_SUFFIXES,
    )
    todo = plan_of(options, naming)
    purpose = _purpose(work.codec)
    return run_all(work, todo, options, note=purpose)


def _images(folder: Path) -> Sequence[Path]:
    """Return the images below a folder; pictures that are left out are told."""
    found = find_images(folder)
    if found.left_out:
        print(f"gosvae: note: {found.note()}", file=sys.stderr)
    return found.files


def read_stream(path: Path | None) -> bytes:
    """Return the bytes of a file, or of standard input where `path` is None.

    Raises:
        BitstreamError: the file cannot be read.
        ConfigError: standard input is closed.
    """
    if path is None:
        return standard_input().read()
    try:
        return path.read_bytes()
    except OSError as error:
        raise BitstreamError(f"cannot read {path}: {error.strerror}") from None


@dataclass
class _Decompressing(Work):
    """Reconstructs images with a codec, or with the models of the package where none is named."""

    spec: str | None
    loading: Loading
    max_pixels: int
    codec: ImageCodec | None = None

    def prepare(self) -> None:
        self.codec = self.loading.load_codec(self.spec) if self.spec else None

    def __call__(self, job: Job) -> Result:
        data = read_stream(job.source)
        try:
            check_pixels(data, self.max_pixels)
            maker = self.codec or codec_of_stream(data)
            image = maker.decompress(data)
        except (BitstreamError, ImageError) as error:
            raise type(error)(f"{job.shown}: {error}", argument=error.argument) from None
        if job.target is None:
            stream = BytesIO()
            Image.fromarray(image).save(stream, format="PNG")
            write_result(None, stream.getvalue())
            n_bytes = stream.tell()
        else:
            write_image(job.target, image)
            n_bytes = job.target.stat().st_size
        height, width = image.shape[:2]
        facts = {"width": width, "height": height, "codec": maker.name}
        return Result(job, len(data), n_bytes, facts, f"{width}x{height} ({maker.name})")


def run_decompress(options: argparse.Namespace) -> int:
    """Reconstruct images from files, or a video from the file of a sequence."""
    if is_sequence_to_decompress(options):
        return run_decompress_sequence(options)
    ending = SUFFIXES.get((options.codec or "").partition(":")[0], SUFFIX)
    naming = Naming(
        ".png",
        beside=lambda source: source.with_name(source.name + ".png"),  # never the name of the original
        find=lambda folder: files_below(folder, ending),
    )
    return run_all(
        _Decompressing(options.codec, loading_of(options), options.max_pixels), plan_of(options, naming), options
    )
