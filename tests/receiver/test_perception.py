"""A batch of frames: every learned kind draws them together, and takes each container apart once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from torch import nn

from gosvae import bitstream
from gosvae.codecs.base import ImageCodec
from gosvae.codecs.registry import build_codec
from gosvae.codecs.slices import StreamOptions
from gosvae.interruption import InterruptionError, interruptible
from gosvae.protocol.frames import Perceived
from gosvae.receiver.perception import Perception
from tiny import checkpoint, expert, scalar_checkpoint, streets, variable_checkpoint
from tiny_gesco import gesco_checkpoint

SLICED = StreamOptions(slices=4, layout="interleaved")
KINDS: dict[str, Callable[[], ImageCodec]] = {
    "vq": lambda: build_codec(checkpoint(), options=SLICED),
    "variable-rate": lambda: build_codec(variable_checkpoint(), options=SLICED),
    "autoencoder": lambda: build_codec(scalar_checkpoint()),
    "gesco": lambda: build_codec(gesco_checkpoint()),
}


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Containers that were taken apart."""
    containers: list[bytes] = []
    read = bitstream._read_2

    def counted(data: bytes) -> tuple[bitstream.Stream, int]:
        containers.append(data)
        return read(data)

    monkeypatch.setattr(bitstream, "_read_2", counted)
    return containers


def batch_sizes(codec: ImageCodec) -> list[int]:
    """Pictures in each call of the decoder network, from now on."""
    sizes: list[int] = []
    network = codec.network if hasattr(codec, "network") else codec.model.decoder  # type: ignore[attr-defined]
    assert isinstance(network, nn.Module)
    network.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    return sizes


def compressed(codec: ImageCodec, count: int) -> list[bytes]:
    """Streams of scenes; of class maps for the kind whose sender needs an expert."""
    images = [streets()[n % 4].image_uint8_HW3 for n in range(count)]
    if hasattr(codec, "compress_map"):
        return [codec.compress_map((image[..., 0] // 32).astype(np.uint8)) for image in images]
    return [codec.compress(image) for image in images]


@pytest.mark.parametrize("kind", KINDS)
def test_four_frames_share_the_decoder_and_each_is_parsed_once(kind: str, parsed: list[bytes]) -> None:
    codec = KINDS[kind]()
    frames = compressed(codec, 4)
    alone = [codec.decompress(data).astype(int) for data in frames]
    sizes = batch_sizes(codec)
    parsed.clear()
    results = Perception(codec, expert())([(data, False) for data in frames])
    assert parsed == frames
    assert set(sizes) == ({8} if kind == "gesco" else {4})  # GESCO draws with the map and without
    for result, expected in zip(results, alone, strict=True):
        assert isinstance(result, Perceived)
        assert np.abs(result.image_uint8_HW3 - expected).max() <= 1
        assert result.concealed_HW is None
        assert result.stages.batch == 4


@pytest.mark.parametrize("kind", ["vq", "variable-rate"])
def test_frames_with_lost_slices_share_the_decoder_with_whole_ones(kind: str, parsed: list[bytes]) -> None:
    codec = KINDS[kind]()
    frames = [(data, False) for data in compressed(codec, 4)]
    stream = bitstream.unpack_slices(frames[1][0])
    frames[1] = (bitstream.pack_slices(stream.header, [None, *stream.payloads[1:]], stream.layout), True)
    shown = codec.decompress_damaged(frames[1][0])  # type: ignore[attr-defined]
    sizes = batch_sizes(codec)
    parsed.clear()
    results = Perception(codec, expert())(frames)
    assert parsed == [data for data, _ in frames]
    assert sizes == [4]
    for n, result in enumerate(results):
        assert isinstance(result, Perceived)
        if n != 1:
            assert result.concealed_HW is None
            continue
        np.testing.assert_array_equal(result.concealed_HW, shown.concealed_HW)
        assert np.abs(result.image_uint8_HW3.astype(int) - shown.image_uint8_HW3).max() <= 1


@pytest.mark.parametrize("begun", [0, 1, 2])
def test_work_is_stopped_between_its_stages(begun: int) -> None:
    """The symbols, the picture and the class map of a small frame; no operation of PyTorch is stopped."""
    codec = KINDS["vq"]()
    looks, (data,), asked = Perception(codec, expert()), compressed(codec, 1), 0

    def stop() -> str | None:
        nonlocal asked
        asked += 1
        return None if asked <= begun else "enough"

    with interruptible(stop, operations=False), pytest.raises(InterruptionError, match="enough"):
        looks([(data, False)])
    assert asked == begun + 1
