"""The contract of every video codec, classical or trained: a frame in gives its bytes out, and those give the frame.

A new codec joins by an entry in `codecs()`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from gosvae.codecs.classical import load_classical
from gosvae.codecs.classical_video import VIDEO_CODECS, ClassicalVideoCodec
from gosvae.codecs.frame_by_frame import FrameByFrame
from gosvae.codecs.variable import VariableRateCodec
from gosvae.codecs.video import VideoCodec, encode_sequence
from gosvae.errors import BitstreamError, ConfigError, ShapeError
from gosvae.tensors import ImageArray
from tiny import sequence_codec, variable_checkpoint

SIZES_HW = [(64, 96), (65, 99), (130, 67)]


def codecs() -> dict[str, Callable[[], VideoCodec]]:
    """All video codecs under the contract, small and quick, by name."""
    classical = {name: partial(ClassicalVideoCodec, name) for name in VIDEO_CODECS}
    return {
        **classical,
        "frame by frame, jpeg": lambda: FrameByFrame(load_classical("jpeg")),
        "frame by frame, trained": lambda: FrameByFrame(VariableRateCodec(variable_checkpoint())),
        "temporal model": sequence_codec,
    }


@pytest.fixture(params=sorted(codecs()))
def codec(request: pytest.FixtureRequest) -> VideoCodec:
    return codecs()[request.param]()


def film(height: int, width: int, count: int = 5) -> list[ImageArray]:
    """A bright square that moves over smooth colours."""
    rows, columns = np.mgrid[0:height, 0:width]
    ground = (np.stack([rows, columns, rows + columns], axis=-1) % 160).astype(np.uint8)
    frames = []
    for number in range(count):
        frame = ground.copy()
        frame[8:24, 4 + 6 * number : 20 + 6 * number] = (230, 220, 200)
        frames.append(frame)
    return frames


def encoded(codec: VideoCodec, frames: list[ImageArray]) -> list[bytes]:
    return encode_sequence(codec, frames, frames_per_second=15.0)


@pytest.mark.parametrize("size_hw", SIZES_HW, ids=str)
def test_frames_come_back_in_order_at_their_size(codec: VideoCodec, size_hw: tuple[int, int]) -> None:
    frames = film(*size_hw)
    data = encoded(codec, frames)
    assert len(data) == len(frames)
    assert all(isinstance(piece, bytes) and piece for piece in data)
    decoder = codec.decoder()
    for frame, piece in zip(frames, data, strict=True):
        image = decoder.decode(piece)
        assert image.shape == frame.shape
        assert image.dtype == np.uint8


def test_a_frame_gives_all_of_its_bytes_at_once(codec: VideoCodec) -> None:
    frames = film(64, 96)
    encoder, decoder = codec.encoder(64, 96, frames_per_second=15.0), codec.decoder()
    for frame in frames:
        assert decoder.decode(encoder.encode(frame)).shape == frame.shape


def test_sequences_are_independent_and_deterministic(codec: VideoCodec) -> None:
    frames = film(64, 96)
    data = encoded(codec, frames)
    assert encoded(codec, [frame.copy() for frame in frames]) == data
    first, second = codec.decoder(), codec.decoder()
    for piece in data:
        np.testing.assert_array_equal(first.decode(piece), second.decode(piece))


def test_frames_of_another_size_or_kind_are_refused(codec: VideoCodec) -> None:
    frame = film(64, 96, 1)[0]
    for wrong in (frame[:32], frame.astype(np.float32), frame[..., 0]):
        with pytest.raises(ShapeError):
            encoded(codec, [frame, wrong])


def test_bytes_that_are_no_frame_are_refused(codec: VideoCodec) -> None:
    for data in (b"", b"hello\n" * 30, bytes(200)):
        with pytest.raises(BitstreamError) as caught:
            codec.decoder().decode(data)
        assert "\n" not in str(caught.value)


def test_a_budget_is_kept_or_refused(codec: VideoCodec) -> None:
    encoder, frame = codec.encoder(64, 96, frames_per_second=15.0), film(64, 96, 1)[0]
    if isinstance(codec, ClassicalVideoCodec):
        with pytest.raises(ConfigError, match="takes no budget for single frames"):
            encoder.encode(frame, budget_bytes=4000)
    else:
        assert len(encoder.encode(frame, budget_bytes=4000)) <= 4000


def test_every_codec_has_a_name(codec: VideoCodec) -> None:
    assert codec.name
