"""Streams of every released model decode for ever to the same symbols, whatever changes in the code.

`python tests/golden/test_released_models.py` writes the files of models that have none; never replace a file that was
released. A stream whose symbols or fingerprint no longer fit is a breaking change.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gosvae.codecs.label_map import LabelMapCodec
from gosvae.codecs.registry import codec_of_stream, embedded_codecs, load_codec
from gosvae.codecs.slices import StreamOptions
from gosvae.codecs.variable import VariableRateCodec
from gosvae.codecs.vq import VqCodec
from gosvae.config import Config, identity, parse, to_tree
from gosvae.entropy.context import ContextConfig
from gosvae.errors import ConfigError
from gosvae.experts.registry import embedded_experts, load_expert
from gosvae.images import read_image, write_image
from gosvae.nn.autoencoder import AutoencoderConfig
from gosvae.nn.pyramid import PyramidConfig
from gosvae.quantizers import VqConfig

FOLDER = Path(__file__).parent / "models"
SCENE = FOLDER / "scene.png"

Symbols = npt.NDArray[Any]


def golden_files(model: str) -> list[Path]:
    """Return the committed streams of a model, at least one."""
    files = sorted((FOLDER / model).glob("*.gsva"))
    assert files, f"{model} is released without a golden stream: run {Path(__file__).name} as a script"
    return files


def expected(path: Path, suffix: str) -> Path:
    """Return the file of a committed stream's symbols or pixels; streams of one-rate codecs share theirs."""
    own = path.with_suffix(suffix)
    return own if own.exists() else path.with_name(f"all{suffix}")


def symbols_of(path: Path) -> Symbols:
    """Return the symbols that a committed stream decodes to."""
    symbols: Symbols = np.load(expected(path, ".npz"))["symbols"]
    return symbols


@pytest.mark.parametrize("model", embedded_codecs())
def test_streams_of_released_codecs_decode_to_the_same_symbols(model: str) -> None:
    for path in golden_files(model):
        data = path.read_bytes()
        codec = codec_of_stream(data)
        assert codec.name == model
        assert isinstance(codec, VqCodec | VariableRateCodec)
        np.testing.assert_array_equal(codec.decode(data).symbols, symbols_of(path))
        # Decoders compute in floating point, so a pixel may differ by the rounding of the last bit.
        pixels = read_image(expected(path, ".png")).astype(np.int64)
        assert np.abs(codec.decompress(data).astype(np.int64) - pixels).max() <= 2


@pytest.mark.parametrize("expert", embedded_experts())
def test_label_maps_of_released_experts_decode_to_the_same_classes(expert: str) -> None:
    codec = LabelMapCodec(load_expert(expert))
    for path in golden_files(expert):
        np.testing.assert_array_equal(codec.class_map(path.read_bytes()), symbols_of(path))


@pytest.fixture
def other_defaults() -> Iterator[None]:
    """Change defaults of the configurations, as a later version may."""
    changes: list[tuple[type[Config], str, Any]] = [
        (PyramidConfig, "encoder_blocks", (1, 1, 1)),
        (AutoencoderConfig, "width", 64),
        (VqConfig, "usage_decay", 0.5),
        (ContextConfig, "width", 32),
    ]
    before = [(kind, name, kind.model_fields[name].default) for kind, name, _ in changes]

    def put(values: list[tuple[type[Config], str, Any]]) -> None:
        for kind, name, value in values:
            kind.model_fields[name].default = value
            kind.model_rebuild(force=True)

    put(changes)
    assert PyramidConfig().encoder_blocks == (1, 1, 1)
    yield
    put(before)


@pytest.mark.usefixtures("other_defaults")
@pytest.mark.parametrize("model", embedded_codecs())
def test_a_changed_default_does_not_make_streams_of_released_models_foreign(model: str) -> None:
    for path in golden_files(model):
        data = path.read_bytes()
        codec = codec_of_stream(data)
        assert codec.name == model
        assert isinstance(codec, VqCodec | VariableRateCodec)
        np.testing.assert_array_equal(codec.decode(data).symbols, symbols_of(path))


def test_a_field_that_was_added_later_takes_its_neutral_value_from_old_files_alone() -> None:
    class Grown(Config):
        neutral = {"depth": 2, "old": 5}  # noqa: RUF012

        old: int = 5
        depth: int = 3
        width: int = 4

    assert parse(Grown, {}, source="a recipe").depth == 3
    stored = parse(Grown, {"width": 4}, source="a model's file", stored=True)
    assert (stored.old, stored.depth) == (5, 2)
    assert identity(stored) == {"width": 4}, "a default without a neutral value counts"
    assert identity(Grown()) == {"depth": 3, "width": 4}
    assert parse(Grown, to_tree(stored), stored=True) == stored


def variants(model: str) -> Iterator[tuple[str, StreamOptions, str]]:
    """Yield name, options and rate of the streams that are committed for a codec."""
    if isinstance(load_codec(model), VariableRateCodec):
        yield "fixed-level-40", StreamOptions(entropy="fixed"), ":40"
        for level in (0, 128, 255):
            yield f"context-level-{level}", StreamOptions(entropy="context"), f":{level}"
        yield "interleaved-level-96", StreamOptions(slices=5, layout="interleaved"), ":96"
        return
    for entropy in ("fixed", "static", "adaptive", "context"):
        try:
            options = StreamOptions(entropy=entropy)
            load_codec(model, options=options)
        except ConfigError:  # this codec has no context model
            continue
        yield entropy, options, ""
    yield "interleaved", StreamOptions(slices=5, layout="interleaved"), ""
    yield "version-1", StreamOptions(version=1), ""


def write_missing() -> None:
    """Write the streams, symbols and pictures of the released models that have none."""
    scene = read_image(SCENE)
    for model in embedded_codecs():
        folder = FOLDER / model
        for name, options, rate in variants(model) if not folder.exists() else ():
            codec = load_codec(model + rate, options=options)
            assert isinstance(codec, VqCodec | VariableRateCodec)
            data = codec.compress(scene)
            shared = name if isinstance(codec, VariableRateCodec) else "all"
            write(folder / f"{name}.gsva", data, folder / f"{shared}.npz", codec.decode(data).symbols)
            write_image(folder / f"{shared}.png", codec.decompress(data))
    for expert in embedded_experts():
        folder = FOLDER / expert
        if not folder.exists():
            maps = LabelMapCodec(load_expert(expert))
            data = maps.compress(scene)
            write(folder / "label-map.gsva", data, folder / "label-map.npz", maps.class_map(data))


def write(stream: Path, data: bytes, file: Path, symbols: Symbols) -> None:
    """Write one stream and the symbols that it decodes to, in the smallest type that holds them."""
    stream.parent.mkdir(parents=True, exist_ok=True)
    stream.write_bytes(data)
    np.savez_compressed(file, symbols=symbols.astype(np.min_scalar_type(int(symbols.max()))))


if __name__ == "__main__":
    write_missing()
