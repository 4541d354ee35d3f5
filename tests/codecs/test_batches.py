"""Pictures of many streams through the decoder network together: the same pictures, whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from torch import nn

from gosvae import bitstream
from gosvae.codecs.autoencoder import AutoencoderCodec
from gosvae.codecs.gesco import GescoCodec
from gosvae.codecs.latent import Latent
from gosvae.codecs.trained import TrainedCodec
from gosvae.codecs.variable import VariableRateCodec, VariableRateOptions
from gosvae.codecs.vq import VqCodec, VqOptions
from tiny import checkpoint, expert, model_config, scalar_checkpoint, streets, variable_checkpoint
from tiny_gesco import gesco_checkpoint

KINDS: dict[str, Callable[[], TrainedCodec]] = {
    "vq": lambda: VqCodec(checkpoint(), options=VqOptions(slices=4, layout="interleaved")),
    "vq-attention": lambda: VqCodec(checkpoint(model_config(architecture="vqgan", attention=True))),
    "autoencoder": lambda: AutoencoderCodec(scalar_checkpoint()),
    "variable-rate": lambda: VariableRateCodec(
        variable_checkpoint(), options=VariableRateOptions(slices=4, layout="interleaved")
    ),
    "gesco": lambda: GescoCodec(gesco_checkpoint(), expert=expert()),
}
SETTINGS = {"autoencoder": (1, 4, 30, 4, 2), "variable-rate": (0, 255, 128, 40, 200)}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def latents(codec: TrainedCodec, settings: tuple[int, ...]) -> list[Latent]:
    """Of four pictures of one size and a smaller one, each at a setting; a slice of the third one is lost if it can."""
    cut = [(64, 96), (64, 96), (64, 96), (64, 96), (37, 51)]
    found = []
    for n, (setting, (height, width)) in enumerate(zip(settings, cut, strict=True)):
        stream = bitstream.unpack_slices(codec.compress_at(streets()[n % 4].image_uint8_HW3[:height, :width], setting))
        if n == 2 and len(stream.slices) > 1:
            lost = [None, *stream.payloads[1:]]
            stream = bitstream.salvage(bitstream.pack_slices(stream.header, lost, stream.layout))
        found.append(codec.decode_stream(stream))
    return found


def decoder_of(codec: TrainedCodec) -> nn.Module:
    """The network that draws pictures."""
    if isinstance(codec, GescoCodec):
        return codec.network
    assert isinstance(codec, VqCodec | AutoencoderCodec | VariableRateCodec)
    return codec.model.decoder


def test_a_batch_gives_the_pictures_of_each_alone(kind: str) -> None:
    codec = KINDS[kind]()
    sent = latents(codec, SETTINGS.get(kind, (0,) * 5))
    assert (sent[2].damaged == (0,)) == (kind in ("vq", "variable-rate"))
    alone = [codec.reconstruct(latent).astype(int) for latent in sent]
    sizes: list[int] = []
    decoder_of(codec).register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    together = codec.reconstruct_batch(sent)
    assert len({picture.tobytes() for picture in together}) == 5
    for picture, expected in zip(together, alone, strict=True):
        assert picture.shape == expected.shape
        assert np.abs(picture - expected).max() <= 1
    if kind == "gesco":  # every step of the sampler looks at each picture with its map and without
        assert set(sizes) == {8, 2}
    else:
        assert sizes == [4, 1]
    other = codec.reconstruct_batch([sent[4], sent[3], sent[0]])
    for picture, expected in zip(other, (alone[4], alone[3], alone[0]), strict=True):
        assert np.abs(picture - expected).max() <= 1


def test_pictures_that_take_tiles_go_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = KINDS["vq"]()
    sent = latents(codec, (0,) * 5)[:2]
    monkeypatch.setattr("gosvae.codecs.tiling.TILE_PIXELS", 48)
    sizes: list[int] = []
    decoder_of(codec).register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    pictures = codec.reconstruct_batch(sent)
    assert set(sizes) == {1}
    np.testing.assert_array_equal(pictures[1], codec.reconstruct(sent[1]))


def test_batches_are_as_large_as_the_transform_allows() -> None:
    codec = KINDS["vq"]()
    sent = latents(codec, (0,) * 5)
    whole = codec.reconstruct_batch(sent)
    codec.transform.batch_pixels = 3 * 64 * 96
    sizes: list[int] = []
    decoder_of(codec).register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    for picture, expected in zip(codec.reconstruct_batch(sent), whole, strict=True):
        assert np.abs(picture.astype(int) - expected).max() <= 1
    assert sizes == [3, 1, 1]


def test_in_bf16_a_batch_gives_nearly_the_pictures_of_each_alone() -> None:
    codec = VariableRateCodec(variable_checkpoint(), options=VariableRateOptions(precision="bf16"))
    sent = latents(codec, SETTINGS["variable-rate"])
    for picture, latent in zip(codec.reconstruct_batch(sent), sent, strict=True):
        difference = np.abs(picture.astype(int) - codec.reconstruct(latent))
        assert difference.max() <= 8
        assert difference.mean() < 1


def test_nothing_is_drawn_of_nothing() -> None:
    assert KINDS["vq"]().reconstruct_batch([]) == []
