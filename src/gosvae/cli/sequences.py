"""`gosvae compress` for videos and other sequences of frames, which become `.gosv` files."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from gosvae.cli.batch import write_result
from gosvae.cli.options import parse_size, standard_input
from gosvae.cli.targets import STANDARD
from gosvae.codecs.registry import load_sequence_codec, split_rate
from gosvae.codecs.sequence.encoder import SequenceOptions
from gosvae.codecs.sequence.file import SUFFIX, SequenceWriter
from gosvae.codecs.sequence.rate import DEFAULT_MAX_AGE_MS, RateControl, encoded_at_rate
from gosvae.codecs.slices import DEFAULT_OPTIONS
from gosvae.errors import ConfigError, ImageError, WriteError
from gosvae.sender.sources import is_video, open_source, resized, video_fps
from gosvae.tensors import ImageArray
from gosvae.units import kib
from gosvae.walk import IMAGE_SUFFIXES

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
        help="a frame that decoding can begin at every N frames; default: the first one only",
    )  # fmt: skip
    group.add_argument("--resize", type=parse_size, metavar="HxW", help="resize the frames to this size first")


def is_sequence_job(options: argparse.Namespace) -> bool:
    """Return whether the sources of `gosvae compress` become one sequence rather than pictures of their own.

    Raises:
        ConfigError: an option of sequences is given, but nothing says that the pictures become one.
    """
    if str(options.out or "").endswith(SUFFIX) or options.fps is not None or any(map(is_video, options.sources)):
        return True
    refuse_for_pictures(options, ("kbps", "max_age_ms", "key_interval", "resize"))
    return False


def refuse_for_pictures(options: argparse.Namespace, names: Sequence[str]) -> None:
    """Raise `ConfigError` if one of these options of sequences is given."""
    for name in names:
        if getattr(options, name) is not None:
            raise ConfigError(f"this option is for videos and other sequences, which are {SUFFIX} files", argument=name)


def _refuse_for_sequences(options: argparse.Namespace) -> None:
    """Raise `ConfigError` if an option is given that has no effect on a sequence."""
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
    if options.fps is not None and options.fps <= 0:
        raise ConfigError(f"{options.fps:g} frames a second: expected more than 0", argument="fps")
    target = _compressed(sources, options.out)
    if is_left(target, options):
        return 0
    max_age_ms = DEFAULT_MAX_AGE_MS if options.max_age_ms is None else options.max_age_ms
    source = sources[0] if len(sources) == 1 else f"{len(sources)} sources"
    fps = options.fps or (video_fps(sources[0]) if is_video(sources[0]) else None) or DEFAULT_FPS
    chosen = SequenceOptions(
        effort=max(0, options.effort - 1), key_interval=options.key_interval, slices=options.slices,
        layout=options.slice_layout,
    )  # fmt: skip
    codec = load_sequence_codec(options.codec, options=chosen)
    pictures = (
        picture if options.resize is None else resized(picture, *options.resize)
        for picture in open_source(sources, standard_input() if STANDARD in sources else BytesIO())
    )
    first = next(pictures, None)
    if first is None:
        raise ImageError(f"{source} has no frames")
    encoder = codec.encoder(*first.shape[:2], frames_per_second=fps)
    frames = _of_one_size(chain([first], pictures))
    budget = None if options.kib is None else round(1024 * options.kib)
    coded: Iterable[bytes | None] = (encoder.encode(frame, budget_bytes=budget) for frame in frames)
    if options.kbps is not None:
        coded = encoded_at_rate(encoder, frames, RateControl(options.kbps, fps, max_age_ms))
    sent = 0
    with new_file(target, force=options.force) as stream, SequenceWriter(stream) as writer:
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
        "kbps": writer.bytes_written / 125.0 * fps / writer.frames, "codec": codec.name,
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
    return 0


def _of_one_size(frames: Iterable[ImageArray]) -> Iterator[ImageArray]:
    """Yield frames that all have the size of the first one.

    Raises:
        ImageError: a frame has another size.
    """
    first = None
    for number, frame in enumerate(frames):
        first = frame.shape[:2] if first is None else first
        if frame.shape[:2] != first:
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
    if target.is_dir() or out.endswith(("/", os.sep)):
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
def new_file(target: Path | None, *, force: bool) -> Iterator[BinaryIO]:
    """Yield a stream for a file, or for standard output, that is put in its place when all is written.

    Raises:
        ConfigError: the file is there already, and `force` is not set; or standard output takes no bytes.
        WriteError: it cannot be written.
    """
    if target is None:
        whole = BytesIO()
        yield whole
        write_result(None, whole.getvalue())
        return
    if target.exists() and not force:
        raise ConfigError(f"{target} is there already: give another name (option -o), or replace it with --force")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".gosvae-", delete=False) as stream:
            temporary = Path(stream.name)
            try:
                yield stream  # type: ignore[misc]
                stream.flush()
                temporary.chmod(0o644)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(f"cannot write {target}: {error.strerror}; what stood there before is intact") from None
