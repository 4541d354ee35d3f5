"""The size of a picture is known before anything is decoded, also where a file says two sizes."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from gosvae.codecs import classical
from gosvae.codecs.announced import announced_pixels
from gosvae.codecs.av1 import Av1Frame, avif_of_frame, encode_av1
from gosvae.codecs.classical import load_classical
from gosvae.codecs.detail import decode_detail
from gosvae.codecs.file_sizes import avif_pixels
from gosvae.codecs.pyav import PictureDecoder
from gosvae.codecs.shortcuts import decompress
from gosvae.errors import BitstreamError, ImageError
from gosvae.tensors import ImageArray
from tiny import has_vvc, streets

NAMES = [
    *("jpeg", "jpeg-half", "jpeg-quarter", "webp", "avif", "avif-half", "avif-third", "jpegxl", "hevc"),
    *(["vvc"] if has_vvc() else []),
]
HUGE = 16384


def grey(height: int, width: int) -> ImageArray:
    return np.full((height, width, 3), 128, np.uint8)


def box(kind: bytes, contents: bytes) -> bytes:
    return struct.pack(">I", 8 + len(contents)) + kind + contents


def one_item(media: bytes, *, method: int = 0) -> bytes:
    """An AVIF file of an item in the box of items (`method` 1), as no encoder of this package writes."""
    table = b"\1\0\0\0" + b"\x44\0" + struct.pack(">HHHHHII", 1, 1, method, 0, 1, 0, len(media))
    meta = bytes(4) + box(b"hdlr", bytes(24)) + box(b"iloc", table) + box(b"idat", media)
    return box(b"ftyp", b"avif" + bytes(4)) + box(b"meta", meta)


def bits(*fields: tuple[int, int]) -> bytes:
    """Numbers, each with its number of bits."""
    text = "".join(f"{value:0{count}b}" for value, count in fields if count)
    return int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")


def unit(header: bytes, kind: int = 1) -> bytes:
    return bytes([kind << 3 | 2, len(header)]) + header


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size_hw", [(64, 96), (61, 35), (1, 1)])
def test_every_classical_codec_announces_its_size(name: str, size_hw: tuple[int, int]) -> None:
    data = load_classical(name).compress(grey(*size_hw))
    factor = {"half": 2, "third": 3, "quarter": 4}.get(name.partition("-")[2], 1)
    height, width = (-(-side // factor) * factor for side in size_hw)
    assert announced_pixels(data) == height * width
    with pytest.raises(ImageError, match=f"a picture of {height * width} pixels"):
        decompress(data, name, max_pixels=height * width - 1)
    assert announced_pixels(data, files=False) == 0
    for length in range(min(40, len(data) - 1)):
        assert announced_pixels(data[:length]) in (0, height * width)


@pytest.mark.parametrize("options", [{"lossless": True}, {"exif": b"Exif\0\0remark"}, {"quality": 3}])
def test_every_kind_of_webp_announces_its_size(options: dict[str, object]) -> None:
    file = io.BytesIO()
    Image.fromarray(grey(37, 1051)).save(file, "WEBP", **options)
    assert announced_pixels(file.getvalue()) == 37 * 1051


def test_the_size_of_the_av1_data_counts_and_not_that_of_the_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The boxes say 64x64 and AV1 a size that takes 400 MB in the decoder."""
    frame = encode_av1(grey(64, 64), 40, speed=10)
    file = avif_of_frame(frame, HUGE, HUGE)
    place = file.index(b"ispe") + 8
    lying = file[:place] + struct.pack(">II", 64, 64) + file[place + 8 :]
    with Image.open(io.BytesIO(lying)) as image:
        assert image.size == (64, 64)
    assert announced_pixels(lying) == HUGE**2
    assert announced_pixels(b"\x20" + lying) == 4 * HUGE**2
    monkeypatch.setattr(classical, "_pillow_decode", None)
    for name, data in (("avif", lying), ("avif-half", b"\x20" + lying)):
        with pytest.raises(ImageError, match="at most 67108864 are decoded"):
            decompress(data, name)


def test_a_detail_layer_that_announces_a_huge_picture_takes_no_memory() -> None:
    for reduction, size in ((1, HUGE), (4, 4 * HUGE)):
        payload = bytes([(reduction - 1) << 6, 50]) + bytes(100)
        with pytest.raises(BitstreamError, match=f"are no picture of {HUGE}x{HUGE} pixels"):
            decode_detail(payload, size, size)


def test_a_sequence_header_inside_the_frame_is_not_followed() -> None:
    """The data of a stream are the contents of one unit, so that no second header can stand beside it."""
    frame = encode_av1(grey(64, 64), 40, speed=10)
    other = avif_of_frame(frame, HUGE, HUGE)
    start = other.index(b"mdat") + 4
    joined = Av1Frame(frame.tools, frame.data + other[start:])
    assert avif_pixels(avif_of_frame(joined, 64, 64)) == 64 * 64


def test_every_form_of_a_sequence_header_is_read() -> None:
    size = ((9, 4), (6, 4), (1000, 10), (99, 7))
    operating_point = ((0, 12), (8, 5), (0, 1))
    plain = bits((0, 3), (1, 1), (0, 1), (0, 1), (0, 1), (0, 5), *operating_point, *size)
    timed = bits(
        *((0, 3), (0, 1), (0, 1), (1, 1), (7, 32), (7, 32), (1, 1), (0b00100, 5), (1, 1)),  # uvlc of 3
        *((9, 5), (1, 32), (3, 5), (3, 5), (1, 1), (1, 5)),
        *((0, 12), (5, 5), (1, 1), (0, 21), (1, 1), (3, 4)),
        *(*operating_point, (0, 1), (0, 1)),
        *size,
    )
    reduced = bits((0, 3), (1, 1), (1, 1), (31, 5), *size)
    for header, pixels in ((reduced, 1001 * 100), (plain, 2**17), (timed, 2**17)):
        assert avif_pixels(one_item(unit(b"x", 15) + unit(header), method=1)) == pixels
        assert avif_pixels(one_item(bytes([1 << 3 | 4, 0]) + header, method=1)) == pixels  # no length, an extension
        assert avif_pixels(one_item(unit(header[:3]), method=1)) == 0


def test_files_of_an_unknown_form_are_refused() -> None:
    intact = load_classical("avif").compress(grey(64, 64))
    media = intact[intact.index(b"mdat") + 4 :]
    two = box(b"ftyp", b"avif" + bytes(4)) + 2 * box(b"meta", bytes(4))
    for data in (two, one_item(media, method=2), intact[:60], box(b"ftyp", b"avif" + bytes(4))):
        assert announced_pixels(data) == 0
        with pytest.raises(BitstreamError, match="AVIF"):
            load_classical("avif").decompress(data)


def test_a_jpeg_of_many_scans_is_refused() -> None:
    file = io.BytesIO()
    Image.fromarray(grey(64, 64)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    assert load_classical("jpeg").decompress(data).shape == (64, 64, 3)
    for name, many in (("jpeg", b""), ("jpeg-half", b"\x20")):
        repeated = many + data[:-2] + data[last:-2] * 100 + data[-2:]
        with pytest.raises(BitstreamError, match="scans, at most 100 are decoded"):
            load_classical(name).decompress(repeated)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size_hw", [(5, 3), (64, 72), (96, 64), (136, 200)])
def test_limits_of_decoders_let_pictures_of_their_own_size_pass(name: str, size_hw: tuple[int, int]) -> None:
    image = streets()[0].image_uint8_HW3
    image = np.resize(image, (*size_hw, 3))
    codec = load_classical(name)
    assert decompress(codec.compress(image), codec).shape == (*size_hw, 3)


@pytest.mark.parametrize("name", ["avif", "avif-third", "jpeg", "webp", "jpegxl"])
def test_damaged_headers_announce_a_number_and_raise_nothing(name: str) -> None:
    """Pillow raises a RuntimeError for an AVIF file whose picture is said to be elsewhere."""
    data = load_classical(name).compress(grey(24, 40))
    for place in range(min(len(data), 300)):
        for value in (0, 255):
            changed = data[:place] + bytes([value]) + data[place + 1 :]
            assert announced_pixels(changed) >= 0
            assert announced_pixels(changed[: place + 1]) >= 0


def small_head(data: bytes) -> bytes:
    """An intra picture whose head says 64x64."""
    return struct.pack(">HH", 64, 64) + data[4:]


@pytest.mark.parametrize("name", [name for name in ("hevc", "vvc") if name in NAMES])
def test_intra_pictures_larger_than_their_head_says_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = load_classical(name)
    limits: list[int] = []

    def noted(make: Callable[..., None]) -> Callable[..., None]:
        def init(self: PictureDecoder, form: object, *, max_pixels: int) -> None:
            limits.append(max_pixels)
            make(self, form, max_pixels=max_pixels)

        return init

    monkeypatch.setattr(PictureDecoder, "__init__", noted(PictureDecoder.__init__))
    with pytest.raises(BitstreamError, match="is truncated or damaged"):
        codec.decompress(small_head(codec.compress(grey(256, 256))))
    assert limits == ([64 * 64] if name == "hevc" else [])
