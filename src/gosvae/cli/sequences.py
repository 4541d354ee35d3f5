"""`gosvae compress`, `decompress` and `info` for videos and other sequences of frames, in `.gosv` files."""

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
from typing import Any, BinaryIO

from tqdm import tqdm

from gosvae.cli.batch import write_result
from gosvae.cli.options import parse_size, standard_input
from gosvae.cli.targets import STANDARD
from gosvae.codecs.announced import check_count
from gosvae.codecs.registry import load_sequence_codec, sequence_codec_of, split_rate
from gosvae.codecs.sequence.codec import SequenceCodec
from gosvae.codecs.sequence.encoder import SequenceOptions
from gosvae.codecs.sequence.file import SUFFIX, SequenceFile, SequenceWriter, frame_modes
from gosvae.codecs.sequence.format import SessionHeader, is_session
from gosvae.codecs.sequence.rate import RateControl
from gosvae.codecs.slices import DEFAULT_OPTIONS
from gosvae.errors import BitstreamError, ConfigError, ForeignStreamError, ImageError, WriteError
from gosvae.images import write_image
from gosvae.sender.sequence_transmitter import DEFAULT_MAX_AGE_MS
from gosvae.sender.sources import is_video, open_source, resized, video_fps
from gosvae.sender.video import VideoFile
from gosvae.tensors import ImageArray
from gosvae.units import kib
from gosvae.walk import IMAGE_SUFFIXES, expanded

_DEFAULT_FPS = 10.0
"""Frames a second of a folder of frames."""


def add_sequence(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae compress` for videos."""
    group = parser.add_argument_group("videos and other sequences, which become one .gosv file")
    group.add_argument(
        "--fps", type=float, metavar="FPS",
        help=f"frames a second: of a folder of frames (default {_DEFAULT_FPS:g}), or in place of those of the video",
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


def add_sequence_range(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae decompress` for videos."""
    group = parser.add_argument_group("videos and other sequences, in .gosv files")
    group.add_argument(
        "--first", type=int, metavar="N",
        help="number of the first frame to write, from 0; decoding begins at the key frame at or before it",
    )  # fmt: skip
    group.add_argument("--frames", type=int, metavar="N", help="number of frames to write; default: all that follow")


def is_sequence_job(options: argparse.Namespace) -> bool:
    """Return whether the sources of `gosvae compress` become one sequence rather than pictures of their own.

    Raises:
        ConfigError: an option of sequences is given, but nothing says that the pictures become one.
    """
    if str(options.out or "").endswith(SUFFIX) or options.fps is not None or any(map(is_video, options.sources)):
        return True
    _refuse_for_pictures(options, ("kbps", "max_age_ms", "key_interval", "resize"))
    return False


def _refuse_for_pictures(options: argparse.Namespace, names: Sequence[str]) -> None:
    for name in names:
        if getattr(options, name) is not None:
            raise ConfigError(f"this option is for videos and other sequences, which are {SUFFIX} files", argument=name)


def _refuse_for_sequences(options: argparse.Namespace) -> None:
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
    if _is_left(target, options):
        return 0
    max_age_ms = DEFAULT_MAX_AGE_MS if options.max_age_ms is None else options.max_age_ms
    source = sources[0] if len(sources) == 1 else f"{len(sources)} sources"
    fps = options.fps or (video_fps(sources[0]) if is_video(sources[0]) else None) or _DEFAULT_FPS
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
    control = None if options.kbps is None else RateControl(options.kbps, fps, max_age_ms)
    budget = None if options.kib is None else round(1024 * options.kib)
    sent = 0
    with _new_file(target, force=options.force) as stream, SequenceWriter(stream) as writer:
        for picture in tqdm(chain([first], pictures), unit="frame", disable=options.quiet or options.json or None):
            if control is not None and not control.wants():
                writer.hold()
                continue
            if picture.shape != first.shape:
                (height, width), (rows, columns) = first.shape[:2], picture.shape[:2]
                raise ImageError(
                    f"frame {writer.frames} has {columns}x{rows} pixels, the first one {width}x{height}: give all of "
                    "them one size (option --resize)"
                )
            if control is not None:
                encoder.level = control.level
            data = encoder.encode(picture, budget_bytes=budget)
            writer.write(data)
            sent += 1
            if control is not None:
                control.sent(len(data), key=is_session(data))
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
    return 0


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


def _is_left(target: Path | None, options: argparse.Namespace) -> bool:
    """Return whether the target is there already and `--skip-existing` leaves it; a note tells it."""
    left = bool(options.skip_existing and target is not None and target.exists())
    if left and not options.quiet:
        print(f"gosvae: note: {target} is there already and is left as it is", file=sys.stderr)
    return left


@contextmanager
def _new_file(target: Path | None, *, force: bool) -> Iterator[BinaryIO]:
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


def is_sequence_file(source: str) -> bool:
    """Return whether a source of `gosvae decompress` or `gosvae info` holds a sequence; `-` is standard input."""
    if source == STANDARD:
        peek = getattr(standard_input(), "peek", None)
        return peek is not None and is_session(peek(4))
    path = expanded(source)
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return is_session(stream.read(4))


@contextmanager
def _errors_of(source: str) -> Iterator[None]:
    """Name the source in errors of its bytes."""
    try:
        yield
    except BitstreamError as error:
        raise type(error)(f"{source}: {error}", argument=error.argument) from None


def _read_sequence(source: str) -> SequenceFile:
    """Return the reader of a file, or of standard input for `-`; its errors name the source."""
    with _errors_of(source):
        return SequenceFile(standard_input().read()) if source == STANDARD else SequenceFile.read(expanded(source))


def is_sequence_to_decompress(options: argparse.Namespace) -> bool:
    """Return whether a source of `gosvae decompress` is a sequence.

    Raises:
        ConfigError: no source is one, but an option of sequences is given.
    """
    if any(map(is_sequence_file, options.sources)):
        return True
    _refuse_for_pictures(options, ("first", "frames"))
    return False


def run_decompress_sequence(options: argparse.Namespace) -> int:
    """Reconstruct a video, or a folder of frames."""
    if len(options.sources) > 1:
        raise ConfigError(f"{len(options.sources)} sources: one sequence at a time becomes a video")
    source = options.sources[0]
    target = _decompressed(source, options.out)
    if _is_left(target, options):
        return 0
    file = _read_sequence(source)
    numbers = _numbers(source, file, options)
    check_count(file.header.height * file.header.width, options.max_pixels)
    codec = load_sequence_codec(options.codec) if options.codec else sequence_codec_of(file.header)
    pictures = tqdm(
        _pictures(source, file, codec, numbers),
        total=len(numbers), unit="frame", disable=options.quiet or options.json or None,
    )  # fmt: skip
    if is_video(str(target)):
        with _new_file(target, force=options.force) as stream:
            fps = file.header.frames_per_second or _DEFAULT_FPS
            count = VideoFile(stream, target.suffix.lower(), fps).write(pictures)
    else:
        count = _write_folder(target, pictures, force=options.force)
    facts: dict[str, Any] = {"source": source, "target": str(target), "frames": count, "complete": file.complete}
    if options.json:
        print(json.dumps(facts))
    elif not options.quiet:
        cut = "" if file.complete else "; the file was cut"
        print(f"{source} -> {target}: {file.header.width}x{file.header.height}, {count} frames{cut} ({codec.name})")
    return 0


def _decompressed(source: str, out: str | None) -> Path:
    """Return the video or the folder that a sequence is written to.

    Raises:
        ConfigError: neither a video nor a folder is named.
    """
    if out == STANDARD or (out is None and source == STANDARD):
        raise ConfigError("standard output takes no sequence: name a video, or a folder for its frames (option -o)")
    target = Path(out or f"{source}.mp4")
    if target.suffix.lower() in IMAGE_SUFFIXES and not str(out).endswith(("/", os.sep)) and not target.is_dir():
        raise ConfigError(f"{out} is the name of one image: name a video, or a folder for the frames (option -o)")
    return target


def _numbers(source: str, file: SequenceFile, options: argparse.Namespace) -> range:
    """Return the numbers of the frames to write.

    Raises:
        BitstreamError: the file holds no frame, or is damaged.
        ConfigError: there is no such frame.
    """
    with _errors_of(source):
        count = len(file)
    first = options.first or 0
    if not count:
        raise BitstreamError(f"{source}: cut before the end of its first frame")
    if not 0 <= first < count:
        raise ConfigError(f"frame {first}: {source} has the frames 0 to {count - 1}", argument="first")
    if options.frames is not None and options.frames < 1:
        raise ConfigError(f"{options.frames} frames: expected at least 1", argument="frames")
    return range(first, count if options.frames is None else min(count, first + options.frames))


def _pictures(source: str, file: SequenceFile, codec: SequenceCodec, numbers: range) -> Iterator[ImageArray]:
    """Yield the pictures of frames; one that was not sent repeats the picture before it.

    Raises:
        BitstreamError: a frame is damaged; the error names the key frame after it.
    """
    decoder, picture, number = codec.decoder(), None, numbers.start
    try:
        for number, data in file.frames(numbers.start):
            picture = decoder.decode(data) if data else picture
            if number in numbers and picture is not None:
                yield picture
            if number + 1 == numbers.stop:
                return
    except BitstreamError as error:
        later = next((key for key in file.keys if key > number), None)
        more = "" if later is None else f"; --first {later} reads on from the key frame behind it"
        raise type(error)(f"{source}: {error}{more}", argument=error.argument) from None


def _write_folder(folder: Path, frames: Iterable[ImageArray], *, force: bool) -> int:
    """Write frames as `000000.png`, `000001.png`, ... and return their number.

    Raises:
        ConfigError: the folder holds files already, and `force` is not set.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not force):
        raise ConfigError(f"{folder} is there already: give another name (option -o), or write into it with --force")
    count = 0
    for count, picture in enumerate(frames, start=1):
        write_image(folder / f"{count - 1:06d}.png", picture)
    return count


def describe_sequence(source: str) -> tuple[dict[str, str], dict[str, object]]:
    """Return the lines of `gosvae info` on a sequence, and the values that stand in JSON in place of some of them."""
    file = _read_sequence(source)
    data = file.data
    with _errors_of(source):
        header, headers = file.header, file.headers()
    modes = frame_modes(headers)
    fps = header.frames_per_second
    sizes = [n_bytes for _, n_bytes in headers] or [0]
    rate = f", {len(data) * 8 / 1000 * fps / len(file):.1f} kbit/s" if fps and len(file) else ""
    size = f"{header.width}x{header.height} pixels"
    rows = {
        "format": f"gosvae sequence, version 1, {'complete' if file.complete else 'cut: without its index'}",
        "frames": f"{size}, {len(file)} at {fps:g} a second, {len(headers)} of them sent",
        "file": f"{len(data)} bytes = {kib(len(data)):.1f} KiB{rate}",
        "bytes of a frame": f"{min(sizes)} to {max(sizes)}, {sum(sizes) / len(sizes):.0f} on average",
        "modes": ", ".join(f"{count} {mode}" for mode, count in modes.items()),
        "key frames": f"{len(file.keys)}",
        "slices": f"{header.slices}" + (f" ({header.layout})" if header.slices > 1 else ""),
        "codec": f"{header.fingerprint.hex()} ({_maker(header)})",
    }
    numbers: dict[str, object] = {
        "width": header.width, "height": header.height, "frames": len(file), "frames_sent": len(headers),
        "frames_per_second": fps, "file": len(data), "modes": modes, "key_frames": file.keys, "complete": file.complete,
    }  # fmt: skip
    return rows, numbers


def _maker(header: SessionHeader) -> str:
    try:
        return sequence_codec_of(header).codec.name
    except ForeignStreamError:
        return "not a model of this package"
