"""The contract of loss-tolerant codecs: what arrives makes a picture, losses are marked, nothing lost is no change.

A new codec joins by an entry in `CODECS`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gosvae.bitstream import pack_slices, unpack_slices
from gosvae.codecs.base import LossTolerantCodec
from gosvae.codecs.checkpoint import CodecCheckpoint
from gosvae.codecs.layered import LayeredCodec
from gosvae.codecs.registry import build_codec
from gosvae.codecs.slices import StreamOptions
from gosvae.codecs.variable import VariableRateCodec, VariableRateOptions
from gosvae.errors import BitstreamError, ForeignStreamError
from tiny import QUANTIZERS, checkpoint, model_config, streets, variable_checkpoint


def built(made: CodecCheckpoint, options: StreamOptions) -> LossTolerantCodec:
    """The codec of a checkpoint."""
    codec = build_codec(made, options=options)
    assert isinstance(codec, LossTolerantCodec)
    return codec


Build = Callable[[StreamOptions, int], LossTolerantCodec]
CODECS: dict[str, Build] = {
    "variable-rate": lambda options, seed: built(variable_checkpoint(seed=seed), options),
    "layered": lambda options, seed: LayeredCodec(
        VariableRateCodec(
            variable_checkpoint(seed=seed), options=VariableRateOptions(slices=options.slices, layout=options.layout)
        )
    ),
    **{
        f"vq-{kind}": lambda options, seed, kind=kind: built(  # type: ignore[misc]
            checkpoint(model_config(kind), seed=seed), options
        )
        for kind in QUANTIZERS
    },
}
LAYOUTS = [StreamOptions(slices=4, layout="interleaved"), StreamOptions(slices=4, layout="bands")]


def without(data: bytes, lost: set[int]) -> bytes:
    """The stream as a receiver has it when slices are lost."""
    stream = unpack_slices(data)
    slices = [None if number in lost else payload for number, payload in enumerate(stream.slices)]
    return pack_slices(stream.header, slices, stream.layout)


@pytest.fixture(params=CODECS)
def build(request: pytest.FixtureRequest) -> Build:
    return CODECS[request.param]


@pytest.mark.parametrize("options", LAYOUTS, ids=lambda options: options.layout)
def test_nothing_lost_is_the_picture_of_decompress(build: Build, options: StreamOptions) -> None:
    codec = build(options, 0)
    data = codec.compress(streets()[0].image_uint8_HW3)
    shown = codec.decompress_damaged(data)
    np.testing.assert_array_equal(shown.image_uint8_HW3, codec.decompress(data))
    assert shown.damaged == ()
    assert not shown.concealed_HW.any()


@pytest.mark.parametrize("lost", [{1}, {0, 3}, {0, 1, 2}], ids=str)
@pytest.mark.parametrize("options", LAYOUTS, ids=lambda options: options.layout)
def test_what_arrives_makes_a_picture_and_the_rest_is_marked(
    build: Build, options: StreamOptions, lost: set[int]
) -> None:
    codec = build(options, 0)
    image = streets()[1].image_uint8_HW3[:61, :93]
    data = codec.compress(image)
    shown = codec.decompress_damaged(without(data, lost))
    assert shown.image_uint8_HW3.shape == image.shape
    assert shown.image_uint8_HW3.dtype == np.uint8
    assert shown.concealed_HW.shape == image.shape[:2]
    assert shown.concealed_HW.dtype == np.bool_
    assert shown.damaged == tuple(sorted(lost))
    assert shown.concealed_HW.mean() == pytest.approx(len(lost) / 4, abs=0.15)
    again = codec.decompress_damaged(without(data, lost))
    np.testing.assert_array_equal(shown.image_uint8_HW3, again.image_uint8_HW3)
    np.testing.assert_array_equal(codec.decompress(data), codec.decompress_damaged(data).image_uint8_HW3)


def test_damaged_headers_and_foreign_streams_are_refused(build: Build) -> None:
    codec, other = build(LAYOUTS[0], 0), build(LAYOUTS[0], 1)
    data = codec.compress(streets()[0].image_uint8_HW3)
    with pytest.raises(ForeignStreamError):
        other.decompress_damaged(data)
    for damaged in (b"", data[:20], bytes([data[0], data[1] ^ 0x40]) + data[2:]):
        with pytest.raises(BitstreamError):
            codec.decompress_damaged(damaged)
    nothing_left = data[: len(data) - sum(map(len, unpack_slices(data).payloads))]
    with pytest.raises(BitstreamError):
        codec.decompress_damaged(nothing_left)
