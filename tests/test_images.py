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
from gosvae.images import MAX_PIXELS, as_image, read_image, write_image
from gosvae.seeding import numpy_generator
from gosvae.tensors import ImageArray
from gosvae.walk import IMAGE_SUFFIXES


def encode(image: Image.Image, image_format: str = "PNG", **options: object) -> io.BytesIO:
    stream = io.BytesIO()
    image.save(stream, format=image_format, **options)
    return stream


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


PNG_BEGINS = b"\x89PNG\r\n\x1a\n"
PNG_END = chunk(b"IEND", b"")


def png_of_size(width: int, height: int) -> io.BytesIO:
    """A PNG file that claims a size and holds no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return io.BytesIO(PNG_BEGINS + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + PNG_END)


def packed(values: np.ndarray, bits: int) -> bytes:
    """Rows of whole numbers as bit fields, the first in the highest bits, each row on a byte's border."""
    fields = (values.reshape(len(values), -1)[..., None] >> np.arange(bits)[::-1]) & 1
    return np.packbits(fields.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def png_of_values(values: np.ndarray, bits: int, colour_type: int, *chunks: bytes) -> io.BytesIO:
    """A PNG as the specification lays it out; values are (H, W) or (H, W, channels)."""
    height, width = values.shape[:2]
    rows = [b"\0" + packed(row[None], bits) for row in values]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
    return io.BytesIO(PNG_BEGINS + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(b"".join(rows))) + PNG_END)


def tiff_of_values(
    values: np.ndarray, bits: int, photometric: int, order: str = "<", sample_format: int = 1
) -> io.BytesIO:
    """An uncompressed TIFF as the specification lays it out; of 16 bits and more in the given byte order."""
    height, width = values.shape[:2]
    samples = 1 if values.ndim == 2 else values.shape[2]
    data = values.astype(f"{order}i{bits // 8}").tobytes() if bits >= 16 else packed(values, bits)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, samples)]
    tags += [(278, height), (279, len(data)), (339, sample_format)]
    at_end = 8 + len(data)
    directory, extra = struct.pack(f"{order}H", len(tags)), b""
    for tag, value in tags:
        repeated = samples if tag in (258, 339) else 1
        if repeated > 2:
            extra_at = at_end + 2 + 12 * len(tags) + 4 + len(extra)
            extra += struct.pack(f"{order}{repeated}H", *[value] * repeated)
            directory += struct.pack(f"{order}HHII", tag, 3, repeated, extra_at)
        else:
            directory += struct.pack(f"{order}HHII", tag, 4, 1, value)
    head = mark + struct.pack(f"{order}I", at_end)
    return io.BytesIO(head + data + directory + bytes(4) + extra)


def grey_ramp() -> np.ndarray:
    return np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)


def assert_one_line(error: pytest.ExceptionInfo[GosvaeError], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (37, 51)])
@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES - {".pgm", ".pbm"}))  # those two hold no colours
def test_written_files_read_back(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    noise = numpy_generator(0, suffix).integers(0, 256, (*size, 3), dtype=np.uint8)
    lossless = suffix not in {".jpg", ".jpeg", ".jpe", ".jfif", ".avif"}
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


@pytest.mark.parametrize(
    ("bits", "photometric"), [(bits, p) for bits in (1, 2, 4, 8, 12, 16) for p in (0, 1) if (bits, p) != (12, 0)]
)
def test_grey_tiff_of_every_depth_and_direction(bits: int, photometric: int) -> None:
    levels = np.linspace(0, 2**bits - 1, 6 * 16).round().astype(np.int64).reshape(6, 16)
    expected = np.rint(levels * 255 / (2**bits - 1))
    grey = read_image(tiff_of_values(levels, bits, photometric))[..., 0]
    assert np.array_equal(grey, expected if photometric == 1 else 255 - expected)  # 0: white is zero


@pytest.mark.parametrize(
    ("bits", "photometric", "order", "sample_format"),
    [(12, 0, "<", 1), (16, 0, ">", 1), (16, 1, "<", 2), (32, 1, "<", 1), (32, 1, "<", 2), (8, 8, "<", 1)],
)
def test_tiff_that_has_no_sure_meaning_is_refused(bits: int, photometric: int, order: str, sample_format: int) -> None:
    levels = np.full((2, 4, 3) if photometric == 8 else (2, 4), 100, np.int64)
    with pytest.raises(ImageError, match="convert") as error:
        read_image(tiff_of_values(levels, bits, photometric, order, sample_format))
    assert_one_line(error)


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_tiff_in_both_byte_orders(order: str) -> None:
    levels = np.arange(0, 65536, 257).reshape(16, 16)
    assert np.array_equal(read_image(tiff_of_values(levels, 16, 1, order))[..., 1], levels // 257)
    colours = np.stack([levels, levels[::-1], levels.T], axis=-1)
    assert np.array_equal(read_image(tiff_of_values(colours, 16, 2, order)), colours // 257)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("has_transparency", [False, True])
def test_grey_png_of_every_depth(bits: int, has_transparency: bool) -> None:
    largest = 2**bits - 1
    levels = np.arange(64).reshape(4, 16) * 1031 % (largest + 1)
    colour = int(levels[2, 3])
    chunks = [chunk(b"tRNS", struct.pack(">H", colour))] if has_transparency else []
    expected = np.rint(levels * 255 / largest)
    expected[(levels == colour) & has_transparency] = 255
    read = read_image(png_of_values(levels, bits, 0, *chunks))
    assert np.array_equal(read, np.stack([expected] * 3, axis=-1))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_colour_is_compared_in_all_its_bits(bits: int) -> None:
    colour = np.array([40, 90, 200]) * (257 if bits == 16 else 1)
    values = np.array([[colour, colour + np.array([0, 0, 1]), colour - np.array([1, 0, 0])]])
    tail = chunk(b"tRNS", struct.pack(">3H", *colour))
    read = read_image(png_of_values(values, bits, 2, tail))[0].astype(int)
    assert read[0].tolist() == [255, 255, 255]
    assert np.abs(read[1:] - [40, 90, 200]).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("colour_type", [4, 6])
def test_png_with_alpha_of_every_depth(bits: int, colour_type: int) -> None:
    scale = 257 if bits == 16 else 1
    colour = [40] if colour_type == 4 else [40, 90, 200]
    values = np.array([[[*colour, alpha] for alpha in (0, 128, 255)]]) * scale
    read = read_image(png_of_values(values, bits, colour_type))[0].astype(int)
    shown = np.array(colour if colour_type == 6 else colour * 3)
    for pixel, alpha in zip(read, (0, 128, 255), strict=True):
        assert np.abs(pixel - (shown * alpha + 255 * (255 - alpha)) / 255).max() <= 1


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("alphas", [b"", b"\0", b"\xff\x80"])
def test_palette_png_of_every_depth(bits: int, alphas: bytes) -> None:
    palette = np.array([[250, 10, 20], [5, 200, 90]])
    values = np.array([[0, 1, 1, 0, 1]])
    chunks = [chunk(b"PLTE", palette.astype(np.uint8).tobytes()), *([chunk(b"tRNS", alphas)] if alphas else [])]
    read = read_image(png_of_values(values, bits, 3, *chunks))[0].astype(int)
    alpha = np.array([*alphas, 255, 255])[values[0], None]
    assert np.abs(read - (palette[values[0]] * alpha + 255 * (255 - alpha)) / 255).max() <= 1


@pytest.mark.parametrize(("bits", "colour_type"), [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2)])
def test_an_image_of_pillow_is_read_as_its_file(bits: int, colour_type: int) -> None:
    values = np.arange(48).reshape(4, 4, 3)[..., 0 if colour_type == 0 else slice(None)] * 1031 % 2**bits
    colour = np.atleast_1d(values[1, 1])
    stream = png_of_values(values, bits, colour_type, chunk(b"tRNS", struct.pack(f">{len(colour)}H", *colour)))
    expected = read_image(stream)
    assert np.array_equal(as_image(Image.open(stream)), expected)
    assert expected[1, 1].tolist() == [255, 255, 255]


def metadata(kind: str) -> tuple[bytes, ...]:
    """Chunks before the pixels that Pillow refuses."""
    long = zlib.compress(bytes(3 * 2**20))
    profile = chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(400)))
    return {
        "long text": (chunk(b"zTXt", b"Comment\0\0" + long),),
        "long international text": (chunk(b"iTXt", b"Comment\0\1\0\0\0" + long),),
        "long profile": (chunk(b"iCCP", b"icc\0\0" + long),),
        "bad byte in the profile": (profile[:20] + bytes([profile[20] ^ 1]) + profile[21:],),
        "unknown compression": (chunk(b"iCCP", b"icc\0\7abc"),),
        "cut text": (chunk(b"iTXt", b"Comment"),),
        "short resolution": (chunk(b"pHYs", b"\0"),),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "long text", "long international text", "long profile", "bad byte in the profile", "unknown compression",
        "cut text", "short resolution",
    ],
)  # fmt: skip
@pytest.mark.parametrize("at_end", [False, True])
def test_a_png_is_read_whatever_its_metadata(kind: str, at_end: bool) -> None:
    values = np.array([[0, 90, 255], [90, 30, 60]])
    transparent = chunk(b"tRNS", struct.pack(">H", 90))
    turned = chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0")  # by 180 degrees
    expected = [[60, 30, 255], [255, 255, 0]]
    plain = png_of_values(values, 8, 0, transparent, turned).getvalue()
    assert read_image(io.BytesIO(plain))[..., 0].tolist() == expected
    extra = b"".join(metadata(kind))
    cut = plain.index(b"IEND" if at_end else b"IDAT") - 4
    assert read_image(io.BytesIO(plain[:cut] + extra + plain[cut:]))[..., 0].tolist() == expected


def test_damaged_pixels_beside_damaged_metadata_are_refused() -> None:
    plain = png_of_values(np.zeros((9, 9), np.int64), 8, 0, *metadata("long text")).getvalue()
    with pytest.raises(ImageError, match="damaged or incomplete") as error:
        read_image(io.BytesIO(plain[: plain.index(b"IDAT") + 9]))
    assert "too large" not in str(error.value)


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
