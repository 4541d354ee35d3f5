"""Every kind of image file is read correctly or refused in one line."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gosvae.errors import GosvaeError, ImageError, ShapeError, WriteError
from gosvae.images import IMAGE_SUFFIXES, MAX_PIXELS, read_image, write_image
from gosvae.seeding import numpy_generator
from gosvae.tensors import ImageArray


def encode(image: Image.Image, image_format: str = "PNG", **options: object) -> io.BytesIO:
    stream = io.BytesIO()
    image.save(stream, format=image_format, **options)
    return stream


def png_of_size(width: int, height: int) -> io.BytesIO:
    """A PNG file that claims a size and holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b""))
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b""))


def grey_ramp() -> np.ndarray:
    return np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)


def assert_one_line(error: pytest.ExceptionInfo[GosvaeError], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (37, 51)])
@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_written_files_read_back(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    noise = numpy_generator(0, suffix).integers(0, 256, (*size, 3), dtype=np.uint8)
    lossless = suffix not in {".jpg", ".jpeg", ".avif"}
    image = noise if lossless else np.full_like(noise, 130)
    path = tmp_path / f"image{suffix.upper()}"
    write_image(path, image)
    read = read_image(path)
    assert read.shape == image.shape
    assert np.abs(read.astype(int) - image).max() <= (0 if lossless else 2)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P"])
def test_opaque_modes_keep_their_colours(mode: str) -> None:
    source = Image.fromarray(grey_ramp()).convert(mode)
    assert np.array_equal(read_image(encode(source)), np.array(source.convert("RGB")))


def test_palette_colours_are_looked_up() -> None:
    source = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8), mode="P")
    source.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    assert read_image(encode(source)).tolist() == [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 255, 0]]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_lie_over_white(mode: str) -> None:
    source = Image.new(mode, (3, 1), (40,) * (len(mode) - 1) + (255,))
    source.putpixel((1, 0), (40,) * (len(mode) - 1) + (0,))
    source.putpixel((2, 0), (40,) * (len(mode) - 1) + (128,))
    grey = read_image(encode(source))[0, :, 0].astype(int)
    assert grey[0] == 40
    assert grey[1] == 255
    assert abs(grey[2] - (40 * 128 + 255 * 127) / 255) <= 1


@pytest.mark.parametrize(("mode", "transparency"), [("L", 40), ("P", 0), ("P", bytes([0, 255])), ("RGB", (40, 40, 40))])
def test_a_transparent_colour_lies_over_white(mode: str, transparency: object) -> None:
    grey = np.array([[40, 90]], dtype=np.uint8)
    if mode == "P":
        source = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), mode="P")
        source.putpalette([40, 40, 40, 90, 90, 90])
    else:
        source = Image.fromarray(grey).convert(mode)
    assert read_image(encode(source, transparency=transparency))[0, :, 0].tolist() == [255, 90]


@pytest.mark.parametrize(("image_format", "mode"), [("PNG", "I;16"), ("TIFF", "I;16"), ("PPM", "I")])
def test_every_16_bit_level_is_scaled_to_the_nearest_of_256(image_format: str, mode: str) -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    stream = encode(Image.fromarray(levels), image_format)
    assert Image.open(stream).mode == mode
    expected = np.rint(levels / 257).astype(np.uint8)
    assert np.array_equal(read_image(stream), np.stack([expected] * 3, axis=-1))


def test_big_endian_16_bit_tiff() -> None:
    stream = encode(Image.frombytes("I;16B", (2, 1), struct.pack(">HH", 257 * 7, 65535)), "TIFF")
    assert read_image(stream)[0, :, 0].tolist() == [7, 255]


def test_16_bit_colour_png() -> None:
    raw = b"\x00" + struct.pack(">6H", 0, 32768, 65535, 257 * 9, 0, 257)
    stream = png_of_size(2, 1).getvalue().replace(struct.pack(">IIBB", 2, 1, 8, 2), struct.pack(">IIBB", 2, 1, 16, 2))
    header = stream[12:29]
    data = zlib.compress(raw)
    body = b"IDAT" + data
    file = stream[:12] + header + struct.pack(">I", zlib.crc32(header)) + struct.pack(">I", len(data)) + body
    read = read_image(io.BytesIO(file + struct.pack(">I", zlib.crc32(body)) + stream[-12:]))
    assert np.abs(read[0].astype(int) - [[0, 128, 255], [9, 0, 1]]).max() <= 1


@pytest.mark.parametrize("values", [np.array([[-1, 5]], np.int32), np.array([[70000, 5]], np.int32)])
def test_32_bit_values_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ImageError, match="32-bit or negative") as error:
        read_image(encode(Image.fromarray(values), "TIFF"))
    assert_one_line(error, "convert")


def test_floating_point_is_refused() -> None:
    with pytest.raises(ImageError, match="floating-point") as error:
        read_image(encode(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"))
    assert_one_line(error, "convert")


@pytest.mark.parametrize("image_format", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(image_format: str) -> None:
    source = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan, all magenta and yellow: red
    pixel = read_image(encode(source, image_format))[8, 8].astype(int)
    assert np.abs(pixel - [255, 0, 0]).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = np.zeros((2, 3, 3), dtype=np.uint8)
    upright[0, 0], upright[0, 2] = (255, 0, 0), (0, 255, 0)
    # How a camera stores an upright scene (EXIF 2.3, tag 0x0112: the sides where row 0 and column 0 lie).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = encode(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    assert np.array_equal(read_image(stream), upright)


@pytest.mark.parametrize(
    "exif", [b"Exif\x00\x00garbage", b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b"Exif\x00\x00MM\x00*"]
)
def test_damaged_exif_does_not_spoil_the_pixels(exif: bytes) -> None:
    source = Image.new("RGB", (16, 8), (90, 90, 90))
    assert read_image(encode(source, "JPEG", exif=exif)).shape == (8, 16, 3)


def test_of_an_animation_the_first_frame_is_read() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    stream = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_image(stream)[0, 0].tolist() == [255, 0, 0]


def test_streams_are_read_from_their_beginning_and_pipes_too() -> None:
    source = Image.fromarray(grey_ramp())
    stream = encode(source)
    stream.seek(7)
    expected = read_image(stream)
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(stream.getvalue())
    with os.fdopen(reading, "rb") as pipe:
        assert np.array_equal(read_image(pipe), expected)


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "text", "truncated"])
def test_what_is_no_image_is_refused_with_advice(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "photo.png"
    content = {
        "empty": b"",
        "text": b"hello\n" * 9,
        "truncated": encode(Image.effect_noise((64, 64), 9)).getvalue()[:999],
    }
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(content[kind])
    advice = {
        "missing": ("No such file", "check the path"),
        "folder": ("is a folder", "a file inside it"),
        "empty": ("is empty", "again"),
        "text": ("not an image", "convert"),
        "truncated": ("damaged or incomplete", "again"),
    }[kind]
    with pytest.raises(ImageError) as error:
        read_image(path)
    assert_one_line(error, str(path), *advice)


def test_an_empty_stream_is_refused() -> None:
    with pytest.raises(ImageError, match="stream is empty"):
        read_image(io.BytesIO())


# Pillow itself warns above 89 megapixels and refuses above 179; ours is the limit that users see.
@pytest.mark.parametrize(("width", "height"), [(8001, 8000), (10_000, 10_000), (2_000_000, 2_000), (1, MAX_PIXELS + 1)])
def test_too_many_pixels_are_refused_before_decoding(width: int, height: int) -> None:
    stream = png_of_size(width, height)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ImageError, match="64,000,000") as error:
            read_image(stream)
    assert_one_line(error, "scale it down")
    assert not caught


INTACT = {
    kind: encode(Image.fromarray(np.arange(1200, dtype=np.uint8).reshape(20, 20, 3)), kind).getvalue()
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM", "AVIF")
}


@given(kind=st.sampled_from(sorted(INTACT)), data=st.data())
def test_damaged_files_give_an_image_or_an_image_error(kind: str, data: st.DataObject) -> None:
    damaged = bytearray(INTACT[kind])
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(0, len(damaged))) :]
    try:
        image = read_image(io.BytesIO(bytes(damaged)))
    except ImageError as error:
        message = str(error)
    else:
        message = ""
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
    assert "\n" not in message


def test_writing_refuses_unknown_suffixes_and_wrong_arrays(tmp_path: Path, tiny_image: ImageArray) -> None:
    with pytest.raises(ImageError, match=r"unknown suffix '\.xyz'") as error:
        write_image(tmp_path / "a.xyz", tiny_image)
    assert_one_line(error, ".png")
    with pytest.raises(ShapeError):
        write_image(tmp_path / "a.png", tiny_image[..., 0])
    with pytest.raises(ShapeError):
        write_image(tmp_path / "a.png", tiny_image / 255.0)
    assert not list(tmp_path.iterdir())


def test_a_size_that_the_format_cannot_hold_leaves_the_old_file(tmp_path: Path, tiny_image: ImageArray) -> None:
    path = tmp_path / "a.webp"
    write_image(path, tiny_image)
    with pytest.raises(ImageError, match="use PNG") as error:
        write_image(path, np.zeros((1, 20_000, 3), np.uint8))  # WebP ends at 16383
    assert_one_line(error, "20000x1")
    assert np.array_equal(read_image(path), tiny_image)


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, tiny_image: ImageArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    write_image(path, tiny_image)

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(WriteError, match="No space left"):
        write_image(path, tiny_image[::-1])
    monkeypatch.undo()
    assert np.array_equal(read_image(path), tiny_image)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
