"""The trained video codec: what the decoder shows is what the encoder coded, or an error, whatever is lost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gosvae.codecs.checkpoint import load_codec_checkpoint, save_codec
from gosvae.codecs.registry import models_folder
from gosvae.codecs.sequence.codec import SequenceCodec
from gosvae.codecs.sequence.encoder import SequenceEncoder, SequenceOptions
from gosvae.codecs.sequence.format import HEADER_BYTES, FrameHeader, Mode, SessionHeader, is_session
from gosvae.codecs.temporal_model import load_temporal_model, save_temporal_model
from gosvae.codecs.variable import VariableRateCodec
from gosvae.errors import (
    BitstreamError,
    CheckpointError,
    ConfigError,
    ForeignStreamError,
    MissingReferenceError,
    RateError,
    ShapeError,
)
from gosvae.seeding import numpy_generator
from gosvae.tensors import ImageArray
from tiny import sequence_codec, streets, temporal_model, variable_checkpoint


def frames(count: int, *, still: bool = False) -> list[ImageArray]:
    """Frames of a street that moves by two pixels a frame, or not at all, with noise of their own."""
    picture, generator = streets()[0].image_uint8_HW3, numpy_generator(1)
    moved = (np.roll(picture, 0 if still else 2 * number, axis=1).astype(np.float64) for number in range(count))
    noise = 0.0 if still else 3.0
    return [np.clip(x + noise * generator.standard_normal(x.shape), 0, 255).astype(np.uint8) for x in moved]


def noise(count: int) -> list[ImageArray]:
    """Frames that have nothing in common."""
    generator = numpy_generator(2)
    return [generator.integers(256, size=(64, 96, 3)).astype(np.uint8) for _ in range(count)]


def encoder_of(codec: SequenceCodec) -> SequenceEncoder:
    return codec.encoder(64, 96, frames_per_second=10.0)


@pytest.mark.parametrize("options", [{}, {"slices": 3}, {"slices": 4, "layout": "interleaved"}, {"effort": 0}])
def test_a_decoder_has_the_symbols_of_the_encoder(options: dict[str, object]) -> None:
    codec = sequence_codec(level=100, **options)
    encoder, decoder = encoder_of(codec), codec.decoder()
    for number, frame in enumerate(frames(4)):
        data = encoder.encode(frame)
        assert is_session(data) == (number == 0)
        latent = decoder.decode_latent(data)
        assert encoder.last is not None
        np.testing.assert_array_equal(latent.symbols, encoder.last.memory.symbols)
        assert decoder.number == number


def _with_transform(codec: SequenceCodec, kind: str) -> SequenceCodec:
    """The codec with networks that compute in other floats; its entropy models stay as they are."""
    transform = codec.codec.transform
    if kind == "bf16":
        transform.precision = "bf16"  # type: ignore[attr-defined]
    elif kind == "float64":
        model = codec.codec.model
        model.encoder.double()
        transform.analyse = lambda x_13HW: model.transform(x_13HW.double())  # type: ignore[method-assign]
    return codec


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("kind", ["32", "bf16", "float64"])
def test_symbols_depend_on_neither_threads_nor_floats_of_the_transform(kind: str, slices: int) -> None:
    before, film = torch.get_num_threads(), [*frames(2), *noise(2)]
    makers, coded, symbols = {"32", kind}, {}, {}
    try:
        for threads, maker in [(1, "32"), (3, kind)]:
            torch.set_num_threads(threads)
            encoder = encoder_of(_with_transform(sequence_codec(level=100, slices=slices), maker))
            coded[maker], symbols[maker] = [], []
            for frame in film:
                coded[maker].append(encoder.encode(frame))
                assert encoder.last is not None
                symbols[maker].append(encoder.last.memory.symbols)
        for threads, reader in [(1, kind), (2, "32"), (3, kind)]:
            torch.set_num_threads(threads)
            codec = _with_transform(sequence_codec(level=100, slices=slices), reader)
            for maker in makers:
                decoder = codec.decoder()
                for data, expected in zip(coded[maker], symbols[maker], strict=True):
                    np.testing.assert_array_equal(decoder.decode_latent(data).symbols, expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["32", "bf16", "float64"])
def test_a_latent_gives_the_same_bytes_whatever_the_threads(kind: str) -> None:
    """The search for symbols computes in floats too; frames of the same latent are the same on every machine."""
    film = [*frames(2), *noise(2)]
    latents = [sequence_codec(level=100).codec.analyse(frame) for frame in film]
    before, coded = torch.get_num_threads(), []
    try:
        for threads, transform in [(1, "32"), (3, kind)]:
            torch.set_num_threads(threads)
            codec = _with_transform(sequence_codec(level=100), transform)
            given = iter(latents)
            codec.codec.analyse = lambda _, given=given: next(given)  # type: ignore[misc, method-assign]
            encoder = encoder_of(codec)
            coded.append([encoder.encode(frame) for frame in film])
    finally:
        torch.set_num_threads(before)
    assert coded[0] == coded[1]


def test_the_pictures_are_those_of_the_image_codec() -> None:
    codec = sequence_codec(level=100)
    encoder, decoder = encoder_of(codec), codec.decoder()
    first, second = frames(2)
    image = codec.codec.decompress(codec.codec.compress_at(first, 100))
    np.testing.assert_array_equal(decoder.decode(encoder.encode(first)), image)
    assert decoder.decode(encoder.encode(second)).shape == (64, 96, 3)


def test_nothing_new_takes_four_bytes() -> None:
    encoder = encoder_of(sequence_codec(level=100))
    first, *others = (encoder.encode(frame) for frame in frames(4, still=True))
    assert len(first) > HEADER_BYTES + 4
    assert [len(data) for data in others] == [4, 4, 4]


def test_no_frame_takes_more_than_two_bytes_above_its_intra_size() -> None:
    codec = sequence_codec(level=100)
    encoder = encoder_of(codec)
    for frame in [*frames(2), *noise(3), *frames(2)]:
        data = encoder.encode(frame)
        alone = codec.codec.compress_at(frame, 100)
        assert len(data) - HEADER_BYTES * is_session(data) <= len(alone) + 2


def test_without_losses_the_newest_frame_is_the_reference() -> None:
    encoder = encoder_of(sequence_codec(level=100))
    headers = []
    for frame in frames(5):
        data = encoder.encode(frame)
        headers.append(FrameHeader.unpack(data[HEADER_BYTES * is_session(data) :])[0])
    assert [header.distance for header in headers] == [0, 1, 1, 1, 1]
    assert [header.number for header in headers] == [0, 1, 2, 3, 4]


def test_a_lost_frame_is_told_and_the_next_one_depends_on_an_acknowledged_frame() -> None:
    codec = sequence_codec(level=100)
    encoder, decoder = encoder_of(codec), codec.decoder()
    moving = iter(frames(9, still=True))
    decoder.decode(encoder.encode(next(moving)))
    encoder.acknowledge(0)
    encoder.encode(next(moving))  # lost on the way
    with pytest.raises(MissingReferenceError, match="frame 2 depends on frame 1"):
        decoder.decode(encoder.encode(next(moving)))
    encoder.lost()
    data = encoder.encode(next(moving))
    assert FrameHeader.unpack(data)[0].distance == 3
    decoder.decode(data)
    encoder.acknowledge(3)
    assert FrameHeader.unpack(encoder.encode(next(moving)))[0].distance == 1
    encoder.acknowledge(77)  # was never sent
    encoder.acknowledge(0)  # is known already
    assert FrameHeader.unpack(encoder.encode(next(moving)))[0].distance == 1


def test_without_an_acknowledged_frame_a_loss_makes_a_key_frame() -> None:
    codec = sequence_codec(level=100)
    encoder, decoder = encoder_of(codec), codec.decoder()
    first, second, third, fourth = frames(4)
    encoder.encode(first)
    with pytest.raises(MissingReferenceError, match="key frame"):
        decoder.decode(encoder.encode(second))
    encoder.lost()
    data = encoder.encode(third)
    assert is_session(data)
    decoder.decode(data)
    encoder.begin_again()
    assert is_session(encoder.encode(fourth))


def test_a_decoder_may_begin_at_any_key_frame() -> None:
    codec = sequence_codec(level=100, key_interval=3)
    encoder = encoder_of(codec)
    coded = [encoder.encode(frame) for frame in frames(7)]
    assert [is_session(data) for data in coded] == [True, False, False, True, False, False, True]
    decoder = codec.decoder()
    for data in coded[3:]:
        decoder.decode(data)


def test_frames_far_apart_are_not_mistaken_for_one_another() -> None:
    codec = sequence_codec(level=100)
    encoder, decoder = encoder_of(codec), codec.decoder()
    still = frames(1)[0]
    for number in range(300):
        data = encoder.encode(still)
        if number % 50 == 0:
            encoder.acknowledge(number)
        assert decoder.decode_latent(data).setting == 100
    assert decoder.number == 299


def test_damage_is_refused() -> None:
    codec = sequence_codec(level=100)
    encoder, decoder = encoder_of(codec), codec.decoder()
    first, second = (encoder.encode(frame) for frame in frames(2))
    decoder.decode(first)
    for position in range(len(second)):
        for change in (1, 128):
            bad = bytearray(second)
            bad[position] ^= change
            with pytest.raises(BitstreamError):
                decoder.decode_latent(bytes(bad))
    for cut in range(len(second)):
        with pytest.raises(BitstreamError):
            decoder.decode_latent(second[:cut])
    for cut in range(HEADER_BYTES):
        with pytest.raises(BitstreamError):
            codec.decoder().decode_latent(first[:cut])
    decoder.decode(second)


def test_another_reference_is_refused() -> None:
    codec = sequence_codec(level=100)
    one, other = encoder_of(codec), encoder_of(codec)
    first, second, third = frames(3)
    decoder = codec.decoder()
    decoder.decode(one.encode(first))
    other.encode(third)
    with pytest.raises(BitstreamError, match="its reference"):
        decoder.decode(other.encode(second))


def test_sessions_of_other_models_are_refused() -> None:
    codec = sequence_codec(level=100)
    data = encoder_of(codec).encode(frames(1)[0])
    stranger = VariableRateCodec(variable_checkpoint(seed=1))
    with pytest.raises(ForeignStreamError, match="fingerprint"):
        SequenceCodec(stranger, temporal_model(stranger)).decoder().decode(data)
    header, rest = SessionHeader.unpack(data)
    unlike = SessionHeader(header.fingerprint, b"mark", header.height, header.width)
    with pytest.raises(ForeignStreamError, match="temporal model"):
        codec.decoder().decode(unlike.pack() + rest)


def test_a_budget_holds_and_quiet_scenes_rise_to_higher_levels() -> None:
    codec = sequence_codec(level=0)
    encoder = encoder_of(codec)
    picture = frames(1)[0]
    budget = len(encoder.encode(picture)) + 20
    encoder.begin_again()
    levels = []
    for _ in range(14):
        data = encoder.encode(picture, budget_bytes=budget)
        assert len(data) <= budget
        assert encoder.last is not None
        levels.append(encoder.last.memory.level)
    assert levels[-1] > levels[0]
    encoder.begin_again()
    with pytest.raises(RateError, match="lowest level"):
        encoder.encode(picture, budget_bytes=HEADER_BYTES + 5)


def test_wrong_sizes_and_options_are_refused() -> None:
    encoder = encoder_of(sequence_codec(level=100))
    with pytest.raises(ShapeError, match="64x96"):
        encoder.encode(frames(1)[0][:32])
    for options in ({"level": 256}, {"key_interval": 0}, {"effort": 10}, {"stiffness": 0.0}):
        with pytest.raises(ConfigError):
            SequenceOptions(**options)  # type: ignore[arg-type]
    with pytest.raises(BitstreamError, match="65535"):
        SessionHeader(b"1234", b"1234", 0, 10)


def test_headers_are_read_as_they_are_written() -> None:
    for header in (
        FrameHeader(5, Mode.INTRA, 9),
        FrameHeader(127, Mode.NETWORK, None, 1, 7),
        FrameHeader(0, Mode.TABLES, 255, 63, 3),
        FrameHeader(1, Mode.UNCHANGED, None, 8),
    ):
        data = header.pack()
        assert FrameHeader.unpack(data + b"payload") == (header, len(data))
    for bad in (
        b"",
        b"\0",
        b"\0\0",
        b"\1\1\1",
        b"\x40\0",
        b"\x40\0\7",
        b"\x40\0\x40",
        b"\xc9\0",
        b"\xc1\1\1",
        b"\x41\1",
    ):
        with pytest.raises(BitstreamError):
            FrameHeader.unpack(bad)
    session = SessionHeader(b"1234", b"5678", 3, 65535, 29.97, 5, "interleaved")
    assert SessionHeader.unpack(session.pack() + b"rest") == (session, b"rest")


def test_a_codec_and_its_temporal_model_are_stored_together(tmp_path: Path) -> None:
    made = sequence_codec(level=100)
    save_codec(tmp_path, made.codec.checkpoint)
    with pytest.raises(CheckpointError, match="no temporal model"):
        SequenceCodec.load(tmp_path)
    fingerprint = VariableRateCodec.load(tmp_path).checkpoint.fingerprint()
    assert fingerprint == made.codec.checkpoint.fingerprint()
    save_temporal_model(tmp_path, made.model)
    assert load_temporal_model(tmp_path, fingerprint).mark == made.model.mark
    loaded = SequenceCodec.load(tmp_path, options=SequenceOptions(level=100))
    data = encoder_of(loaded).encode(frames(1)[0])
    made.decoder().decode(data)
    with pytest.raises(CheckpointError, match="another codec"):
        load_temporal_model(tmp_path, bytes(32))
    (tmp_path / "temporal.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="damaged"):
        load_temporal_model(tmp_path, fingerprint)


@pytest.mark.parametrize("layout", ["bands", "interleaved"])
def test_slices_that_come_one_by_one_make_the_frame(layout: str) -> None:
    codec = sequence_codec(level=100, slices=3, layout=layout)
    encoder, whole, single = encoder_of(codec), codec.decoder(), codec.decoder()
    for frame in [*frames(2), *noise(2), noise(2)[-1]]:
        data = encoder.encode(frame)
        expected = whole.decode_latent(data)
        latent = single.decode_parts(encoder.parts)
        assert len(encoder.parts) == (1 if encoder.last is not None and not any(encoder.last.payloads) else 3)
        assert latent.known_hw is None
        np.testing.assert_array_equal(latent.symbols, expected.symbols)
        assert (single.distance, single.unchanged) == (whole.distance, whole.unchanged)


def test_a_lost_slice_is_concealed_told_and_never_a_reference() -> None:
    codec = sequence_codec(level=100, slices=2, layout="interleaved")
    encoder, decoder = encoder_of(codec), codec.decoder()
    first, second, third = noise(3)
    encoder.encode(first)
    before = decoder.decode_parts(encoder.parts).symbols
    encoder.acknowledge(0)
    encoder.encode(second)
    assert encoder.last is not None
    sent, part = encoder.last.memory.symbols, encoder.parts[1]
    latent = decoder.decode_parts([None, part])
    assert latent.damaged == (0,)
    assert latent.known_hw is not None
    known_hw = latent.known_hw
    assert 0 < known_hw.sum() < known_hw.size
    np.testing.assert_array_equal(latent.symbols[:, known_hw], sent[:, known_hw])
    np.testing.assert_array_equal(latent.symbols[:, ~known_hw], before[:, ~known_hw])
    assert codec.codec.concealed_pixels(latent).mean() == 1.0 - known_hw.mean()
    assert decoder.number == 0
    encoder.encode(third)
    with pytest.raises(MissingReferenceError, match="frame 2 depends on frame 1"):
        decoder.decode_parts(encoder.parts)


def test_a_key_frame_of_which_a_slice_is_lost_is_shown_in_part() -> None:
    codec = sequence_codec(level=100, slices=2, layout="interleaved")
    encoder, decoder = encoder_of(codec), codec.decoder()
    encoder.encode(frames(1)[0])
    latent = decoder.decode_parts([encoder.parts[0], None])
    assert latent.known_hw is not None
    assert (latent.symbols[:, ~latent.known_hw] == -1).all()
    assert codec.codec.reconstruct(latent).shape == (64, 96, 3)
    assert decoder.newest is None


def test_parts_of_different_frames_are_refused() -> None:
    codec = sequence_codec(level=100, slices=2)
    encoder, decoder = encoder_of(codec), codec.decoder()
    coded = []
    for frame in noise(3):
        encoder.encode(frame)
        coded.append(encoder.parts)
    decoder.decode_parts(coded[0])
    for parts in (
        [coded[1][1], coded[1][0]],
        [coded[1][0], coded[2][1]],
        [coded[0][0], coded[1][1]],
        [coded[1][0], coded[0][1]],
        [*coded[1], coded[1][1]],
        [coded[1][0][:-1], coded[1][1]],
        [coded[1][0][:1], None],
    ):
        with pytest.raises(BitstreamError):
            decoder.decode_parts(parts)
    decoder.decode_parts(coded[0])
    decoder.decode_parts(coded[1])


def test_on_a_link_that_loses_frames_only_acknowledged_ones_are_references() -> None:
    encoder = encoder_of(sequence_codec(level=100))
    still = frames(1)[0]

    def distance() -> int:
        data = encoder.encode(still)
        return FrameHeader.unpack(data[HEADER_BYTES * is_session(data) :])[0].distance

    assert [distance() for _ in range(3)] == [0, 1, 1]
    encoder.acknowledge(0)
    encoder.lost()
    assert distance() == 3  # frame 3 on frame 0
    encoder.acknowledge(3)
    assert [distance() for _ in range(2)] == [1, 1]
    assert not encoder.is_lossy
    encoder.lost()
    encoder.acknowledge(5)
    assert encoder.is_lossy
    assert [distance() for _ in range(3)] == [1, 2, 3]
    for number in range(6, 80):
        encoder.acknowledge(number)
        distance()
    assert not encoder.is_lossy
    assert [distance() for _ in range(3)] == [1, 1, 1]


def test_a_codec_may_share_the_temporal_model_of_one_of_the_package(tmp_path: Path) -> None:
    folder = models_folder() / "gosvae-streets"
    fingerprint = load_codec_checkpoint(folder).fingerprint()
    own = load_codec_checkpoint(models_folder() / "gosvae-variable-camvid").fingerprint()
    model = load_temporal_model(folder, fingerprint)
    assert model.card.codec == fingerprint.hex()
    assert model.mark == load_temporal_model(models_folder() / "gosvae-variable-camvid", own).mark
    with pytest.raises(CheckpointError, match="another codec"):
        load_temporal_model(folder, own)
    card = json.loads((folder / "temporal.json").read_text())
    for change, match in (
        ({"sha256": "0" * 64}, "another temporal model"),
        ({"shared": "gosvae-streets"}, "no temporal model in this package"),
        ({"shared": "gosvae-camvid"}, "no temporal model in this package"),
        ({"shared": "../gosvae-variable-camvid"}, "no temporal model in this package"),
        ({"shared": str(tmp_path)}, "no temporal model in this package"),
    ):
        (tmp_path / "temporal.json").write_text(json.dumps({**card, **change}))
        with pytest.raises(CheckpointError, match=match):
            load_temporal_model(tmp_path, fingerprint)
