"""The public interface: every name of the stub is there, and one call compresses an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gosvae
from gosvae.codecs import registry
from gosvae.codecs.checkpoint import save_codec
from gosvae.codecs.vq import VqCodec
from tiny import checkpoint, streets, variable_checkpoint

STUB = Path(gosvae.__file__).with_suffix(".pyi")


@pytest.mark.parametrize("name", gosvae.__all__)
def test_a_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(gosvae, name)
    assert name in dir(gosvae)
    assert name == "__version__" or (value.__name__ == name and value.__doc__)


def test_every_import_of_the_stub_is_a_public_name() -> None:
    lines = [line for line in STUB.read_text(encoding="utf-8").splitlines() if "import" in line and line[0] != "#"]
    assert len(lines) == len(gosvae.__all__) - 1
    assert len(set(gosvae.__all__)) == len(gosvae.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'gosvae' has no attribute 'load_codek'"):
        _ = gosvae.load_codek


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small stand-ins for the models of the package."""
    save_codec(tmp_path / registry.DEFAULT_CODEC, variable_checkpoint(name=registry.DEFAULT_CODEC))
    save_codec(tmp_path / registry.PAPER_CODEC, checkpoint(name=registry.PAPER_CODEC))
    monkeypatch.setattr(registry, "models_folder", lambda: tmp_path)
    return tmp_path


@pytest.mark.usefixtures("models")
def test_one_call_compresses_and_one_reconstructs() -> None:
    image = streets()[0].image_uint8_HW3
    codec = gosvae.load_codec()
    assert gosvae.compress(image) == codec.compress(image)
    np.testing.assert_array_equal(gosvae.decompress(gosvae.compress(image)), codec.decompress(codec.compress(image)))
    data = gosvae.compress(image, level=3)
    assert data == gosvae.compress(image, gosvae.load_codec(f"{registry.DEFAULT_CODEC}:3"))
    assert len(gosvae.compress(image, kib=0.15)) <= 0.15 * 1024
    jpeg = gosvae.compress(image, "jpeg", level=30)
    np.testing.assert_array_equal(gosvae.decompress(jpeg, "jpeg"), gosvae.load_codec("jpeg").decompress(jpeg))


def test_a_codec_may_be_a_folder_or_loaded_already(models: Path) -> None:
    image, folder = streets()[0].image_uint8_HW3, models / registry.PAPER_CODEC
    options = gosvae.StreamOptions(slices=2)
    data = gosvae.compress(image, folder, options=options)
    assert data == gosvae.load_codec(folder, options=options).compress(image)
    assert gosvae.decompress(data, folder).shape == gosvae.decompress(data, gosvae.load_codec(folder)).shape


@pytest.mark.usefixtures("models")
def test_what_does_not_go_together_is_refused() -> None:
    image = streets()[0].image_uint8_HW3
    with pytest.raises(gosvae.ConfigError, match="both set the rate"):
        gosvae.compress(image, level=3, kib=1)
    with pytest.raises(gosvae.ConfigError, match="is loaded already"):
        gosvae.compress(image, gosvae.load_codec(), level=3)
    with pytest.raises(gosvae.ConfigError, match="rate of 'gosvae-camvid' is fixed") as caught:
        gosvae.compress(image, registry.PAPER_CODEC, kib=1)
    assert caught.value.argument == "kib"
    foreign = VqCodec(checkpoint(seed=1)).compress(image)
    with pytest.raises(gosvae.ForeignStreamError, match="name the checkpoint"):
        gosvae.decompress(foreign)
