"""Where pictures come from: files, videos, cameras, and what comes through a pipe."""

from __future__ import annotations

import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gosvae.errors import ImageError
from gosvae.images import write_image
from gosvae.sender.sources import as_jpeg, open_source, read_pictures, resized, video_fps
from gosvae.tensors import ImageArray
from tiny import streets

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
        ([str(tmp_path / "empty")], "no images in the folder"),
        ([], "no source"),
        (["-", str(folder)], "only source"),
        (["camera:0"], "expected camera:FORMAT:DEVICE"),
    ):
        with pytest.raises(ImageError, match=words):
            open_source(names, NOTHING)
    (folder / "3.png").write_text("no picture")
    images = open_source([str(folder)], NOTHING)
    for _ in range(3):
        next(images)
    with pytest.raises(ImageError, match=r"3\.png"):
        next(images)


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


def test_videos(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="needs gosvae[video]")
    path = tmp_path / "drive.mkv"
    with av.open(path, "w") as container:
        coded = container.add_stream("ffv1", rate=12, options={"level": "3"})
        coded.width, coded.height, coded.pix_fmt = 96, 64, "bgr0"
        for n in range(5):
            for packet in coded.encode(av.VideoFrame.from_ndarray(picture(n), format="rgb24")):
                container.mux(packet)
        container.mux(coded.encode())
    assert video_fps(str(path)) == 12
    images = list(open_source([str(path)], NOTHING))
    assert len(images) == 5
    for n, image in enumerate(images):
        np.testing.assert_array_equal(image, picture(n))
    (tmp_path / "not.mp4").write_text("no video")
    for name in ("not.mp4", "none.mp4"):
        with pytest.raises(ImageError, match="cannot open"):
            open_source([str(tmp_path / name)], NOTHING)


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
