"""AV1 frames without their container: the file that is made of them again shows the very same picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gosvae.codecs.av1 import MAX_SIDE, Av1Frame, avif_of_frame, decode_av1, encode_av1, frame_of_avif
from gosvae.errors import BitstreamError, ImageError
from gosvae.tensors import ImageArray
from tiny import streets

GOLDEN = Path(__file__).parents[1] / "golden"


def avif(image: ImageArray, **options: object) -> bytes:
    file = io.BytesIO()
    settings = {"quality": 40, "speed": 9, "subsampling": "4:2:0", "max_threads": 1, **options}
    Image.fromarray(image).save(file, "AVIF", **settings)
    return file.getvalue()


def shown(file: bytes) -> ImageArray:
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 60), (2, 3), (37, 51), (64, 96)])
@pytest.mark.parametrize("speed", [6, 9])
def test_the_file_made_of_a_frame_shows_the_picture_of_pillow(size_hw: tuple[int, int], speed: int) -> None:
    image = streets()[0].image_uint8_HW3[: size_hw[0], : size_hw[1]]
    file = avif(np.ascontiguousarray(image), speed=speed)
    frame = frame_of_avif(file, *size_hw)
    assert len(frame.data) < len(file) - 250
    np.testing.assert_array_equal(decode_av1(frame, *size_hw), shown(file))
    # The boxes and the sequence header are found again in the file that is made of them.
    assert frame_of_avif(avif_of_frame(frame, *size_hw), *size_hw) == frame


def test_the_encoder_is_that_of_pillow() -> None:
    image = streets()[1].image_uint8_HW3
    assert encode_av1(image, 40, speed=9) == frame_of_avif(avif(image), *image.shape[:2])


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 60), (2, 3), (37, 51), (64, 96)])
def test_the_tuning_for_machines_has_colours_at_full_size_and_no_filters(size_hw: tuple[int, int]) -> None:
    image = np.ascontiguousarray(streets()[1].image_uint8_HW3[: size_hw[0], : size_hw[1]])
    frame = encode_av1(image, 40, speed=9, tuning="machine")
    settings = {"enable-cdef": "0", "loopfilter-control": "0"}
    file = avif(image, subsampling="4:4:4", advanced=settings)
    assert frame == frame_of_avif(file, *size_hw)
    assert frame.full_chroma
    assert not frame.tools & 2
    np.testing.assert_array_equal(decode_av1(frame, *size_hw), shown(file))
    assert frame_of_avif(avif_of_frame(frame, *size_hw), *size_hw) == frame


def test_a_committed_frame_shows_the_same_picture_for_ever() -> None:
    data = (GOLDEN / "av1_37x51.bin").read_bytes()
    expected = shown((GOLDEN / "av1_37x51.png").read_bytes())
    picture = decode_av1(Av1Frame(data[0], data[1:]), 37, 51)
    assert np.abs(picture.astype(int) - expected).max() <= 1  # the samples are exact, their colours are rounded


def test_other_files_are_refused() -> None:
    image = streets()[0].image_uint8_HW3
    for file, size_hw in (
        (avif(image, subsampling="4:2:2"), (64, 96)),
        (avif(image, range="limited"), (64, 96)),
        (avif(image), (64, 95)),
        (avif(image)[:-300], (64, 96)),
        (b"", (64, 96)),
    ):
        with pytest.raises(ImageError, match=r"of an unknown form|in an unknown form") as caught:
            frame_of_avif(file, *size_hw)
        assert "\n" not in str(caught.value)
    with pytest.raises(ImageError, match=f"AV1 holds at most {MAX_SIDE} pixels a side"):
        encode_av1(np.zeros((1, MAX_SIDE + 1, 3), np.uint8), 40, speed=9)


def test_what_is_no_frame_is_refused() -> None:
    frame = encode_av1(streets()[0].image_uint8_HW3, 40, speed=9)
    for bad, size_hw in (
        (Av1Frame(frame.tools, b""), (64, 96)),
        (Av1Frame(frame.tools, frame.data[: len(frame.data) // 2]), (64, 96)),
        (Av1Frame(frame.tools, bytes(50)), (64, 96)),
        (Av1Frame(64, frame.data), (64, 96)),
        (frame, (64, MAX_SIDE + 1)),
        (frame, (0, 0)),
    ):
        with pytest.raises(BitstreamError) as caught:
            decode_av1(bad, *size_hw)
        assert "\n" not in str(caught.value)
