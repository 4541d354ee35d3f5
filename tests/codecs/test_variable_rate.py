"""The variable-rate codec: levels, budgets, slices, and names that carry a rate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gosvae import bitstream
from gosvae.bitstream import SliceLayout
from gosvae.cli.main import main
from gosvae.codecs.checkpoint import load_codec_checkpoint, save_codec
from gosvae.codecs.latent import Latent
from gosvae.codecs.registry import build_codec, load_codec, split_budget
from gosvae.codecs.slices import StreamOptions, decode_slices, grid_parts
from gosvae.codecs.tiling import TILE_PIXELS
from gosvae.codecs.variable import VariableRateCodec, VariableRateOptions, stacked
from gosvae.datasets.streets import Streets
from gosvae.entropy.coder import encode_indices
from gosvae.entropy.fixed import FixedLength
from gosvae.entropy.latent_network import LEVELS
from gosvae.errors import BitstreamError, ConfigError, ForeignStreamError, RateError
from gosvae.images import write_image
from gosvae.seeding import numpy_generator
from gosvae.tensors import ImageArray
from tiny import streets, variable_checkpoint, variable_config


@pytest.fixture(scope="module")
def codec() -> VariableRateCodec:
    return VariableRateCodec(variable_checkpoint())


def test_a_higher_level_takes_more_bytes(codec: VariableRateCodec) -> None:
    image = streets()[0].image_uint8_HW3
    sizes = [len(codec.compress_at(image, level)) for level in (0, 64, 128, 192, LEVELS - 1)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    assert codec.compress(image) == codec.compress_at(image, codec.level) == codec.at(codec.level).compress(image)


def test_a_budget_is_met_by_the_highest_level_that_fits(codec: VariableRateCodec) -> None:
    image = streets()[1].image_uint8_HW3
    smallest, largest = len(codec.compress_smallest(image)), len(codec.compress_at(image, LEVELS - 1))
    budget = (smallest + largest) // 2
    data = codec.compress_to_budget(image, budget)
    level = codec.decode(data).setting
    assert len(data) <= budget < len(codec.compress_at(image, level + 1))
    longest = codec.compress_to_budget(image, 10**6)
    assert codec.decode(longest).setting == LEVELS - 1
    assert len(longest) >= largest
    with pytest.raises(RateError, match=f"smallest stream takes {smallest}"):
        codec.compress_to_budget(image, smallest - 1)


def easy_images() -> list[ImageArray]:
    """Images of few bytes, for which a less stiff assignment takes more."""
    ramp = np.linspace(0, 255, 256).astype(np.uint8)
    flat = np.full((128, 256, 3), 128, np.uint8)
    return [flat, np.tile(ramp[None, :, None], (128, 1, 3)), np.tile(ramp[:128, None, None], (1, 256, 3))]


@pytest.mark.parametrize("number", range(3))
def test_the_smallest_stream_is_never_larger_than_level_0(number: int) -> None:
    image, codec = easy_images()[number], load_codec("gosvae-variable-camvid")
    assert isinstance(codec, VariableRateCodec)
    level_0, smallest = (len(data) for data in (codec.compress_at(image, 0), codec.compress_smallest(image)))
    assert smallest <= level_0
    for budget in (smallest, level_0):
        assert len(codec.compress_to_budget(image, budget)) <= budget
    with pytest.raises(RateError, match="smallest stream takes"):
        codec.compress_to_budget(image, smallest // 2)


def test_a_budget_between_two_levels_is_used() -> None:
    context = variable_config().context.model_copy(update={"first_levels": (0, 100)})
    codec = VariableRateCodec(variable_checkpoint(config=variable_config().model_copy(update={"context": context})))
    image = streets()[0].image_uint8_HW3
    below, above = (len(codec.compress_at(image, level)) for level in (99, 100))
    assert above > 1.2 * below
    budget = below + 4 * (above - below) // 5
    data = codec.compress_to_budget(image, budget)
    assert 0.9 * budget < len(data) <= budget
    assert codec.decode(data).setting == 100


@pytest.mark.slow
@pytest.mark.parametrize("kib", [0.4, 0.7, 1.0, 1.5, 2.0, 4.0, 7.0])
def test_the_released_model_meets_budgets_within_three_per_cent(kib: float) -> None:
    codec, scenes = load_codec("gosvae-variable-camvid"), Streets(2, seed=3, height=256, width=512)
    assert isinstance(codec, VariableRateCodec)
    for i in range(len(scenes)):
        taken = len(codec.compress_to_budget(scenes[i].image_uint8_HW3, int(1024 * kib)))
        assert 0.97 * 1024 * kib <= taken <= 1024 * kib


@pytest.mark.parametrize("entropy", ["auto", "fixed", "context"])
@pytest.mark.parametrize(("slices", "layout"), [(1, "bands"), (3, "bands"), (4, "interleaved")])
def test_symbols_come_back(entropy: str, slices: int, layout: str) -> None:
    options = VariableRateOptions(entropy=entropy, slices=slices, layout=layout)  # type: ignore[arg-type]
    writer, reader = VariableRateCodec(variable_checkpoint(), options=options), VariableRateCodec(variable_checkpoint())
    image = streets()[2].image_uint8_HW3[:61, :90]
    sent = writer.quantise(writer.analyse(image), 61, 90, 77)
    received = reader.decode(writer.compress_at(image, 77))
    assert (received.setting, received.height, received.width) == (77, 61, 90)
    np.testing.assert_array_equal(received.symbols, sent.symbols)


@pytest.mark.parametrize("layout", ["bands", "interleaved"])
@pytest.mark.parametrize("entropy", ["fixed", "context"])
def test_slices_are_coded_together_and_decode_without_each_other(layout: SliceLayout, entropy: str) -> None:
    options = VariableRateOptions(entropy=entropy, slices=16, layout=layout)  # type: ignore[arg-type]
    codec = VariableRateCodec(variable_checkpoint(), options=options)
    image = streets()[1].image_uint8_HW3
    symbols = codec.quantise(codec.analyse(image), 64, 96, 150).symbols
    stream = bitstream.unpack_slices(codec.encode(Latent(symbols, 64, 96, 150)))
    grid_hw, count = (symbols.shape[1], symbols.shape[2]), len(stream.slices)
    assert count > 3
    parts, model_id = grid_parts(grid_hw, count, layout), stream.header.entropy_model_id
    model = FixedLength(codec.config.context.values) if model_id == FixedLength.model_id else None
    for part, payload in zip(parts, stream.payloads, strict=True):
        alone = encode_indices(model or codec.coder.entropy_model(150), stacked(symbols[:, *part]))
        assert payload == bytes([150]) + alone
    for kept in ({0}, {1, 3}, set(range(count))):
        slices = tuple(payload if number in kept else None for number, payload in enumerate(stream.payloads))
        found = decode_slices(codec.coder, replace(stream, slices=slices), grid_hw)
        for number, part in enumerate(parts):
            np.testing.assert_array_equal(found.symbols[:, *part], symbols[:, *part] if number in kept else -1)
    first, *others = stream.payloads
    for wrong, message in ((bytes([77]) + first[1:], r"levels \[77, 150\]"), (first + 40 * b"x", "payload of")):
        with pytest.raises(BitstreamError, match=message):
            decode_slices(codec.coder, replace(stream, slices=(wrong, *others)), grid_hw)


def test_the_shortest_of_the_entropy_models_is_taken(codec: VariableRateCodec) -> None:
    noise = Latent(numpy_generator(0).integers(codec.config.context.values, size=(8, 4, 6)), 64, 96, 10)
    fixed = VariableRateCodec(variable_checkpoint(), options=VariableRateOptions(entropy="fixed"))
    assert len(codec.encode(noise)) <= len(fixed.encode(noise))


@pytest.mark.parametrize("effort", [0, 1, 2])
def test_channels_that_are_not_coded_at_a_level_are_0(effort: int) -> None:
    context = variable_config().context.model_copy(update={"first_levels": (0, 100)})
    made = variable_checkpoint(config=variable_config().model_copy(update={"context": context}))
    codec = VariableRateCodec(made, options=VariableRateOptions(effort=effort))
    image = streets()[0].image_uint8_HW3
    for level, silent in ((99, True), (100, False)):
        symbols_Dhw = codec.decode(codec.compress_at(image, level)).symbols
        np.testing.assert_array_equal(symbols_Dhw, codec.coder.quantise(codec.analyse(image), level))
        assert (symbols_Dhw[:4] != context.bound).any()
        assert (symbols_Dhw[4:] == context.bound).all() == silent


def test_in_bf16_the_picture_is_nearly_the_same_and_streams_are_exact(codec: VariableRateCodec) -> None:
    quick = VariableRateCodec(variable_checkpoint(), options=VariableRateOptions(precision="bf16"))
    image = streets()[0].image_uint8_HW3
    latent_1Dhw, exact_1Dhw = quick.analyse(image), codec.analyse(image)
    assert not torch.equal(latent_1Dhw, exact_1Dhw)
    torch.testing.assert_close(latent_1Dhw, exact_1Dhw, rtol=0.02, atol=0.02 * float(exact_1Dhw.abs().max()))
    data = quick.at(200).compress(image)
    np.testing.assert_array_equal(codec.decode(data).symbols, quick.coder.quantise(latent_1Dhw, 200))
    difference_HW3 = np.abs(quick.decompress(data).astype(int) - codec.decompress(data))
    assert 0 < difference_HW3.max() <= 8
    assert difference_HW3.mean() < 1.0


def test_other_kinds_have_one_precision() -> None:
    for name in ("gosvae-camvid", "avif"):
        with pytest.raises(ConfigError, match=f"'{name}' has no option precision"):
            load_codec(name, precision="bf16")


def test_tiles_give_the_same_picture(codec: VariableRateCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.tile(streets()[0].image_uint8_HW3, (10, 10, 1))[: TILE_PIXELS + 90, : TILE_PIXELS + 300]
    tiled = codec.compress(image)
    monkeypatch.setattr("gosvae.codecs.tiling.TILE_PIXELS", 10 * TILE_PIXELS)
    whole = codec.compress(image)
    symbols, others = codec.decode(tiled).symbols, codec.decode(whole).symbols
    assert np.mean(symbols == others) > 0.999  # rounding of floats may move one that lies in between
    seen = codec.decompress(whole).astype(int)
    monkeypatch.undo()
    assert np.abs(codec.decompress(whole).astype(int) - seen).max() <= 1


def test_streams_of_another_model_are_refused(codec: VariableRateCodec) -> None:
    data = codec.compress(streets()[0].image_uint8_HW3)
    made = variable_checkpoint()
    made.context["levels"] = made.context["levels"].roll(1, 0)
    with pytest.raises(ForeignStreamError):
        VariableRateCodec(made).decompress(data)
    with pytest.raises(ForeignStreamError):
        VariableRateCodec(variable_checkpoint(seed=5)).decompress(data)
    header = bitstream.unpack(data)[0]
    with pytest.raises(BitstreamError, match="damaged"):
        codec.decompress(bitstream.pack_slices(header, [b""]))


def test_options_that_it_cannot_meet_are_refused() -> None:
    with pytest.raises(ConfigError, match="'tiny-variable' has no option version: it has level, budget_bytes, entropy"):
        build_codec(variable_checkpoint(), options=StreamOptions(version=1, entropy="fixed"))
    with pytest.raises(ConfigError, match="context or fixed codes"):
        build_codec(variable_checkpoint(), options=StreamOptions(entropy="static"))
    for level in (-1, LEVELS):
        with pytest.raises(ConfigError, match=r"expected 0\.\.255"):
            VariableRateOptions(level=level)
    with pytest.raises(ConfigError, match="at least 1"):
        VariableRateOptions(budget_bytes=0)


def test_effort_takes_fewer_bytes_and_stays_within_a_step() -> None:
    image = streets()[0].image_uint8_HW3
    codecs = [
        VariableRateCodec(variable_checkpoint(), options=VariableRateOptions(effort=effort)) for effort in (0, 1, 2)
    ]
    plain_bytes, quick_bytes, thrifty_bytes = (
        sum(len(codec.compress_at(image, level)) for level in (64, 128, 192)) for codec in codecs
    )
    assert thrifty_bytes < plain_bytes
    assert quick_bytes < plain_bytes
    latent_1Dhw = codecs[0].analyse(image)
    rounded, quick, assigned = (codec.coder.quantise(latent_1Dhw, 128) for codec in codecs)
    assert np.abs(rounded - quick).max() == 1
    assert np.abs(rounded - assigned).max() == 1
    with pytest.raises(ConfigError, match="effort 10"):
        StreamOptions(effort=10)
    with pytest.raises(
        ConfigError, match="'gosvae-camvid' has no option effort: it has entropy, slices, layout, version"
    ):
        load_codec("gosvae-camvid", options=StreamOptions(effort=3))


def test_a_name_can_carry_the_rate(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    save_codec(folder, variable_checkpoint())
    assert load_codec_checkpoint(folder).fingerprint() == variable_checkpoint().fingerprint()
    image = streets()[0].image_uint8_HW3
    at_nine = load_codec(f"{folder}:9")
    assert isinstance(at_nine, VariableRateCodec)
    assert at_nine.level == 9
    assert len(load_codec(f"{folder}:0.125KiB").compress(image)) <= 128
    assert split_budget("avif:1.5KiB") == ("avif", 1536)
    assert split_budget("label-map:hf:a/b") == ("label-map:hf:a/b", None)
    for bad in ("x", "999", "-1", "zKiB", "0.0001KiB"):
        with pytest.raises(ConfigError):
            load_codec(f"{folder}:{bad}")
    with pytest.raises(ConfigError, match="rate of 'gosvae-camvid' is fixed"):
        load_codec("gosvae-camvid:3")


def test_commands_take_a_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, image = tmp_path / "mine", tmp_path / "a.png"
    save_codec(folder, variable_checkpoint())
    write_image(image, streets()[0].image_uint8_HW3)
    assert main(["compress", str(image), "--codec", str(folder), "--kib", "0.15"]) == 0
    data = (tmp_path / "a.gos").read_bytes()
    assert len(data) <= 153
    assert main(["decompress", str(tmp_path / "a.gos"), "--codec", str(folder), "-o", str(tmp_path / "b.png")]) == 0
    assert main(["compress", str(image), "--codec", str(folder), "--kib", "0.01", "--force"]) == 2
    assert f"gosvae: error: {image}: " in capsys.readouterr().err  # the message says which of several images it was
    assert main(["info", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "variable-rate autoencoder, stride 16" in shown
    assert main(["compress", str(image), "--codec", "gosvae-camvid", "--kib", "1", "--force"]) == 2
    assert "rate of 'gosvae-camvid' is fixed" in capsys.readouterr().err
    sweep = ["evaluate", f"{folder}:0.15KiB", "--data", "streets:2", "--resize", "64x96", "--sweep", str(folder)]
    assert main([*sweep, "--quiet"]) == 0
    assert "tiny-variable:255" in capsys.readouterr().out


def test_the_device_does_not_matter_to_the_count_of_parameters(codec: VariableRateCodec) -> None:
    learned = sum(p.numel() for p in codec.model.parameters())
    assert codec.parameter_count == learned + sum(value.numel() for value in codec.checkpoint.context.values())
    assert not any(p.requires_grad for p in codec.model.parameters())
    assert isinstance(codec.analyse(streets()[0].image_uint8_HW3), torch.Tensor)


def test_what_is_lost_is_marked_and_the_rest_is_as_sent() -> None:
    image = streets()[0].image_uint8_HW3
    codec = VariableRateCodec(variable_checkpoint(), options=VariableRateOptions(slices=4, layout="interleaved"))
    data = codec.compress_at(image, 200)
    whole = codec.decompress_damaged(data)
    np.testing.assert_array_equal(whole.image_uint8_HW3, codec.decompress(data))
    assert whole.damaged == ()
    assert not whole.concealed_HW.any()
    stream = bitstream.unpack_slices(data)
    damaged = bitstream.pack_slices(stream.header, [None, *stream.payloads[1:]], stream.layout)
    shown = codec.decompress_damaged(damaged)
    assert shown.damaged == (0,)
    known, sent = codec.decode_damaged(damaged), codec.decode(data).symbols
    assert known.known_hw is not None
    lost_hw = ~known.known_hw
    assert known.setting == 200
    assert 0 < lost_hw.sum() < lost_hw.size
    np.testing.assert_array_equal(known.symbols, np.where(lost_hw, -1, sent))
    np.testing.assert_array_equal(shown.concealed_HW[::16, ::16], lost_hw)
    with pytest.raises(BitstreamError):
        codec.decompress(damaged)
    with pytest.raises(BitstreamError):
        codec.decompress_damaged(bitstream.pack_slices(stream.header, [None] * 4, stream.layout))


def test_the_decoder_knows_what_is_lost() -> None:
    codec = VariableRateCodec(variable_checkpoint())
    codec.model.decoder.from_lost.weight.fill_(0.5)
    symbols = np.full((codec.config.context.channels, 4, 6), codec.config.context.bound)
    lost = symbols.copy()
    lost[:, 1, 2] = -1
    seen, without = (codec.reconstruct(Latent(each, 64, 96, 10)) for each in (symbols, lost))
    assert (seen != without).any()
