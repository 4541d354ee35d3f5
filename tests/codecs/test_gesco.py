"""GESCO as a codec: real bytes of a class map, a picture that bytes alone decide, the sender's expert."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from gosvae import bitstream
from gosvae.codecs.cards import GescoCard
from gosvae.codecs.checkpoint import CodecCheckpoint, load_codec_checkpoint, save_codec
from gosvae.codecs.class_map import encode_class_map
from gosvae.codecs.gesco import MAX_PIXELS, GescoCodec, pad_classes
from gosvae.codecs.latent import Latent
from gosvae.codecs.registry import build_codec, load_codec
from gosvae.entropy.ids import EntropyModelId
from gosvae.errors import BitstreamError, CheckpointError, ExpertError, ForeignStreamError, ImageError
from gosvae.experts.registry import load_expert
from gosvae.tensors import LabelArray, image_to_tensor
from tiny import checkpoint, expert, streets
from tiny_gesco import gesco_checkpoint


@pytest.fixture
def codec() -> GescoCodec:
    return GescoCodec(gesco_checkpoint(), expert=expert())


def picture() -> Any:
    return streets()[0].image_uint8_HW3


def test_the_stream_holds_the_experts_map_and_nothing_else(codec: GescoCodec) -> None:
    data = codec.compress(picture())
    seen = expert().class_map(image_to_tensor(picture()))[0].numpy().astype(np.uint8)
    header, payload = bitstream.unpack(data)
    assert payload == encode_class_map(seen, len(streets().class_names), EntropyModelId.CLASS_MAP)[1]
    assert (header.height, header.width, header.entropy_model_id) == (*seen.shape, EntropyModelId.CLASS_MAP)
    assert codec.payload_bytes(data) == len(payload)
    np.testing.assert_array_equal(codec.decode(data).symbols, seen)


def test_a_receiver_needs_no_expert_and_draws_the_same(codec: GescoCodec, tmp_path: Path) -> None:
    data = codec.compress(picture())
    save_codec(tmp_path, gesco_checkpoint())
    receiver = GescoCodec(load_codec_checkpoint(tmp_path))
    np.testing.assert_array_equal(receiver.decompress(data), codec.decompress(data))
    with pytest.raises(ExpertError, match="not part of the package"):
        receiver.compress(picture())


def test_other_maps_and_seeds_draw_other_pictures(codec: GescoCodec) -> None:
    classes = codec.class_map(picture())

    def draw(shown: LabelArray, seed: str) -> npt.NDArray[np.int64]:
        return codec.reconstruct(Latent(shown.astype(np.int64), *shown.shape, seed=seed)).astype(np.int64)

    first, again, other = (draw(classes, seed) for seed in ("a", "a", "b"))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 1
    assert np.abs(first - draw(classes[:, ::-1], "a")).mean() > 0.5


def test_labels_can_be_sent_in_place_of_the_experts_map(codec: GescoCodec) -> None:
    labels = np.zeros((20, 30), np.uint8)
    labels[5:, 10:] = 3
    data = codec.compress_map(labels)
    np.testing.assert_array_equal(codec.decode(data).symbols, labels)
    assert codec.decompress(data).shape == (20, 30, 3)


def test_the_named_expert_is_loaded_when_it_is_needed() -> None:
    embedded = load_expert("embedded")
    assert embedded.info.source == "embedded"
    codec = build_codec(gesco_checkpoint(embedded))
    assert isinstance(codec, GescoCodec)
    np.testing.assert_array_equal(
        codec.class_map(picture()), embedded.class_map(image_to_tensor(picture()))[0].numpy().astype(np.uint8)
    )


def test_another_expert_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExpertError, match=r"was trained with the expert 'random'.*got 'expert-camvid'"):
        GescoCodec(gesco_checkpoint(), expert=load_expert("embedded"))
    given = gesco_checkpoint()
    assert isinstance(given.card, GescoCard)
    reference = given.card.expert.model_copy(update={"source": "embedded"})
    save_codec(tmp_path, replace(given, card=given.card.model_copy(update={"expert": reference})))
    with pytest.raises(ExpertError, match="compress with the expert of the training"):
        load_codec(tmp_path).compress(picture())


def test_foreign_and_impossible_streams_are_refused(codec: GescoCodec) -> None:
    data = codec.compress(picture())
    header, payload = bitstream.unpack(data)
    with pytest.raises(ForeignStreamError):
        GescoCodec(gesco_checkpoint(seed=1)).decompress(data)
    side = int(MAX_PIXELS**0.5) + 1
    for changed, message in {
        bitstream.Header(codec.fingerprint, header.height, header.width, 0): "unknown entropy model 0",
        bitstream.Header(codec.fingerprint, side, side, EntropyModelId.CLASS_MAP): f"at most {MAX_PIXELS}",
        bitstream.Header(codec.fingerprint, 7, 9, EntropyModelId.CLASS_MAP): "not a class map",
    }.items():
        with pytest.raises(BitstreamError, match=message):
            codec.decompress(bitstream.pack(changed, payload))


def test_pictures_that_are_too_large_are_refused(codec: GescoCodec) -> None:
    with pytest.raises(ImageError, match=f"takes at most {MAX_PIXELS} pixels"):
        codec.compress(np.broadcast_to(np.uint8(0), (2049, 2048, 3)))


def test_checkpoints_of_another_kind_or_size_are_refused() -> None:
    with pytest.raises(CheckpointError, match="kind 'gesco' was expected"):
        GescoCodec(checkpoint())
    given = gesco_checkpoint()
    assert isinstance(given.card, GescoCard)
    wider = given.card.model_copy(update={"model": given.card.model.model_copy(update={"width": 16})})
    with pytest.raises(CheckpointError, match="do not fit"):
        GescoCodec(CodecCheckpoint(wider, given.weights, given.counts, {}))


def test_it_says_what_it_is(codec: GescoCodec) -> None:
    assert codec.parameter_count == sum(v.numel() for v in gesco_checkpoint().weights.values())
    text = " ".join(codec.description.values())
    for part in ("semantic diffusion", "11 classes of random, edges", "ddim, 3 of 1000 steps, guidance 2"):
        assert part in text


def test_padding_repeats_the_edge_classes() -> None:
    padded = pad_classes(torch.tensor([[[1, 2, 3], [4, 5, 6]]]), 4)
    assert padded.tolist() == [[[1, 2, 3, 3], [4, 5, 6, 6], [4, 5, 6, 6], [4, 5, 6, 6]]]
