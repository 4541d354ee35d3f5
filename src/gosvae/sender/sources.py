"""Sources of a sender's pictures: files, folders, a video, a camera, or standard input.

Axis legend: H and W pixels, 3 RGB channels.
"""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from gosvae.errors import ImageError, MissingDependencyError
from gosvae.images import MAX_PIXELS, read_image
from gosvae.tensors import ImageArray
from gosvae.walk import find_images, printable

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".y4m", ".gif"})
MAX_PICTURE_BYTES = 2**28
"""Greatest number of bytes of a picture on the standard input."""
MAX_DAMAGED_FRAMES = 25
"""Number of damaged frames in a row at which reading a video or camera ends."""
CAMERA = "camera:"
_LENGTH = struct.Struct(">I")
_PPM_FIELD_CHARACTERS = 16


def open_source(names: Sequence[str], stdin: BinaryIO) -> Iterator[ImageArray]:
    """Return an iterator over pictures, uint8 (H, W, 3), that reads each one when it is asked for.

    After an `ImageError` for a file, the iterator continues with the next file. Damaged frames of a video or camera are
    skipped, and their number is logged. Frames are turned upright by the rotation that the video gives.

    Args:
        names: names of image files and of folders, whose images are read as `find_images` lists them; or one video
            file, one `camera:FORMAT:DEVICE` such as `camera:v4l2:/dev/video0` (with a format of FFmpeg), or `-`.
        stdin: standard input, which `-` reads; see `read_pictures`.

    Raises:
        ImageError: a source does not exist. The iterator raises it for a file that is not a picture, and for
            `MAX_DAMAGED_FRAMES` damaged frames in a row of a video or camera.
        MissingDependencyError: PyAV is needed and not installed.
    """
    if not names:
        raise ImageError("no source: name images, a folder, a video, camera:FORMAT:DEVICE, or - for standard input")
    special = [name for name in names if name == "-" or name.startswith(CAMERA) or is_video(name)]
    if special and len(names) > 1:
        raise ImageError(f"{special[0]} must be the only source: {len(names)} are given")
    if names[0] == "-":
        return read_pictures(stdin)
    if names[0].startswith(CAMERA):
        form, separator, device = names[0].removeprefix(CAMERA).partition(":")
        if not separator:
            raise ImageError(f"{names[0]}: expected camera:FORMAT:DEVICE such as camera:v4l2:/dev/video0")
        return _camera(_open_video(device, form))
    if special:
        return VideoFrames(_open_video(names[0], None))
    return PictureFiles(_image_files(names))


def is_video(name: str) -> bool:
    """Return whether the ending of a file's name is that of a video."""
    return Path(name).suffix.lower() in VIDEO_SUFFIXES


def video_fps(name: str) -> float | None:
    """Return the frame rate of a video file; None if the file does not give it. Errors are those of `open_source`."""
    with _open_video(name, None) as container:
        rate = container.streams.video[0].average_rate
        return float(rate) if rate else None


def _image_files(names: Sequence[str]) -> list[Path]:
    files: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            found = find_images(path)
            if found.left_out:
                log.warning("%s", found.note())
            files += found.files
        elif path.is_file():
            files.append(path)
        else:
            raise ImageError(f"cannot open {printable(path)}: no such file or folder")
    return files


class PictureFiles(Iterator[ImageArray]):
    """Iterator over the pictures of files, which can be continued after an `ImageError` for one file."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = iter(files)

    def __next__(self) -> ImageArray:
        return read_image(next(self._files))


def read_pictures(stream: BinaryIO) -> Iterator[ImageArray]:
    """Yield the pictures that arrive one after the other through a pipe.

    They have one of two forms, which their first bytes show: binary PPM pictures (`P6`, 8 bits, as
    `ffmpeg -f image2pipe -c:v ppm -` writes them), or image files of any format, each preceded by its length (4 bytes,
    big-endian).

    Raises:
        ImageError: the bytes have neither form or end inside a picture, or a picture is too large.
    """
    while True:
        head = stream.read(4)
        if not head:
            return
        if head[:2] == b"P6":
            yield _read_ppm(stream, head[2:])
            continue
        if len(head) < 4:
            raise ImageError("standard input ends inside the length of a picture")
        (n_bytes,) = _LENGTH.unpack(head)
        if not 0 < n_bytes <= MAX_PICTURE_BYTES:
            raise ImageError(
                f"standard input has neither P6 pictures nor files behind their lengths: it begins with {head.hex(' ')}"
            )
        yield read_image(BytesIO(_exactly(stream, n_bytes)))


def _exactly(stream: BinaryIO, n_bytes: int) -> bytes:
    data = bytearray()
    while len(data) < n_bytes:
        piece = stream.read(min(n_bytes - len(data), 2**20))
        if not piece:
            raise ImageError(f"standard input ends {n_bytes - len(data)} bytes before the end of a picture")
        data += piece
    return bytes(data)


def _read_ppm(stream: BinaryIO, begun: bytes) -> ImageArray:
    """Return a binary PPM picture from the bytes after `P6`, of which `begun` is read already."""
    pushed = bytearray(begun)
    numbers: list[int] = []

    def character() -> bytes:
        if pushed:
            first = bytes(pushed[:1])
            del pushed[:1]
            return first
        return _exactly(stream, 1)

    while len(numbers) < 3:
        char = character()
        while char.isspace() or char == b"#":
            if char == b"#":  # a comment, up to the end of its line
                while character() != b"\n":
                    pass
            char = character()
        field = b""
        while char.isdigit() and len(field) < _PPM_FIELD_CHARACTERS:
            field, char = field + char, character()
        if not field or not char.isspace():
            raise ImageError("standard input has a P6 picture with a damaged head")
        numbers.append(int(field))
    width, height, most = numbers
    if most != 255 or not 0 < width * height <= MAX_PIXELS:
        raise ImageError(f"a P6 picture of {width}x{height} pixels up to {most}: expected 8 bits, {MAX_PIXELS} pixels")
    rest = bytes(pushed)
    data = rest + _exactly(stream, 3 * width * height - len(rest))
    return np.frombuffer(data, np.uint8).reshape(height, width, 3).copy()


def _open_video(name: str, form: str | None) -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(f"videos and cameras need PyAV ({error}): pip install 'gosvae[video]'") from None
    try:
        container = av.open(name, format=form)
    except (OSError, ValueError, av.FFmpegError) as error:
        raise ImageError(f"cannot open {printable(name)}: {_reason(error)}") from None
    if not container.streams.video:
        container.close()
        raise ImageError(f"{printable(name)} has no pictures in it")
    return container


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


class _Damage:
    """Counter of the damaged frames of a video or camera."""

    def __init__(self, name: str) -> None:
        self._name = printable(name)
        self.total = self._in_a_row = 0

    def step_over(self, reason: str) -> None:
        """Count a damaged frame and tell of the 1st, 10th, 100th and so on.

        Raises:
            ImageError: `MAX_DAMAGED_FRAMES` are damaged in a row.
        """
        self.total, self._in_a_row = self.total + 1, self._in_a_row + 1
        if self._in_a_row >= MAX_DAMAGED_FRAMES:
            raise ImageError(f"{self._name} is damaged: {self._in_a_row} frames in a row, the last one: {reason}")
        if str(self.total).strip("0") == "1":
            log.warning("%s: damaged frame skipped (%s), %d so far", self._name, reason, self.total)

    def intact(self) -> None:
        """End a row of damaged frames."""
        self._in_a_row = 0

    def tell(self) -> None:
        """Tell the number of damaged frames, if there are any."""
        if self.total:
            log.warning("%s: damaged frames skipped in all: %d", self._name, self.total)


class VideoFrames(Iterator[ImageArray]):
    """Iterator over the upright pictures of a video; damaged frames are skipped."""

    def __init__(self, container: Any) -> None:
        self._damage = _Damage(container.name)
        self._frames = _frames(container, self._damage)

    def __next__(self) -> ImageArray:
        return next(self._frames)

    @property
    def damaged(self) -> int:
        """Number of damaged frames so far."""
        return self._damage.total


def _frames(container: Any, damage: _Damage) -> Iterator[ImageArray]:
    """Yield the upright pictures of a video or camera; damaged frames are stepped over."""
    from av import FFmpegError

    errors = (OSError, ValueError, FFmpegError)

    def packets() -> Iterator[Any]:
        while True:
            try:
                yield from container.demux(video=0)
            except errors as error:
                damage.step_over(_reason(error))
            else:
                return

    with container:
        for packet in packets():
            try:
                frames = packet.decode()
                pictures = [_upright(frame) for frame in frames if not frame.is_corrupt]
            except errors as error:
                damage.step_over(_reason(error))
                continue
            for _ in frames[len(pictures) :]:
                damage.step_over("the decoder marks it as corrupt")
            if pictures:
                damage.intact()
            yield from pictures
    damage.tell()


def _upright(frame: Any) -> ImageArray:
    """Return a frame as players show it: turned and mirrored by its display matrix, to the nearest quarter turn."""
    image_uint8_HW3: ImageArray = frame.to_ndarray(format="rgb24")
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image_uint8_HW3
    # A pixel at (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32).tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        image_uint8_HW3 = image_uint8_HW3.transpose(1, 0, 2)
        a, d = c, b
    return np.ascontiguousarray(image_uint8_HW3[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


class _Newest:
    """Reader of a camera, in a thread of its own, that keeps the newest picture and discards older ones."""

    def __init__(self, frames: Iterator[ImageArray]) -> None:
        self._frames = frames
        self._changed = threading.Condition()
        self._picture: ImageArray | None = None
        self._error: Exception | None = None
        self._ended = False
        threading.Thread(target=self._read, name="gosvae-camera", daemon=True).start()

    def _read(self) -> None:
        try:
            for picture in self._frames:
                with self._changed:
                    self._picture = picture
                    self._changed.notify()
                    if self._ended:
                        return
        except Exception as error:  # raised by `pictures`
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()

    def pictures(self) -> Iterator[ImageArray]:
        """Yield the newest picture each time, no picture twice."""
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._picture is not None or self._ended)
                    picture, self._picture = self._picture, None
                if picture is None:
                    if self._error is not None:
                        raise self._error
                    return
                yield picture
        finally:
            self._ended = True


def _camera(container: Any) -> Iterator[ImageArray]:
    return _Newest(_frames(container, _Damage(container.name))).pictures()


def resized(image_uint8_HW3: ImageArray, height: int, width: int) -> ImageArray:
    """Return the picture, uint8 (H, W, 3), resized to a height and width in pixels by Lanczos's filter."""
    if image_uint8_HW3.shape[:2] == (height, width):
        return image_uint8_HW3
    return np.asarray(Image.fromarray(image_uint8_HW3).resize((width, height), Image.Resampling.LANCZOS))


def as_jpeg(image_uint8_HW3: ImageArray, quality: int = 75) -> bytes:
    """Return the bytes of the picture, uint8 (H, W, 3), as a JPEG file; empty if a side is too long for JPEG."""
    stream = BytesIO()
    with suppress(ValueError):  # a side of more than 65535 pixels
        Image.fromarray(image_uint8_HW3).save(stream, format="JPEG", quality=quality)
    return stream.getvalue()
