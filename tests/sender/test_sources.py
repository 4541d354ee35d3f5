"""Where pictures come from: files, videos, cameras, and what comes through a pipe."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gosvae.cli.main import main
from gosvae.codecs.checkpoint import save_codec
from gosvae.errors import ImageError
from gosvae.images import write_image
from gosvae.sender.sources import (
    MAX_DAMAGED_FRAMES,
    VideoFrames,
    as_jpeg,
    open_source,
    read_pictures,
    resized,
    video_fps,
)
from gosvae.tensors import ImageArray
from tiny import checkpoint, streets

NOTHING = BytesIO()


def picture(n: int) -> ImageArray:
    return streets()[n % 4].image_uint8_HW3


def png(image: ImageArray) -> bytes:
    stream = BytesIO()
    Image.fromarray(image).save(stream, format="PNG")
    return stream.getvalue()


def ppm(image: ImageArray, comment: bytes = b"") -> bytes:
    height, width = image.shape[:2]
    return b"P6\n" + comment + f"{width} {height}\n255\n".encode() + image.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for n in (2, 0, 1):
        write_image(tmp_path / "pictures" / f"{n}.png", picture(n))
    (tmp_path / "pictures" / "notes.txt").write_text("no picture")
    return tmp_path / "pictures"


def test_folders_and_files_come_in_order(folder: Path) -> None:
    images = list(open_source([str(folder), str(folder / "0.png")], NOTHING))
    assert len(images) == 4
    for image, n in zip(images, (0, 1, 2, 0), strict=True):
        np.testing.assert_array_equal(image, picture(n))


def test_what_is_not_there_is_refused_at_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for names, words in (
        ([str(tmp_path / "none")], "no such file"),
        ([str(tmp_path / "empty")], "no images in"),
        ([], "no source"),
        (["-", str(folder)], "only source"),
        (["camera:0"], "expected camera:FORMAT:DEVICE"),
    ):
        with pytest.raises(ImageError, match=words):
            open_source(names, NOTHING)
    (folder / "3.png").write_text("no picture")
    (folder / "4.png").write_bytes(png(picture(1)))
    images = open_source([str(folder)], NOTHING)
    for _ in range(3):
        next(images)
    with pytest.raises(ImageError, match=r"3\.png"):
        next(images)
    np.testing.assert_array_equal(next(images), picture(1))


def test_pictures_through_a_pipe() -> None:
    framed = b"".join(len(data).to_bytes(4, "big") + data for data in map(png, map(picture, range(3))))
    plain = ppm(picture(0)) + ppm(picture(1), b"# made by hand\n#\n") + ppm(picture(2))
    for data in (framed, plain, plain + framed):
        images = list(read_pictures(BytesIO(data)))
        assert len(images) in (3, 6)
        for n, image in enumerate(images):
            np.testing.assert_array_equal(image, picture(n % 3))
    assert list(read_pictures(BytesIO())) == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0\0", "ends inside the length"),
        (b"\0\0\0\x09abc", "ends 6 bytes before"),
        (b"\0\0\0\0", "neither"),
        (b"\xff\xd8\xff\xe0 a JPEG without its length", "neither"),
        (b"\0\0\0\x04text", "the image stream"),
        (b"P6\n2 2\n65535\n" + bytes(24), "expected 8 bits"),
        (b"P6\n0 2\n255\n", "expected 8 bits"),
        (b"P6\n99999999 99999999\n255\n", "pixels"),
        (b"P6\n2 2\n255\n" + bytes(5), "ends 7 bytes before"),
        (b"P6\nx", "damaged head"),
        (b"P6\n" + b"1" * 30, "damaged head"),
    ],
)
def test_a_pipe_of_something_else_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        list(read_pictures(BytesIO(data)))


@given(st.binary(max_size=80), st.sampled_from([b"", b"P6\n", b"P6 3 3 255 ", b"\0\0\0\x10"]))
def test_noise_through_a_pipe_is_refused_in_one_line(noise: bytes, begin: bytes) -> None:
    try:
        images = list(read_pictures(BytesIO(begin + noise)))
    except ImageError as error:
        lines = str(error).splitlines()
    else:
        lines, begin = ["read"], begin + noise
        assert len(images) <= len(begin)
    assert len(lines) == 1


def write_video(path: Path, codec: str, pixel_format: str, count: int, options: dict[str, str]) -> None:
    import av

    with av.open(path, "w") as container:
        coded = container.add_stream(codec, rate=12, options=options)
        coded.width, coded.height, coded.pix_fmt = 96, 64, pixel_format
        for n in range(count):
            for packet in coded.encode(av.VideoFrame.from_ndarray(picture(n), format="rgb24")):
                container.mux(packet)
        container.mux(coded.encode())


def test_videos(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="needs gosvae[video]")
    path = tmp_path / "drive.mkv"
    write_video(path, "ffv1", "bgr0", 5, {"level": "3"})
    assert video_fps(str(path)) == 12
    images = list(open_source([str(path)], NOTHING))
    assert len(images) == 5
    for n, image in enumerate(images):
        np.testing.assert_array_equal(image, picture(n))
    (tmp_path / "not.mp4").write_text("no video")
    for name in ("not.mp4", "none.mp4"):
        with pytest.raises(ImageError, match="cannot open"):
            open_source([str(tmp_path / name)], NOTHING)


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), lambda stored: stored),
        ((0, 1, -1, 0), lambda stored: np.rot90(stored, -1)),  # a phone that is held upright: a quarter turn clockwise
        ((-1, 0, 0, -1), lambda stored: np.rot90(stored, 2)),
        ((0, -1, 1, 0), lambda stored: np.rot90(stored, 1)),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), lambda stored: stored.transpose(1, 0, 2)),
    ],
)
def test_videos_are_turned_as_their_display_matrix_says(
    tmp_path: Path, matrix: tuple[int, int, int, int], shown: Callable[[ImageArray], ImageArray]
) -> None:
    pytest.importorskip("av", reason="needs gosvae[video]")
    path = tmp_path / "phone.mp4"
    write_video(path, "mpeg4", "yuv420p", 1, {})
    (stored,) = open_source([str(path)], NOTHING)
    a, b, c, d = (value << 16 for value in matrix)
    data = path.read_bytes()
    at = data.index(b"tkhd") + 44  # the matrix of the track's header (ISO 14496-12, 8.3.2)
    assert struct.unpack(">9i", data[at : at + 36]) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[at + 36 :])
    (turned,) = open_source([str(path)], NOTHING)
    np.testing.assert_array_equal(turned, shown(stored))


def damaged_video(path: Path, damaged: range, count: int) -> None:
    """A video of JPEG frames, some of which hold noise."""
    write_video(path, "mjpeg", "yuvj420p", count, {})
    data = bytearray(path.read_bytes())
    starts = [at for at in range(len(data)) if data.startswith(b"\xff\xd8\xff", at)]
    assert len(starts) == count
    for n in damaged:
        data[starts[n] : starts[n] + 600] = bytes(600)
    path.write_bytes(data)


def test_a_damaged_frame_is_stepped_over_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("av", reason="needs gosvae[video]")
    path = tmp_path / "drive.avi"
    damaged_video(path, range(3, 5), 8)
    source = open_source([str(path)], NOTHING)
    images = list(source)
    assert len(images) == 6
    assert isinstance(source, VideoFrames)
    assert source.damaged == 2
    for image, n in zip(images, (0, 1, 2, 5, 6, 7), strict=True):
        assert np.abs(image.astype(int) - picture(n)).mean() < 12
    assert "damaged frame skipped" in caplog.text
    assert "damaged frames skipped in all: 2" in caplog.text


def test_a_video_with_damaged_frames_has_an_exit_status_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av", reason="needs gosvae[video]")
    path = tmp_path / "drive.avi"
    save_codec(tmp_path / "tiny", checkpoint())
    codec = str(tmp_path / "tiny")
    send = ["send", str(path), "--codec", codec, "--udp", "127.0.0.1:1", "--fps", "1000", "--quiet"]
    damaged_video(path, range(0), 4)
    assert main(send) == 0
    damaged_video(path, range(2, 3), 4)
    assert main(send) == 1
    said = capsys.readouterr().out
    assert "3 frames in" in said
    assert "1 damaged pictures skipped" in said


def test_many_damaged_frames_in_a_row_end_a_video(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="needs gosvae[video]")
    path = tmp_path / "drive.avi"
    damaged_video(path, range(2, 2 + MAX_DAMAGED_FRAMES), 4 + MAX_DAMAGED_FRAMES)
    images = open_source([str(path)], NOTHING)
    assert len([next(images), next(images)]) == 2
    with pytest.raises(ImageError, match=f"{MAX_DAMAGED_FRAMES} frames in a row"):
        next(images)


@pytest.mark.parametrize("name", ["FFmpegError", "ExitError", "UndefinedError", "HTTPNotFoundError", "BugError"])
def test_every_error_of_ffmpeg_is_one_of_ours(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    av = pytest.importorskip("av", reason="needs gosvae[video]")

    def fails(*_: object, **__: object) -> None:
        raise getattr(av.error, name)(1, "what FFmpeg says")

    monkeypatch.setattr(av, "open", fails)
    for call in (lambda: open_source(["a.mp4"], NOTHING), lambda: video_fps("a.mp4")):
        with pytest.raises(ImageError, match=r"cannot open a\.mp4: what FFmpeg says"):
            call()


def test_a_camera_gives_its_newest_picture() -> None:
    pytest.importorskip("av", reason="needs gosvae[video]")
    # FFmpeg's picture generator is a device as cameras are; it is read as fast as it can be.
    images = open_source(["camera:lavfi:testsrc2=size=64x48:rate=1000:duration=100000"], NOTHING)
    first = next(images)
    assert first.shape == (48, 64, 3)
    time.sleep(0.3)
    assert sum(1 for _ in zip(range(3), images, strict=False)) == 3
    with pytest.raises(ImageError, match="cannot open"):
        open_source(["camera:v4l2:/dev/no-such-camera"], NOTHING)


def test_videos_need_a_package_that_may_be_absent() -> None:
    program = (
        "import sys; sys.modules['av'] = None\n"
        "from gosvae.sender.sources import open_source\n"
        "from gosvae.errors import MissingDependencyError\n"
        "try:\n    open_source(['x.mp4'], sys.stdin.buffer)\n"
        "except MissingDependencyError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'gosvae[video]'" in done.stdout


def test_pictures_are_resized_and_shown() -> None:
    image = resized(picture(0), 32, 40)
    assert image.shape == (32, 40, 3)
    assert abs(image.mean() - picture(0).mean()) < 3
    assert resized(image, 32, 40) is image
    with Image.open(BytesIO(as_jpeg(image))) as shown:
        assert (shown.format, shown.size) == ("JPEG", (40, 32))
