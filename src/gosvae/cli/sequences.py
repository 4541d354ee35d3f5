"""`gosvae compress` for videos and other sequences of frames, which become `.gosv` files."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from gosvae.cli.batch import write_result
from gosvae.cli.loading import verify_of
from gosvae.cli.options import parse_size, standard_input
from gosvae.cli.targets import STANDARD, real_path
from gosvae.codecs.registry import load_sequence_codec, split_rate
from gosvae.codecs.sequence.encoder import SequenceOptions
from gosvae.codecs.sequence.file import SUFFIX, SequenceWriter
from gosvae.codecs.sequence.format import LEAST_RATE, MOST_RATE
from gosvae.codecs.sequence.rate import DEFAULT_MAX_AGE_MS, RateControl, encoded_at_rate
from gosvae.codecs.slices import DEFAULT_OPTIONS
from gosvae.errors import ConfigError, ImageError
from gosvae.files import written_atomically
from gosvae.sender.sources import PictureFiles, VideoFrames, is_video, open_source, resized, video_fps
from gosvae.tensors import ImageArray
from gosvae.units import kib
from gosvae.walk import IMAGE_SUFFIXES, printable

DEFAULT_FPS = 10.0
"""Frames a second of a folder of frames."""
_EXCESS = 1.1
"""Share of the rate above which a note says that it was not kept."""


def add_sequence(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae compress` for videos."""
    group = parser.add_argument_group("videos and other sequences, which become one .gosv file")
    group.add_argument(
        "--fps", type=float, metavar="FPS",
        help=f"frames a second: of a folder of frames (default {DEFAULT_FPS:g}), or in place of those of the video",
    )  # fmt: skip
    group.add_argument(
        "--kbps", type=float, metavar="KBPS",
        help="kilobits a second (1 kbit = 1000 bits): chooses how many frames are kept and their level",
    )  # fmt: skip
    group.add_argument(
        "--max-age-ms", type=float, metavar="MS",
        help=f"with --kbps: longest time between two frames that are kept (default: {DEFAULT_MAX_AGE_MS:g})",
    )  # fmt: skip
    group.add_argument(
        "--key-interval", type=int, metavar="N",
        help="a frame that decoding can begin at every N frames that are kept; default: the first one only",
    )  # fmt: skip
    group.add_argument("--resize", type=parse_size, metavar="HxW", help="resize the frames to this size first")


def is_sequence_job(options: argparse.Namespace) -> bool:
    """Return whether the sources of `gosvae compress` become one sequence rather than pictures of their own.

    Raises:
        ConfigError: an option of sequences is given, but nothing says that the pictures become one.
    """
    out = str(options.out or "")
    to_video = is_video(out) and not is_folder_name(out)  # which is refused
    if out.endswith(SUFFIX) or to_video or options.fps is not None or any(map(is_video, options.sources)):
        return True
    refuse_for_pictures(options, ("kbps", "max_age_ms", "key_interval", "resize"))
    return False


def refuse_for_pictures(options: argparse.Namespace, names: Sequence[str]) -> None:
    """Raise `ConfigError` if one of these options of sequences is given."""
    for name in names:
        if getattr(options, name) is not None:
            raise ConfigError(f"this option is for videos and other sequences, which are {SUFFIX} files", argument=name)


def is_folder_name(name: str) -> bool:
    """Return whether a name is that of a folder: a slash at its end says so, or the folder is there."""
    return name.endswith(("/", os.sep)) or Path(name).is_dir()


def _refuse_for_sequences(options: argparse.Namespace) -> None:
    """Raise `ConfigError` if an option is given that has no effect on a sequence."""
    refuse_jobs(options)
    for name, without_effect in (
        ("purpose", ("auto", "machine")),
        ("detail_slices", (DEFAULT_OPTIONS.detail_slices,)),
        ("entropy", (DEFAULT_OPTIONS.entropy,)),
        ("container", (DEFAULT_OPTIONS.version,)),
        ("expert", (None,)),
    ):
        if getattr(options, name) not in without_effect:
            raise ConfigError("this option is for images on their own: a sequence has no such choice", argument=name)
    if options.kbps is not None and split_rate(str(options.codec))[1]:
        raise ConfigError(
            f"the rate chooses the level of each frame, and {options.codec} names one: leave out one of them",
            argument="kbps",
        )


def refuse_jobs(options: argparse.Namespace) -> None:
    """Raise `ConfigError` if several processes are asked for: the frames of a sequence depend on each other."""
    if options.jobs != 1:
        raise ConfigError("this option is for many files: the frames of a sequence need one process", argument="jobs")


def _rate_of(options: argparse.Namespace) -> float:
    """Return the frames a second of the sequence.

    Raises:
        ConfigError: the file cannot hold the rate.
    """
    source = options.sources[0]
    own = video_fps(source) if options.fps is None and is_video(source) else None
    rate = float(options.fps if options.fps is not None else own or DEFAULT_FPS)
    if not LEAST_RATE <= rate <= MOST_RATE:
        raise ConfigError(f"{rate:g} frames a second: expected {LEAST_RATE} to {MOST_RATE}", argument="fps")
    return rate


def _intact(pictures: Iterator[ImageArray]) -> Iterator[ImageArray | None]:
    """Yield the pictures of a source, and None in place of each file or frame that is damaged.

    A line on standard error tells each file; `VideoFrames` tells the frames of a video.

    Raises:
        ImageError: a picture of standard input or of a camera cannot be read, or as `VideoFrames`.
    """
    seen, more = 0, True
    while more:
        picture: ImageArray | None = None
        try:
            picture = next(pictures)
        except StopIteration:
            more = False
        except ImageError as error:
            if not isinstance(pictures, PictureFiles):
                raise
            print(f"gosvae: skipped: {error}", file=sys.stderr, flush=True)
        if isinstance(pictures, VideoFrames):
            yield from [None] * (pictures.damaged - seen)
            seen = pictures.damaged
        if more:
            yield picture


def run_compress_sequence(options: argparse.Namespace) -> int:
    """Compress a video, or a sequence of images, to one file."""
    _refuse_for_sequences(options)
    sources: list[str] = options.sources
    if len(sources) > 1 and any(is_video(source) or Path(source).is_dir() for source in sources):
        raise ConfigError(f"{len(sources)} sources: one video, one folder of frames, or images become a sequence")
    if options.kbps is not None and options.kib is not None:
        raise ConfigError("both a size of each frame and a rate are given: leave out one of them", argument="kbps")
    if options.max_age_ms is not None and options.kbps is None:
        raise ConfigError("all frames are kept without a rate: give --kbps too", argument="max_age_ms")
    target = _compressed(sources, options.out)
    if is_left(target, options):
        return 0
    max_age_ms = DEFAULT_MAX_AGE_MS if options.max_age_ms is None else options.max_age_ms
    source = sources[0] if len(sources) == 1 else f"{len(sources)} sources"
    fps = _rate_of(options)
    chosen = SequenceOptions(
        effort=max(0, options.effort - 1), key_interval=options.key_interval, slices=options.slices,
        layout=options.slice_layout,
    )  # fmt: skip
    codec = load_sequence_codec(options.codec, options=chosen, verify=verify_of(options))
    pictures = (
        picture if picture is None or options.resize is None else resized(picture, *options.resize)
        for picture in _intact(open_source(sources, standard_input() if STANDARD in sources else BytesIO()))
    )
    damaged, first = 0, None
    for first in pictures:
        if first is not None:
            break
        damaged += 1  # the file begins with a frame that is intact
    if first is None:
        raise ImageError(f"{source} has no frames that can be read")
    encoder = codec.encoder(*first.shape[:2], frames_per_second=fps)

    def counted() -> Iterator[ImageArray | None]:
        nonlocal damaged
        for picture in chain([first], pictures):
            damaged += picture is None
            yield picture

    frames = _of_one_size(counted())
    budget = None if options.kib is None else round(1024 * options.kib)
    coded: Iterator[bytes | None] = (
        None if frame is None else encoder.encode(frame, budget_bytes=budget) for frame in frames
    )
    if options.kbps is not None:
        coded = encoded_at_rate(encoder, frames, RateControl(options.kbps, fps, max_age_ms))
    sent = 0
    with new_file(target, options) as stream, SequenceWriter(stream) as writer:
        for data in tqdm(coded, unit="frame", disable=options.quiet or options.json or None):
            if data is None:
                writer.hold()
            else:
                writer.write(data)
                sent += 1
    facts = {
        "source": source, "target": str(target or STANDARD),
        "width": encoder.header.width, "height": encoder.header.height,
        "frames": writer.frames, "frames_kept": sent, "bytes": writer.bytes_written,
        "frames_damaged": damaged, "kbps": writer.bytes_written / 125.0 * fps / writer.frames, "codec": codec.name,
    }  # fmt: skip
    output = sys.stderr if target is None else sys.stdout
    if options.json:
        print(json.dumps(facts), file=output)
    elif not options.quiet:
        print(
            f"{source} -> {facts['target']}: {facts['width']}x{facts['height']}, {sent} of {writer.frames} frames, "
            f"{kib(writer.bytes_written):.1f} KiB, {facts['kbps']:.1f} kbit/s ({codec.name})",
            file=output,
        )
    if options.kbps is not None and facts["kbps"] > _EXCESS * options.kbps and not options.quiet:
        print(
            f"gosvae: note: {options.kbps:g} kbit/s cannot be kept with a frame every {max_age_ms:g} ms: raise "
            "--max-age-ms or lower the size of the frames (option --resize)",
            file=sys.stderr,
        )
    if damaged:
        print(f"gosvae: damaged frames left out: {damaged}; the picture before each stays", file=sys.stderr)
    return 1 if damaged else 0


def _of_one_size(frames: Iterable[ImageArray | None]) -> Iterator[ImageArray | None]:
    """Yield frames that all have the size of the first one; None stands for a damaged frame.

    Raises:
        ImageError: a frame has another size.
    """
    first = None
    for number, frame in enumerate(frames):
        if frame is not None and first is None:
            first = frame.shape[:2]
        if frame is not None and first is not None and frame.shape[:2] != first:
            raise ImageError(
                f"frame {number} has {frame.shape[1]}x{frame.shape[0]} pixels, the first one {first[1]}x{first[0]}: "
                "give all of them one size (option --resize)"
            )
        yield frame


def _compressed(sources: Sequence[str], out: str | None) -> Path | None:
    """Return the file that a sequence is written to; None for standard output.

    Raises:
        ConfigError: no file is named and there is no default, or the name is that of a video or an image.
    """
    if out == STANDARD or (out is None and sources[0] == STANDARD):
        return None
    source = Path(sources[0])
    name = f"{source.name if source.is_dir() else source.stem}{SUFFIX}"
    if out is None:
        if len(sources) > 1 or not source.name:
            raise ConfigError(f"name the {SUFFIX} file that the frames become (option -o)")
        return source.with_name(name)
    target = Path(out)
    if is_folder_name(out):
        if len(sources) > 1 or not source.name:
            raise ConfigError(f"{out} is a folder: name the {SUFFIX} file that the frames become (option -o)")
        return target / name
    if is_video(out) or target.suffix.lower() in IMAGE_SUFFIXES:
        raise ConfigError(f"{out} is no name for a sequence: name a {SUFFIX} file (option -o)")
    return target


def is_left(target: Path | None, options: argparse.Namespace) -> bool:
    """Return whether the target is there already and `--skip-existing` leaves it; a note tells it."""
    left = bool(options.skip_existing and target is not None and target.exists())
    if left and not options.quiet:
        print(f"gosvae: note: {target} is there already and is left as it is", file=sys.stderr)
    return left


@contextmanager
def new_file(target: Path | None, options: argparse.Namespace) -> Iterator[BinaryIO]:
    """Yield a stream for a file, or for standard output, that is put in its place when all is written.

    A link is written through, with a note that names the file that is replaced.

    Raises:
        ConfigError: the file is there already, is no link, and `--force` is not given; or it is a source; or standard
            output takes no bytes.
        WriteError: it cannot be written.
    """
    if target is None:
        whole = BytesIO()
        yield whole
        write_result(None, whole.getvalue())
        return
    if real_path(target) in {real_path(Path(source)) for source in options.sources}:
        raise ConfigError(f"{target} is both the input and the output: give another name (option -o)")
    if target.exists() and not options.force:
        if not target.is_symlink():
            raise ConfigError(f"{target} is there already: give another name (option -o), or replace it with --force")
        if target.is_file() and not options.quiet:
            print(f"gosvae: note: {target} is a link: {printable(real_path(target))} is replaced", file=sys.stderr)
    with written_atomically(target) as stream:
        yield stream
