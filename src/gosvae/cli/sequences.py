"""`gosvae compress`, `decompress` and `info` for videos and other sequences of frames, in `.gosv` files."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from gosvae.cli.options import parse_size
from gosvae.cli.targets import STANDARD
from gosvae.codecs.announced import check_count
from gosvae.codecs.registry import load_sequence_codec, sequence_codec_of
from gosvae.codecs.sequence.encoder import SequenceOptions
from gosvae.codecs.sequence.file import SUFFIX, SequenceFile, SequenceWriter, frame_modes
from gosvae.codecs.sequence.format import SessionHeader, is_session
from gosvae.codecs.sequence.rate import RateControl
from gosvae.errors import ConfigError, ForeignStreamError, ImageError, WriteError
from gosvae.images import write_image
from gosvae.sender.sources import is_video, open_source, resized, video_fps
from gosvae.sender.video import VideoFile
from gosvae.tensors import ImageArray
from gosvae.units import kib

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
        "--max-age-ms", type=float, default=250.0, metavar="MS",
        help="with --kbps: longest time between two frames that are kept",
    )  # fmt: skip
    group.add_argument(
        "--key-interval", type=int, metavar="N",
        help="a frame that decoding can begin at every N frames; default: the first one only",
    )  # fmt: skip
    group.add_argument("--resize", type=parse_size, metavar="HxW", help="resize the frames to this size first")


def is_sequence_job(options: argparse.Namespace) -> bool:
    """Return whether the sources of `gosvae compress` become one sequence rather than pictures of their own."""
    named = str(options.out or "").endswith(SUFFIX)
    return named or options.fps is not None or any(is_video(source) for source in options.sources)


def run_compress_sequence(options: argparse.Namespace) -> int:
    """Compress a video, or a folder of frames, to one file."""
    if len(options.sources) > 1:
        raise ConfigError(f"{len(options.sources)} sources: one video, or one folder of frames, becomes a sequence")
    if options.kbps is not None and options.kib is not None:
        raise ConfigError("both a size of each frame and a rate are given: leave out one of them", argument="kbps")
    source = options.sources[0]
    target = Path(options.out or Path(source).with_suffix(SUFFIX))
    fps = options.fps or (video_fps(source) if is_video(source) else None) or _DEFAULT_FPS
    chosen = SequenceOptions(
        effort=max(0, options.effort - 1), key_interval=options.key_interval, slices=options.slices,
        layout=options.slice_layout,
    )  # fmt: skip
    codec = load_sequence_codec(options.codec, options=chosen)
    pictures = (
        picture if options.resize is None else resized(picture, *options.resize)
        for picture in open_source([source], BytesIO())
    )
    first = next(pictures, None)
    if first is None:
        raise ImageError(f"{source} has no frames")
    encoder = codec.encoder(*first.shape[:2], frames_per_second=fps)
    control = None if options.kbps is None else RateControl(options.kbps, fps, options.max_age_ms)
    budget = None if options.kib is None else round(1024 * options.kib)
    sent = 0
    with _new_file(target, force=options.force) as stream, SequenceWriter(stream) as writer:
        for picture in tqdm(chain([first], pictures), unit="frame", disable=options.quiet or options.json or None):
            if control is not None and not control.wants():
                writer.hold()
                continue
            if control is not None:
                encoder.level = control.level
            data = encoder.encode(picture, budget_bytes=budget)
            writer.write(data)
            sent += 1
            if control is not None:
                control.sent(len(data), key=is_session(data))
    facts = {
        "source": source, "target": str(target), "width": encoder.header.width, "height": encoder.header.height,
        "frames": writer.frames, "frames_kept": sent, "bytes": writer.bytes_written,
        "kbps": writer.bytes_written / 125.0 * fps / writer.frames, "codec": codec.name,
    }  # fmt: skip
    if options.json:
        print(json.dumps(facts))
    elif not options.quiet:
        print(
            f"{source} -> {target}: {facts['width']}x{facts['height']}, {sent} of {writer.frames} frames, "
            f"{kib(writer.bytes_written):.1f} KiB, {facts['kbps']:.1f} kbit/s ({codec.name})"
        )
    return 0


@contextmanager
def _new_file(target: Path, *, force: bool) -> Iterator[BinaryIO]:
    """Yield a stream for a file that is put in its place when all is written.

    Raises:
        ConfigError: the file is there already, and `force` is not set.
        WriteError: it cannot be written.
    """
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
    """Return whether a source of `gosvae decompress` or `gosvae info` is the file of a sequence."""
    path = Path(source)
    if source == STANDARD or not path.is_file():
        return False
    with path.open("rb") as stream:
        return is_session(stream.read(4))


def run_decompress_sequence(options: argparse.Namespace) -> int:
    """Reconstruct a video, or a folder of frames."""
    if len(options.sources) > 1:
        raise ConfigError(f"{len(options.sources)} sources: one sequence at a time becomes a video")
    source = options.sources[0]
    file = SequenceFile.read(Path(source))
    check_count(file.header.height * file.header.width, options.max_pixels)
    codec = load_sequence_codec(options.codec) if options.codec else sequence_codec_of(file.header)
    target = Path(options.out or f"{source}.mp4")
    decoder = codec.decoder()

    def pictures() -> Iterator[ImageArray]:
        picture: ImageArray | None = None
        for _, data in file.frames():
            picture = decoder.decode(data) if data else picture
            if picture is not None:
                yield picture

    frames = tqdm(pictures(), total=len(file), unit="frame", disable=options.quiet or options.json or None)
    if is_video(str(target)):
        with _new_file(target, force=options.force) as stream:
            fps = file.header.frames_per_second or _DEFAULT_FPS
            count = VideoFile(stream, target.suffix.lower(), fps).write(frames)
    else:
        count = _write_folder(target, frames, force=options.force)
    facts: dict[str, Any] = {"source": source, "target": str(target), "frames": count, "complete": file.complete}
    if options.json:
        print(json.dumps(facts))
    elif not options.quiet:
        cut = "" if file.complete else "; the file was cut"
        print(f"{source} -> {target}: {file.header.width}x{file.header.height}, {count} frames{cut} ({codec.name})")
    return 0


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


def describe_sequence(path: Path) -> tuple[dict[str, str], dict[str, object]]:
    """Return the lines of `gosvae info` on a sequence, and the values that stand in JSON in place of some of them."""
    data = path.read_bytes()
    file = SequenceFile(data)
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
