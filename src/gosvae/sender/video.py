"""Writer of video files."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Any, BinaryIO

from gosvae.errors import ImageError, MissingDependencyError
from gosvae.tensors import ImageArray

_FORMATS = {".mp4": "mp4", ".mkv": "matroska", ".mov": "mov", ".avi": "avi", ".webm": "webm", ".m4v": "mp4"}
_CODECS = {"webm": ("libvpx-vp9", {"crf": "20", "b": "0"})}
_DEFAULT_CODEC = ("libx264", {"crf": "16", "preset": "veryfast"})


class VideoFile:
    """Writer of a video of high quality, for people: H.264, or VP9 in a WebM file.

    Args:
        stream: binary stream that the file is written to; it must be readable and seekable.
        suffix: ending of the name of the file, such as `.mp4`.
        frames_per_second: rate at which the frames are shown.

    Raises:
        ImageError: files with this ending cannot be written.
        MissingDependencyError: PyAV is not installed.
    """

    def __init__(self, stream: BinaryIO, suffix: str, frames_per_second: float) -> None:
        try:
            import av
        except ImportError as error:
            raise MissingDependencyError(f"videos need PyAV ({error}): pip install 'gosvae[video]'") from None
        if suffix not in _FORMATS:
            raise ImageError(f"videos are written as {', '.join(sorted(_FORMATS))}, not as {suffix}")
        form = _FORMATS[suffix]
        self._container: Any = av.open(stream, "w", format=form)
        name, options = _CODECS.get(form, _DEFAULT_CODEC)
        rate = Fraction(frames_per_second).limit_denominator(1001)
        self._video: Any = self._container.add_stream(name, rate=rate, options=options)
        self._frame_type = av.VideoFrame

    def write(self, frames: Iterable[ImageArray]) -> int:
        """Write all frames, uint8 (H, W, 3), end the file, and return their number.

        If the height or width is odd, the last row or column is cut off.

        Raises:
            ImageError: a side has less than 2 pixels.
        """
        count = 0
        with self._container as container:
            for count, frame in enumerate(frames, start=1):
                height, width = (side - side % 2 for side in frame.shape[:2])
                if not height or not width:
                    raise ImageError(
                        f"{frame.shape[1]}x{frame.shape[0]} pixels are too few for a video: take a folder of frames"
                    )
                if count == 1:
                    self._video.width, self._video.height, self._video.pix_fmt = width, height, "yuv420p"
                made = self._frame_type.from_ndarray(frame[:height, :width].copy(), format="rgb24")
                container.mux(self._video.encode(made))
            if count:
                container.mux(self._video.encode(None))
        return count
