"""Every command takes codecs of every kind, not only VQ codecs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gosvae.cli.main import main
from gosvae.codecs.checkpoint import load_codec_checkpoint, save_codec
from tiny import scalar_checkpoint, streets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_codec(tmp_path / "plain", scalar_checkpoint())
    return tmp_path / "plain"


def test_an_autoencoder_is_described_and_exported(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "shallow autoencoder, stride 8" in shown
    assert "D = 3 channels of 41 fine integers, step 4" in shown
    assert main(["export", str(folder), str(tmp_path / "copy"), "--name", "mine"]) == 0
    copy = load_codec_checkpoint(tmp_path / "copy")
    assert (copy.card.name, copy.card.kind) == ("mine", "autoencoder")
    assert copy.fingerprint() == scalar_checkpoint().fingerprint()


def test_an_autoencoder_compresses_files(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = streets()[0].image_uint8_HW3
    Image.fromarray(image).save(tmp_path / "a.png")
    assert main(["compress", str(tmp_path / "a.png"), "--codec", str(folder)]) == 0
    assert main(["info", str(tmp_path / "a.gos")]) == 0
    assert "96x64 pixels" in capsys.readouterr().out
    seen = tmp_path / "seen.png"
    assert main(["decompress", str(tmp_path / "a.gos"), "--codec", str(folder), "-o", str(seen)]) == 0
    assert np.asarray(Image.open(seen)).shape == image.shape


def test_the_kind_of_a_recipe_chooses_what_is_trained(tmp_path: Path) -> None:
    small = [
        "model.autoencoder.width=8",
        "stages.0.steps=1",
        "stages.0.batches={batch_size: 1, crop_height: 32, crop_width: 32}",
    ]
    run = [
        "--data",
        "streets:2",
        "--out",
        str(tmp_path / "run"),
        "--resize",
        "64x96",
        "--accelerator",
        "cpu",
        "--quiet",
    ]
    overrides = [word for override in small for word in ("--set", override)]
    assert main(["train", "autoencoder", *run, *overrides]) == 0
    assert load_codec_checkpoint(tmp_path / "run").card.kind == "autoencoder"
    assert main(["train", "autoencoder", *run, *overrides]) == 0  # a finished run is not trained again
