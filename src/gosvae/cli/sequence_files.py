"""`gosvae decompress` and `gosvae info` for `.gosv` files, which hold videos and other sequences of frames."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gosvae.cli.loading import verify_of
from gosvae.cli.options import standard_input
from gosvae.cli.sequences import DEFAULT_FPS, is_folder_name, is_left, new_file, refuse_for_pictures, refuse_jobs
from gosvae.cli.targets import STANDARD
from gosvae.codecs.announced import check_count
from gosvae.codecs.registry import load_sequence_codec, sequence_codec_of
from gosvae.codecs.sequence.codec import SequenceCodec
from gosvae.codecs.sequence.file import SequenceFile, frame_modes
from gosvae.codecs.sequence.format import SessionHeader, is_session
from gosvae.errors import BitstreamError, ConfigError, ForeignStreamError
from gosvae.images import write_image
from gosvae.sender.sources import is_video
from gosvae.sender.video import VideoFile
from gosvae.tensors import ImageArray
from gosvae.units import kib
from gosvae.walk import expanded


def add_sequence_range(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gosvae decompress` for videos."""
    group = parser.add_argument_group("videos and other sequences, in .gosv files")
    group.add_argument(
        "--first", type=int, metavar="N",
        help="number of the first frame to write, from 0; decoding begins at the key frame at or before it",
    )  # fmt: skip
    group.add_argument("--frames", type=int, metavar="N", help="number of frames to write; default: all that follow")


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
    refuse_for_pictures(options, ("first", "frames"))
    return False


def run_decompress_sequence(options: argparse.Namespace) -> int:
    """Reconstruct a video, or a folder of frames."""
    if len(options.sources) > 1:
        raise ConfigError(f"{len(options.sources)} sources: one sequence at a time becomes a video")
    refuse_jobs(options)
    source = options.sources[0]
    target = _decompressed(source, options.out)
    if is_left(target, options):
        return 0
    file = _read_sequence(source)
    numbers = _numbers(source, file, options)
    check_count(file.header.height * file.header.width, options.max_pixels)
    verify = verify_of(options)
    if options.codec:
        codec = load_sequence_codec(options.codec, verify=verify)
    else:
        codec = sequence_codec_of(file.header, verify=verify)
    pictures = tqdm(
        _pictures(source, file, codec, numbers),
        total=len(numbers), unit="frame", disable=options.quiet or options.json or None,
    )  # fmt: skip
    if is_video(str(target)):
        with new_file(target, options) as stream:
            fps = file.header.frames_per_second or DEFAULT_FPS
            count = VideoFile(stream, target.suffix.lower(), fps).write(pictures)
    else:
        count = _write_folder(target, pictures, numbers.start, force=options.force)
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
        ConfigError: neither a video nor a folder is named; a folder whose name has an ending has a slash behind it.
    """
    if out == STANDARD or (out is None and source == STANDARD):
        raise ConfigError("standard output takes no sequence: name a video, or a folder for its frames (option -o)")
    target = Path(out or f"{source}.mp4")
    if target.suffix and not is_video(str(target)) and not is_folder_name(str(out)):
        raise ConfigError(
            f"{out} is no name of a video: name one such as NAME.mp4, or a folder for the frames, such as FOLDER/ "
            "(option -o)"
        )
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


def _write_folder(folder: Path, frames: Iterable[ImageArray], first: int, *, force: bool) -> int:
    """Write frames as PNG files, which have the numbers of the frames from `first` on, and return how many there are.

    Raises:
        ConfigError: the folder holds files already, and `force` is not set.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not force):
        raise ConfigError(f"{folder} is there already: give another name (option -o), or write into it with --force")
    count = 0
    for count, picture in enumerate(frames, start=1):
        write_image(folder / f"{first + count - 1:06d}.png", picture)
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
