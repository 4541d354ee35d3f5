"""The contract of every image codec, classical or learned: any size, any bytes, a clear result or a clear error.

A new codec joins by an entry in `codecs()`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gosvae.codecs.autoencoder import AutoencoderCodec
from gosvae.codecs.base import ImageCodec, RateControlledCodec
from gosvae.codecs.classical import CLASSICAL_CODECS, load_classical
from gosvae.codecs.gesco import GescoCodec
from gosvae.codecs.label_map import LabelMapCodec
from gosvae.codecs.layered import LayeredCodec, LayeredOptions
from gosvae.codecs.slices import Purpose
from gosvae.codecs.variable import VariableRateCodec
from gosvae.codecs.vq import VqCodec
from gosvae.errors import BitstreamError, ImageError, RateError, ShapeError
from gosvae.seeding import numpy_generator
from gosvae.tensors import ImageArray
from tiny import QUANTIZERS, checkpoint, expert, has_vvc, model_config, scalar_checkpoint, variable_checkpoint
from tiny_gesco import gesco_checkpoint


@dataclass(frozen=True)
class Case:
    """One codec under test.

    Attributes:
        build: makes it, small and quick; the same at every call.
        has_checksum: whether every changed or added byte must be found.
        keeps_colour: whether a grey field must come back nearly grey (not so for networks with random weights).
    """

    build: Callable[[], ImageCodec]
    has_checksum: bool
    keeps_colour: bool


def codecs() -> dict[str, Case]:
    """All codecs under the contract, by name."""
    at_hand = [name for name in CLASSICAL_CODECS if name != "vvc" or has_vvc()]
    classical = {name: Case(partial(load_classical, name), False, True) for name in at_hand}
    label_map = {"label-map": Case(lambda: LabelMapCodec(expert()), True, False)}
    return {
        **classical,
        **label_map,
        "gesco": Case(lambda: GescoCodec(gesco_checkpoint(), expert=expert()), True, False),
        "autoencoder": Case(lambda: AutoencoderCodec(scalar_checkpoint()), True, False),
        "variable-rate": Case(lambda: VariableRateCodec(variable_checkpoint()), True, False),
        **{f"layered-{purpose}": Case(partial(layered, purpose), True, purpose != "machine") for purpose in PURPOSES},
        **{f"vq-{kind}": Case(partial(vq, kind), True, False) for kind in QUANTIZERS},
    }


PURPOSES: tuple[Purpose, ...] = ("machine", "people", "both")


def layered(purpose: Purpose) -> ImageCodec:
    """A codec of two layers, with a task layer of its own: any codec of two layers reads the streams of that layer."""
    task = VariableRateCodec(variable_checkpoint(seed=1 + PURPOSES.index(purpose)))
    return LayeredCodec(task, options=LayeredOptions(purpose=purpose, effort=1))


def vq(quantizer: str) -> ImageCodec:
    """A small VQ codec with random weights."""
    return VqCodec(checkpoint(model_config(quantizer)))


@pytest.fixture(params=sorted(codecs()))
def case(request: pytest.FixtureRequest) -> Case:
    return codecs()[request.param]


@pytest.fixture
def codec(case: Case) -> ImageCodec:
    return case.build()


def picture(height: int, width: int) -> ImageArray:
    """Smooth colours with some noise."""
    rows, columns = np.mgrid[0:height, 0:width]
    image = np.stack([rows * 3, columns * 2, rows + columns], axis=-1) % 200.0
    return (image + numpy_generator(0, height, width).uniform(0, 20, image.shape)).astype(np.uint8)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 5000), (5000, 1), (37, 51), (2, 3), (64, 96)])
def test_round_trip_keeps_size_and_type(codec: ImageCodec, size_hw: tuple[int, int]) -> None:
    data = codec.compress(picture(*size_hw))
    assert isinstance(data, bytes)
    image = codec.decompress(data)
    assert image.shape == (*size_hw, 3)
    assert image.dtype == np.uint8


def test_a_plain_field_keeps_its_colour(case: Case) -> None:
    if not case.keeps_colour:
        pytest.skip("a network with random weights shows no colours")
    codec = case.build()
    colour = np.array([200, 90, 40])
    image = codec.decompress(codec.compress(np.broadcast_to(colour.astype(np.uint8), (33, 47, 3))))
    assert np.abs(image.astype(int) - colour).max() <= 12


def test_compression_is_deterministic(case: Case) -> None:
    image = picture(45, 70)
    codec = case.build()
    data = codec.compress(image)
    assert codec.compress(image.copy()) == data
    assert case.build().compress(image) == data
    np.testing.assert_array_equal(codec.decompress(data), case.build().decompress(data))


def test_views_compress_like_copies_and_stay_unchanged(codec: ImageCodec) -> None:
    view = picture(50, 60)[::-1, 3:40]
    before = view.copy()
    assert codec.compress(view) == codec.compress(before)
    np.testing.assert_array_equal(view, before)


def test_every_truncation_is_refused(codec: ImageCodec) -> None:
    data = codec.compress(picture(16, 24))
    for length in range(0, len(data), max(1, len(data) // 97)):
        with pytest.raises(BitstreamError):
            codec.decompress(data[:length])
    for cut in (1, 2, 3, 4):
        with pytest.raises(BitstreamError):
            codec.decompress(data[:-cut])


def test_changed_bytes_are_found_or_give_an_image(case: Case) -> None:
    codec = case.build()
    data = codec.compress(picture(16, 24))
    for position in range(0, len(data), max(1, len(data) // 97)):
        damaged = bytearray(data)
        damaged[position] ^= 0x55
        if case.has_checksum:
            with pytest.raises(BitstreamError):
                codec.decompress(bytes(damaged))
            continue
        try:
            image = codec.decompress(bytes(damaged))
        except BitstreamError:
            continue
        assert image.dtype == np.uint8
    if case.has_checksum:
        with pytest.raises(BitstreamError):
            codec.decompress(data + b"\0")


def foreign_files() -> dict[str, bytes]:
    """Files of other kinds, among them every codec's own."""
    image = picture(16, 24)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    others = {name: case.build().compress(image) for name, case in codecs().items()}
    return {"nothing": b"", "a PNG": buffer.getvalue(), "a text": b"hello\n" * 30, "zeros": bytes(500), **others}


def test_foreign_files_are_refused(request: pytest.FixtureRequest, codec: ImageCodec) -> None:
    own = request.node.callspec.params["case"]
    for kind, data in foreign_files().items():
        if kind.removesuffix("-slow") != own.removesuffix("-slow"):  # a slow encoder writes the same format
            with pytest.raises(BitstreamError) as caught:
                codec.decompress(data)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.uint16),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((1, 8, 8, 3), np.uint8),
    ],
    ids=lambda image: f"{image.dtype}-{'x'.join(map(str, image.shape))}",
)
def test_other_arrays_are_refused(codec: ImageCodec, image: ImageArray) -> None:
    with pytest.raises(ShapeError, match="expected a uint8 image"):
        codec.compress(image)


def test_what_is_no_array_is_refused(codec: ImageCodec) -> None:
    for image in (Path("a.png"), Image.new("RGB", (8, 8)), torch.zeros(3, 8, 8, dtype=torch.uint8), None):
        with pytest.raises(ImageError, match=r"gosvae\.read_image reads files"):
            codec.compress(image)  # type: ignore[arg-type]


def test_any_object_of_bytes_is_a_stream(codec: ImageCodec) -> None:
    data = codec.compress(picture(37, 51))
    expected = codec.decompress(data)
    for kind in (bytearray, memoryview):
        np.testing.assert_array_equal(codec.decompress(kind(data)), expected)
    for other in ("a.gos", Path("a.gos"), None):
        with pytest.raises(BitstreamError, match="expected the bytes of a stream") as caught:
            codec.decompress(other)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


def test_payload_is_what_the_header_leaves(codec: ImageCodec) -> None:
    data = codec.compress(picture(37, 51))
    assert 0 < codec.payload_bytes(data) <= len(data)
    assert codec.parameter_count >= 0
    assert codec.name


def test_budgets_are_met_or_refused(codec: ImageCodec) -> None:
    if not isinstance(codec, RateControlledCodec):
        pytest.skip("the rate of this codec is not a knob")
    image = picture(64, 96)
    smallest = len(codec.compress_smallest(image))
    sizes = []
    for budget_bytes in (smallest, smallest + 40, 2 * smallest, 10**6):
        data = codec.compress_to_budget(image, budget_bytes)
        assert codec.decompress(data).shape == image.shape
        assert len(data) <= budget_bytes
        sizes.append(len(data))
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[0]
    for budget_bytes in (smallest - 1, 0, -1):
        with pytest.raises(RateError, match=str(smallest)):
            codec.compress_to_budget(image, budget_bytes)
