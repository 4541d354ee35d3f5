"""What is particular to the classical codecs; the shared behaviour is in `contracts/test_codecs.py`."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gosvae.codecs.classical import CLASSICAL_CODECS, Avif, AvifHalf, Jpeg, WebP, load_classical
from gosvae.codecs.classical_base import ClassicalCodec
from gosvae.errors import BitstreamError, ConfigError, ImageError
from gosvae.tensors import ImageArray
from tiny import has_vvc

NAMES = [
    *("jpeg", "jpeg-half", "jpeg-quarter", "webp"),
    *("avif", "avif-half", "avif-third", "avif-slow", "avif-half-slow", "avif-third-slow"),
    *("jpegxl", "hevc", "vvc"),
]
AT_HAND = [name for name in NAMES if name != "vvc" or has_vvc()]


def luma_mse(a: ImageArray, b: ImageArray) -> float:
    """Of the brightness alone: at 4:2:0 the sharp colours of the test picture are lost at any quality."""
    return float((((a.astype(float) - b.astype(float)) @ [0.299, 0.587, 0.114]) ** 2).mean())


def test_the_codecs_by_name() -> None:
    assert list(CLASSICAL_CODECS) == NAMES
    assert [load_classical(name).name for name in AT_HAND] == AT_HAND
    with pytest.raises(ConfigError, match=r"unknown classical codec 'jpegx'; did you mean 'jpegxl'\?"):
        load_classical("jpegx")


@pytest.mark.parametrize("name", AT_HAND)
def test_quality_has_a_range(name: str) -> None:
    codec_type = CLASSICAL_CODECS[name]
    for quality in (codec_type.min_quality - 1, codec_type.max_quality + 1):
        with pytest.raises(ConfigError, match=f"quality {quality}: expected a whole number in"):
            load_classical(name, quality)


@pytest.mark.parametrize("name", AT_HAND)
def test_higher_quality_is_larger_and_nearer(name: str, tiny_image: ImageArray) -> None:
    codec_type = CLASSICAL_CODECS[name]
    low, high = codec_type(codec_type.min_quality + 9), codec_type(9 * codec_type.max_quality // 10)
    small, large = low.compress(tiny_image), high.compress(tiny_image)
    assert len(small) < len(large)
    assert luma_mse(low.decompress(small), tiny_image) > luma_mse(high.decompress(large), tiny_image)
    lost_by_shrinking = 20 if "-half" in name else 50 if "-quarter" in name or "-third" in name else 0
    assert luma_mse(high.decompress(large), tiny_image) < 20 + lost_by_shrinking


@pytest.mark.parametrize("name", ["jpeg", "webp"])  # the search is the same for all, these two are quick
def test_the_budget_is_used_up_to_one_step_of_quality(name: str, tiny_image: ImageArray) -> None:
    codec_type, image = CLASSICAL_CODECS[name], tiny_image[:16, :24]
    sizes = {
        quality: len(codec_type(quality).compress(image))
        for quality in range(codec_type.min_quality, codec_type.max_quality + 1)
    }
    budget_bytes = (min(sizes.values()) + sizes[75]) // 2
    data = codec_type().compress_to_budget(image, budget_bytes)
    # Bisection ends where a quality fits and the next does not.
    assert any(
        size == len(data) and sizes.get(quality + 1, budget_bytes + 1) > budget_bytes for quality, size in sizes.items()
    )


def test_jpeg_takes_the_smaller_of_baseline_and_progressive(tiny_image: ImageArray) -> None:
    sizes = []
    for progressive in (False, True):
        buffer = io.BytesIO()
        options = {"quality": 40, "optimize": True, "subsampling": 2, "progressive": progressive}
        Image.fromarray(tiny_image).save(buffer, "JPEG", **options)
        sizes.append(len(buffer.getvalue()))
    assert len(Jpeg(40).compress(tiny_image)) == min(sizes)


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif"])
def test_files_carry_no_metadata(name: str, tiny_image: ImageArray) -> None:
    with Image.open(io.BytesIO(load_classical(name).compress(tiny_image))) as image:
        assert not image.getexif()
        assert "icc_profile" not in image.info
        assert not {"xmp", "comment"} & {key for key, value in image.info.items() if value}


@pytest.mark.parametrize(("codec", "side"), [(WebP(), 16384), (Jpeg(), 65501)])
def test_sides_beyond_the_format_are_an_error_of_one_line(codec: ClassicalCodec, side: int) -> None:
    image = np.zeros((1, side, 3), np.uint8)
    with pytest.raises(ImageError, match=f"at most {side - 1} pixels a side, got 1x{side}"):
        codec.compress(image)
    assert codec.decompress(codec.compress(image[:, 1:])).shape == (1, side - 1, 3)


def test_a_foreign_file_is_named_by_its_first_bytes() -> None:
    with pytest.raises(BitstreamError, match="not a JPEG file: it begins with 89 50 4e 47"):
        Jpeg().decompress(b"\x89PNG\r\n\x1a\n")


def test_a_file_of_magic_alone_is_damaged() -> None:
    with pytest.raises(BitstreamError, match="JPEG file of 3 bytes is truncated or damaged: its header cannot be read"):
        Jpeg().decompress(b"\xff\xd8\xff")


def test_a_grey_jpeg_of_another_program_is_read_as_rgb() -> None:
    buffer = io.BytesIO()
    Image.new("L", (8, 6), 77).save(buffer, "JPEG")
    assert Jpeg().decompress(buffer.getvalue()).shape == (6, 8, 3)


@pytest.mark.parametrize(("name", "factor"), [("jpeg-half", 2), ("jpeg-quarter", 4)])
def test_a_shrunk_jpeg_is_one_byte_and_a_jpeg(name: str, factor: int, tiny_image: ImageArray) -> None:
    codec = load_classical(name, 60)
    for height in range(33, 33 + factor):
        for width in range(47, 47 + factor):
            image = tiny_image[:height, :width]
            data = codec.compress(image)
            with Image.open(io.BytesIO(data[1:])) as opened:
                size_wh = opened.size
                enlarged = opened.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
            assert size_wh == (-(-width // factor), -(-height // factor))
            assert data[0] == 16 * factor + 4 * (size_wh[1] * factor - height) + size_wh[0] * factor - width
            np.testing.assert_array_equal(codec.decompress(data), np.asarray(enlarged))
            assert codec.payload_bytes(data) == len(data) - 1


def test_a_shrunk_jpeg_reaches_budgets_that_jpeg_does_not(tiny_image: ImageArray) -> None:
    sizes = [len(load_classical(name).compress_smallest(tiny_image)) for name in ("jpeg", "jpeg-half", "jpeg-quarter")]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[2] + 20


def test_the_first_byte_of_a_shrunk_jpeg_is_checked() -> None:
    data = load_classical("jpeg-half").compress(np.zeros((4, 4, 3), np.uint8))
    for first in (0x22, 0x28, 0x40, 0xFF):  # 2 pixels too many, another factor, none
        with pytest.raises(BitstreamError, match="not a JPEG at half size file"):
            load_classical("jpeg-half").decompress(bytes([first]) + data[1:])


@pytest.mark.parametrize(("name", "factor"), [("avif-half", 2), ("avif-third", 3)])
def test_a_shrunk_avif_is_one_byte_and_an_avif(name: str, factor: int, tiny_image: ImageArray) -> None:
    codec = load_classical(name, 60)
    for height, width in ((32, 48), (33, 47), (34, 46)):
        data = codec.compress(tiny_image[:height, :width])
        with Image.open(io.BytesIO(data[1:]), formats=["AVIF"]) as opened:
            size_wh = opened.size
            enlarged = opened.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        assert size_wh == (-(-width // factor), -(-height // factor))
        np.testing.assert_array_equal(codec.decompress(data), np.asarray(enlarged))
    with pytest.raises(BitstreamError, match="not a AVIF at"):
        codec.decompress(data[1:])


def test_the_payload_of_avif_is_its_codestream(tiny_image: ImageArray) -> None:
    data = Avif(30).compress(tiny_image)
    payload_bytes = Avif().payload_bytes(data)
    assert 200 < len(data) - payload_bytes < 400
    assert data[len(data) - payload_bytes - 4 : len(data) - payload_bytes] == b"mdat"
    assert AvifHalf().payload_bytes(b"\x20" + data) == payload_bytes
    assert Avif().payload_bytes(data[:100]) == 100
