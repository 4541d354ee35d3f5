"""The VQ codec: the same indices on both sides, and never a picture from the wrong bytes."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gosvae import bitstream
from gosvae.codecs import registry
from gosvae.codecs.checkpoint import CodecCheckpoint, load_codec_checkpoint, save_codec
from gosvae.codecs.latent import Latent
from gosvae.codecs.registry import codec_of_stream, load_codec, load_vq_codec
from gosvae.codecs.slices import StreamOptions, decode_slices, encode_slices, xor_mark
from gosvae.codecs.vq import IndexCoder, VqCodec, VqOptions
from gosvae.entropy.coder import encode_indices
from gosvae.entropy.context import ContextConfig, ContextModel, ContextNetwork
from gosvae.entropy.fixed import FixedLength
from gosvae.entropy.static import StaticHistogram
from gosvae.errors import BitstreamError, CheckpointError, ConfigError, ForeignStreamError, ImageError
from gosvae.experts.compact import count_parameters
from gosvae.seeding import seed_everything
from gosvae.tensors import ImageArray
from tiny import checkpoint, model_config, streets

FIXED, STATIC = FixedLength(16).model_id, StaticHistogram(np.ones(16, np.int64)).model_id


@pytest.fixture(scope="module")
def image() -> ImageArray:
    return streets()[0].image_uint8_HW3


@pytest.mark.parametrize("quantizer", ["vq", "vq-ema", "fsq"])
@pytest.mark.parametrize("size_hw", [(64, 96), (1, 1), (1, 500), (37, 51), (3, 65)])
def test_the_receiver_gets_the_senders_indices(image: ImageArray, quantizer: str, size_hw: tuple[int, int]) -> None:
    codec = VqCodec(checkpoint(model_config(quantizer)))
    picture = np.resize(image, (*size_hw, 3))
    indices_hw = codec.indices(picture)
    assert indices_hw.shape == (-(-size_hw[0] // 4), -(-size_hw[1] // 4))
    received = codec.decode(codec.compress(picture))
    assert (received.height, received.width) == size_hw
    np.testing.assert_array_equal(received.symbols, indices_hw)
    seen = codec.reconstruct(Latent(indices_hw, *size_hw))
    np.testing.assert_array_equal(codec.decompress(codec.compress(picture)), seen)
    if size_hw == (64, 96):
        assert len(np.unique(indices_hw)) > 3  # or the test would show little


def test_the_longest_side_is_a_limit(image: ImageArray) -> None:
    codec = VqCodec(checkpoint(model_config(stride=32)))
    line = np.resize(image, (1, 65535, 3))
    assert codec.decompress(codec.compress(line)).shape == line.shape
    with pytest.raises(ImageError, match=r"at most 65535 pixels"):
        codec.compress(np.resize(image, (1, 65536, 3)))


def with_counts(counts: list[int] | np.ndarray) -> CodecCheckpoint:
    made = checkpoint()
    return CodecCheckpoint(made.card, made.weights, torch.as_tensor(counts, dtype=torch.int64), {})


def test_the_shorter_payload_is_sent(image: ImageArray) -> None:
    own = np.bincount(VqCodec(checkpoint()).indices(image).ravel(), minlength=16) + 1
    for counts, expected in ((own, STATIC), (10**6 // own**3 + 1, FIXED)):
        codec = VqCodec(with_counts(counts))
        data = codec.compress(image)
        assert bitstream.unpack(data)[0].entropy_model_id == expected
        fixed = VqCodec(with_counts(counts), options=VqOptions(entropy="fixed"))
        plain = fixed.compress(image)
        assert bitstream.unpack(plain)[0].entropy_model_id == FIXED
        assert len(data) < len(plain) if expected == STATIC else len(data) == len(plain)
        np.testing.assert_array_equal(codec.decompress(plain), fixed.decompress(data))  # each reads both
        assert codec.payload_bytes(plain) == 16 * 24 * 4 // 8
        assert 0 < codec.zero_order_bytes(data) <= codec.payload_bytes(plain)


@pytest.mark.parametrize("layout", ["bands", "interleaved"])
def test_lost_slices_leave_the_others(image: ImageArray, layout: bitstream.SliceLayout) -> None:
    whole = VqCodec(checkpoint())
    codec = VqCodec(checkpoint(), options=VqOptions(slices=6, layout=layout))
    data, indices_hw = codec.compress(image), codec.indices(image)
    stream = bitstream.unpack_slices(data)
    assert (len(stream.slices), stream.layout) == (6, layout)
    np.testing.assert_array_equal(whole.decompress(data), whole.decompress(whole.compress(image)))
    assert len(data) > len(whole.compress(image))
    damaged = bytearray(data)
    damaged[-1] ^= 1  # in the last slice
    with pytest.raises(BitstreamError, match="slice 5 of 6"):
        codec.decompress(bytes(damaged))
    partial = whole.decode_damaged(bytes(damaged))
    assert (partial.damaged, partial.height, partial.width) == ((5,), 64, 96)
    assert partial.known_hw is not None
    np.testing.assert_array_equal(partial.symbols, np.where(partial.known_hw, indices_hw, -1))
    lost = ~partial.known_hw
    assert lost.sum() == (3 * 24 if layout == "bands" else indices_hw.size // 6)
    # A band is a hole; of interleaved positions each lost one keeps known neighbours.
    assert lost[-3:].all() if layout == "bands" else not (lost[:, 1:] & lost[:, :-1]).any()
    damaged[9] ^= 1  # in the header
    with pytest.raises(BitstreamError):
        codec.decode_damaged(bytes(damaged))


def test_small_grids_take_fewer_slices(image: ImageArray) -> None:
    for layout, size_hw, expected in (("bands", (9, 96), 3), ("interleaved", (5, 5), 4), ("interleaved", (1, 1), 1)):
        options = VqOptions(slices=200, layout="bands" if layout == "bands" else "interleaved")
        codec = VqCodec(checkpoint(), options=options)
        picture = image[: size_hw[0], : size_hw[1]]
        data = codec.compress(picture)
        assert len(bitstream.unpack_slices(data).slices) == expected
        np.testing.assert_array_equal(codec.decode(data).symbols, codec.indices(picture))


def test_streams_of_version_1_are_written_and_read(image: ImageArray) -> None:
    codec = VqCodec(checkpoint(), options=VqOptions(version=1))
    data = codec.compress(image)
    assert data.startswith(b"GSVA\x01")
    newer = VqCodec(checkpoint())
    assert len(data) > len(newer.compress(image))
    np.testing.assert_array_equal(newer.decompress(data), newer.decompress(newer.compress(image)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"slices": 0}, "0 slices: expected 1..256"),
        ({"slices": 257}, "257 slices"),
        ({"version": 3}, "container version 3"),
        ({"version": 1, "slices": 2}, "container version 1 holds one slice"),
        ({"version": 1, "entropy": "context"}, "not 1 of context"),
    ],
)
def test_options_that_no_stream_meets(values: dict[str, Any], message: str) -> None:
    for options in (StreamOptions, VqOptions):
        with pytest.raises(ConfigError, match=message):
            options(**values)


def with_context(made: CodecCheckpoint, seed: int) -> CodecCheckpoint:
    """The codec with a small context model of random weights."""
    config = ContextConfig(codebook_size=16, values=(16,), embedding_width=4, width=16, taps=(4, 6, 8))
    seed_everything(seed)
    tensors = ContextNetwork(config).freeze()
    return replace(made, card=made.card.model_copy(update={"context": config}), context=tensors)


def test_a_context_model_leaves_its_mark(image: ImageArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, one, other = checkpoint(), with_context(checkpoint(), 1), with_context(checkpoint(), 2)
    assert plain.fingerprint() == one.fingerprint()
    codec = VqCodec(one, options=VqOptions(entropy="context"))
    indices_hw = np.zeros((16, 24), np.int64)
    for model in codec.entropy_models:  # which one wins is no matter here
        model_id, payloads = encode_slices(IndexCoder([model]), indices_hw, 0, 1, "bands")
        header = bitstream.Header(xor_mark(codec.fingerprint, model.mark), 64, 96, model_id)
        data = bitstream.pack(header, payloads[0])
        np.testing.assert_array_equal(codec.decode(data).symbols, indices_hw)
        if model_id != ContextModel.model_id:
            np.testing.assert_array_equal(VqCodec(plain).decode(data).symbols, indices_hw)
            continue
        with pytest.raises(ForeignStreamError, match="made by another codec"):
            VqCodec(other).decode(data)
        with pytest.raises(ForeignStreamError, match="made with a context model, which this 'tiny' does not have"):
            VqCodec(plain).decode(data)
        save_codec(tmp_path / "models" / "tiny", one)
        monkeypatch.setattr(registry, "models_folder", lambda: tmp_path / "models")
        assert codec_of_stream(data).name == "tiny"
    assert len(codec.compress(image)) <= len(VqCodec(plain, options=VqOptions(entropy="fixed")).compress(image))


def test_a_codec_without_the_entropy_model_refuses() -> None:
    with pytest.raises(ConfigError, match="this codec has no context entropy model; it has fixed, static"):
        VqCodec(checkpoint(), options=VqOptions(entropy="context"))


def test_more_indices_than_the_bytes_can_tell_are_refused() -> None:
    flat = StaticHistogram(np.array([10**9, 1], np.int64))  # about 2**-24 bits an index
    both = IndexCoder([flat, FixedLength(2)])
    assert both.encode([np.zeros((200, 200), np.int64)], 0)[0] == flat.model_id
    large_hw = np.zeros((520, 520), np.int64)
    assert both.encode([large_hw], 0)[0] == FixedLength(2).model_id
    with pytest.raises(BitstreamError, match="270400 indices in 1 bytes: a stream holds at most 262144, and 1024 more"):
        IndexCoder([flat]).encode([large_hw], 0)
    header = bitstream.Header(bytes(4), 520, 520, flat.model_id)
    payload = encode_indices(flat, large_hw)
    stream = bitstream.Stream(2, header, "bands", (payload,))
    with pytest.raises(BitstreamError, match="payload of 1 bytes is not a stream of 520x520 latent positions"):
        decode_slices(both, stream, (520, 520))
    nothing = bitstream.Stream(2, header, "bands", (b"",))
    tracemalloc.start()
    with pytest.raises(BitstreamError, match="payload of 0 bytes is not a stream of 16384x16384 latent positions"):
        decode_slices(IndexCoder([FixedLength(1), StaticHistogram(np.ones(1, np.int64))]), nothing, (16384, 16384))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_another_models_stream_is_refused(image: ImageArray) -> None:
    codec = VqCodec(checkpoint())
    data = codec.compress(image)
    others = [checkpoint(seed=1), checkpoint(model_config("fsq")), with_counts([1] * 16)]
    for other in others:
        with pytest.raises(ForeignStreamError, match=codec.fingerprint[:4].hex()):
            VqCodec(other).decompress(data)
    with pytest.raises(ForeignStreamError, match=r"name the checkpoint that made it$"):
        codec_of_stream(data)
    renamed = checkpoint(name="another name")
    np.testing.assert_array_equal(VqCodec(renamed).decompress(data), codec.decompress(data))


def test_damaged_and_untrue_streams_are_refused(image: ImageArray) -> None:
    codec = VqCodec(checkpoint())
    data = codec.compress(image)
    for position in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        with pytest.raises(BitstreamError):
            codec.decompress(bytes(damaged))
    header, payload = bitstream.unpack(data)
    for height, width, model_id, text in (
        (16384, 16384, STATIC, "is not a stream of"),
        (16384, 16384, FIXED, "."),
        (128, 96, STATIC, "not a stream of"),
        (64, 96, 77, "unknown entropy model 77"),
    ):
        untrue = bitstream.pack(bitstream.Header(header.fingerprint, height, width, model_id), payload)
        with pytest.raises(BitstreamError, match=text):
            codec.decompress(untrue)
    layered = bitstream.pack_slices(header, [payload, b"detail"], detail_count=1)
    for read in (codec.decompress, codec.decompress_damaged):
        with pytest.raises(BitstreamError, match="a detail layer, which streams of"):
            read(layered)


def test_a_checkpoint_survives_the_disk(tmp_path: Path, image: ImageArray) -> None:
    made = checkpoint()
    save_codec(tmp_path / "model", made)
    loaded = load_codec_checkpoint(tmp_path / "model")
    assert loaded.fingerprint() == made.fingerprint()
    assert (loaded.card, loaded.provenance) == (made.card, made.provenance)
    codec = load_vq_codec(tmp_path / "model")
    assert codec.compress(image) == VqCodec(made).compress(image)
    assert codec.name == "tiny"
    assert codec.parameter_count == count_parameters(codec.model)
    averaged = VqCodec(checkpoint(model_config("vq-ema")))
    assert averaged.parameter_count == codec.parameter_count  # the codebook counts, whoever moves it


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_codec(tmp_path / "model", checkpoint())
    return tmp_path / "model"


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        VqCodec.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_incomplete_and_damaged_checkpoints_are_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "weights.safetensors", "provenance.json"):
        copy = tmp_path / f"without-{name}"
        shutil.copytree(folder, copy)
        (copy / name).unlink()
        assert f"cannot read {copy / name}" in refusal(copy)
    weights = folder / "weights.safetensors"
    data = weights.read_bytes()
    for part in (data[: len(data) // 2], data[:3], b"", b"\xff" * 100):
        weights.write_bytes(part)
        assert "weights.safetensors is not the file that config.json names by its SHA-256" in refusal(folder)
    weights.write_bytes(data)
    (folder / "config.json").write_text("{")
    assert "not valid JSON" in refusal(folder)


def test_configurations_that_do_not_fit_are_refused(folder: Path) -> None:
    path = folder / "config.json"
    tree = json.loads(path.read_text())
    path.write_text(json.dumps({**tree, "schema_version": 2}))
    assert "has schema 2, this gosvae reads 1: upgrade" in refusal(folder)
    path.write_text(json.dumps({**tree, "kind": "expert"}))
    assert "pass it as the expert" in refusal(folder)
    tree["model"]["autoencoder"]["width"] = 16
    path.write_text(json.dumps(tree))
    assert "do not fit its configuration" in refusal(folder)
    tree["model"]["autoencoder"]["widht"] = 16
    path.write_text(json.dumps(tree))
    with pytest.raises(ConfigError, match=r"did you mean 'width'?"):
        VqCodec.load(folder)
    (folder / "provenance.json").write_text("[]")


def test_names_of_codecs(folder: Path) -> None:
    assert load_codec(folder).name == "tiny"
    assert "jpeg" in load_codec("jpeg:30").name.lower()
    for spec, message in {
        "jepg": "unknown codec 'jepg'; did you mean 'jpeg'?",
        "runs/none": "no such checkpoint folder: runs/none",
        "jpeg:fine": "must be a whole number, got 'fine'",
        "none.gos": "no such checkpoint folder",
    }.items():
        with pytest.raises(ConfigError) as caught:
            load_codec(spec)
        assert message in str(caught.value)


def test_a_decoder_in_eight_bits_takes_less_and_decodes_the_same_indices(tmp_path: Path) -> None:
    full, small = tmp_path / "full", tmp_path / "small"
    save_codec(full, checkpoint(model_config("fsq")))
    save_codec(small, checkpoint(model_config("fsq")), eight_bit_decoder=True)
    assert (small / "weights.safetensors").stat().st_size < (full / "weights.safetensors").stat().st_size
    one, two = VqCodec.load(full), VqCodec.load(small)
    image = streets()[0].image_uint8_HW3
    np.testing.assert_array_equal(one.indices(image), two.indices(image))
    assert one.fingerprint != two.fingerprint
    difference = one.decompress(one.compress(image)).astype(int) - two.decompress(two.compress(image))
    assert np.abs(difference).mean() < 2
