"""Compress and decompress in one call take images and streams in any form that is natural."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gosvae.bitstream import Header, pack
from gosvae.codecs.announced import announced_pixels
from gosvae.codecs.registry import load_codec
from gosvae.codecs.shortcuts import compress, decompress
from gosvae.errors import BitstreamError, ImageError, ShapeError
from gosvae.images import write_image
from tiny import streets


def test_an_image_may_have_any_form(tmp_path: Path) -> None:
    image = streets()[0].image_uint8_HW3
    path = tmp_path / "a.png"
    write_image(path, image)
    tensor_HW3 = torch.from_numpy(image.copy())
    expected = compress(image, "jpeg")
    for form in (
        path, str(path), io.BytesIO(path.read_bytes()), Image.fromarray(image), Image.open(path), tensor_HW3,
        tensor_HW3.permute(2, 0, 1), tensor_HW3.permute(2, 0, 1)[None],
    ):  # fmt: skip
        assert compress(form, "jpeg") == expected


def test_what_is_no_image_is_refused_with_advice(tmp_path: Path) -> None:
    for wrong, kind, words in (
        (None, ImageError, "give a uint8 array"),
        ([[1, 2]], ImageError, "got list"),
        (b"bytes", ImageError, "got bytes"),
        (tmp_path / "none.png", ImageError, "cannot open"),
        (torch.zeros(3, 8, 8), ShapeError, r"not torch\.float32 \(gosvae\.tensor_to_image"),
        (torch.zeros(4, 8, 8, dtype=torch.uint8), ShapeError, "uint8 tensor"),
        (np.zeros((8, 8)), ShapeError, "uint8 image"),
    ):
        with pytest.raises(kind, match=words) as caught:
            compress(wrong, "jpeg")  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


def test_a_stream_may_be_any_object_of_bytes() -> None:
    image = streets()[0].image_uint8_HW3
    for codec in ("jpeg", None):
        data = compress(image, codec or "gosvae-variable-camvid")
        for form in (bytearray(data), memoryview(data)):
            np.testing.assert_array_equal(decompress(form, codec), decompress(data, codec))
    for wrong in ("a.gos", Path("a.gos"), None, 7):
        with pytest.raises(BitstreamError, match="expected the bytes of a stream"):
            decompress(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["gosvae-compact-camvid", "jpeg", "webp", "avif"])
def test_a_picture_that_announces_too_much_is_not_decoded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = compress(streets()[0].image_uint8_HW3, name)
    codec = load_codec(name)
    assert decompress(stream, codec, max_pixels=64 * 96).shape == (64, 96, 3)
    assert decompress(stream, codec, max_pixels=None).shape == (64, 96, 3)
    monkeypatch.setattr(type(codec), "decompress", None)
    with pytest.raises(ImageError, match="a picture of 6144 pixels, at most 6143 are decoded") as caught:
        decompress(stream, codec, max_pixels=64 * 96 - 1)
    assert caught.value.argument == "max_pixels"


@pytest.mark.parametrize(
    "shape", [(8, 8), (64, 96), (1, 1), (511, 513), (720, 1280), (1080, 1920), (600, 900), (9, 4000)]
)
def test_the_size_of_a_jpeg_xl_file_is_read(shape: tuple[int, int]) -> None:
    pytest.importorskip("imagecodecs", reason="needs gosvae[jpegxl]")
    image = np.zeros((*shape, 3), np.uint8)
    stream = compress(image, "jpegxl")
    assert announced_pixels(stream) == shape[0] * shape[1]
    for length in range(4):
        assert announced_pixels(stream[:length]) == 0
    with pytest.raises(ImageError, match=f"a picture of {shape[0] * shape[1]} pixels"):
        decompress(stream, "jpegxl", max_pixels=shape[0] * shape[1] - 1)


def test_a_few_bytes_that_announce_a_huge_picture_are_refused_by_default() -> None:
    huge = pack(Header(b"mark", 2**14, 2**14, 1), b"few")
    with pytest.raises(ImageError, match=f"{2**28} pixels, at most {2**26}"):
        decompress(huge)
    with pytest.raises(BitstreamError, match="no model"):
        decompress(huge, max_pixels=None)
