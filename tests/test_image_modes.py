"""Pixels of every mode, depth and layout that images are read from, against references; metadata does no harm."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from gosvae.errors import ImageError
from gosvae.images import as_image, read_image
from image_files import chunk, encode, png_of_values, stored_as, tiff_of_values


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
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_tiff_in_both_byte_orders(order: str) -> None:
    levels = np.arange(0, 65536, 257).reshape(16, 16)
    assert np.array_equal(read_image(tiff_of_values(levels, 16, 1, order))[..., 1], levels // 257)
    colours = np.stack([levels, levels[::-1], levels.T], axis=-1)
    assert np.array_equal(read_image(tiff_of_values(colours, 16, 2, order)), colours // 257)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("bits", "photometric"), [(8, 1), (16, 1), (16, 0), (12, 1)])
def test_tiff_is_turned_upright(bits: int, photometric: int, orientation: int) -> None:
    largest = 2**bits - 1
    upright = np.linspace(0, largest, 8).round().astype(np.int64).reshape(2, 4)
    stored = stored_as(orientation, upright if photometric == 1 else largest - upright)
    grey = read_image(tiff_of_values(stored, bits, photometric, orientation=orientation))[..., 0]
    assert np.abs(grey - upright * 255 / largest).max() <= 1


@pytest.mark.parametrize(("bits", "order"), [(8, "<"), (16, "<"), (16, ">")])
@pytest.mark.parametrize(("extra_samples", "name"), [(0, "unspecified"), (1, "associated"), (2, "unassociated")])
def test_tiff_with_a_fourth_sample(bits: int, order: str, extra_samples: int, name: str) -> None:
    colour, alpha = np.array([40, 90, 200]), np.array([0, 128, 255])[:, None]
    shown = colour if name == "unspecified" else (colour * alpha + 255 * (255 - alpha)) / 255
    stored = np.rint(colour * alpha / 255) if name == "associated" else np.broadcast_to(colour, (3, 3))
    values = np.concatenate([stored, alpha], axis=1)[None].astype(np.int64) * (257 if bits == 16 else 1)
    read = read_image(tiff_of_values(values, bits, 2, order, extra_samples=extra_samples))[0].astype(int)
    assert np.abs(read - shown).max() <= 2


@pytest.mark.parametrize(("bits", "order"), [(8, "<"), (16, "<"), (16, ">")])
def test_cmyk_tiff_of_every_depth(bits: int, order: str) -> None:
    ink = np.array([[[0, 255, 255, 0], [255, 255, 255, 0], [0, 0, 0, 128], [0, 0, 0, 0]]])
    read = read_image(tiff_of_values(ink * (257 if bits == 16 else 1), bits, 5, order))[0]
    assert np.abs(read.astype(int) - [[255, 0, 0], [0, 0, 0], [127, 127, 127], [255, 255, 255]]).max() <= 1


@pytest.mark.parametrize("mode", ["LA", "PA", "YCbCr", "CMYK", "RGBX"])
def test_every_mode_of_pillow_becomes_rgb(mode: str) -> None:
    source = Image.new("RGB", (2, 1), (200, 60, 30))
    shown = (200, 60, 30)
    if mode == "LA":
        source, shown = Image.new("LA", (2, 1), (90, 255)), (90, 90, 90)
    elif mode == "PA":
        source = source.quantize(4).convert("PA")
    else:
        source = source.convert(mode)
    assert source.mode == mode
    assert np.abs(as_image(source).astype(int) - shown).max() <= 3


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
    assert "convert" in str(error.value)
