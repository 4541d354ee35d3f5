"""The label-map codec: what the receiver gets is the expert's own map, to the last pixel."""

from __future__ import annotations

import numpy as np
import pytest

from gosvae import bitstream
from gosvae.codecs.label_map import LabelMapCodec
from gosvae.codecs.registry import load_codec
from gosvae.datasets.palettes import class_palette
from gosvae.entropy.ids import EntropyModelId
from gosvae.errors import BitstreamError, ConfigError, ExpertError, ForeignStreamError
from gosvae.experts.compact import random_compact_expert
from gosvae.tensors import image_to_tensor
from tiny import expert, streets


def test_the_receiver_gets_the_map_and_its_colours() -> None:
    codec, image = LabelMapCodec(expert()), streets()[0].image_uint8_HW3
    expected = expert().class_map(image_to_tensor(image))[0].numpy()
    data = codec.compress(image)
    np.testing.assert_array_equal(codec.class_map(data), expected)
    np.testing.assert_array_equal(codec.decompress(data), class_palette(streets().class_names)[expected])
    assert len(np.unique(expected)) > 1


def test_the_stream_is_the_container_with_the_fingerprint_of_the_expert() -> None:
    codec, image = LabelMapCodec(expert()), streets()[0].image_uint8_HW3
    data = codec.compress(image)
    header, payload = bitstream.unpack(data)
    assert (header.height, header.width, header.entropy_model_id) == (*image.shape[:2], EntropyModelId.LABEL_MAP)
    assert bytes.fromhex(expert().fingerprint()).startswith(header.fingerprint)
    assert codec.payload_bytes(data) == len(payload) < len(data)
    assert codec.parameter_count == sum(p.numel() for p in expert().parameters())


def test_streams_of_others_are_refused() -> None:
    image = streets()[0].image_uint8_HW3[:16, :16]
    codec, other = LabelMapCodec(expert()), LabelMapCodec(random_compact_expert(streets().class_names))
    data = codec.compress(image)
    with pytest.raises(ForeignStreamError, match="made by another codec"):
        other.decompress(data)
    header, payload = bitstream.unpack(data)
    foreign = bitstream.Header(header.fingerprint, header.height, header.width, 1)
    with pytest.raises(BitstreamError, match="entropy model 1 where a label map has one of"):
        codec.class_map(bitstream.pack(foreign, payload))
    taller = bitstream.Header(header.fingerprint, 9 * header.height, header.width, EntropyModelId.LABEL_MAP)
    with pytest.raises(BitstreamError, match="are not a class map of 144x16 pixels"):
        codec.class_map(bitstream.pack(taller, payload))


def test_more_classes_than_a_byte_holds_are_refused() -> None:
    many = random_compact_expert(tuple(f"class {i}" for i in range(255)))
    many.info = type(many.info)("many", tuple(map(str, range(257))), 8, 8)
    with pytest.raises(ConfigError, match="257 classes: a label map holds at most 256"):
        LabelMapCodec(many)


def test_it_has_a_name() -> None:
    codec = load_codec("label-map")
    assert isinstance(codec, LabelMapCodec)
    assert codec.name == "label-map"
    assert len(codec.class_names) == 11
    assert load_codec("label-map:embedded").class_names == codec.class_names
    with pytest.raises(ExpertError, match="unknown expert"):
        load_codec("label-map:nowhere")
