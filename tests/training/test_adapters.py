"""An adapter changes the pictures of a codec, not its streams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import gosvae
from gosvae.cli.main import main
from gosvae.codecs.adapter import Adapter
from gosvae.codecs.changes import changed_weights
from gosvae.codecs.checkpoint import save_codec
from gosvae.errors import CheckpointError, ConfigError
from gosvae.training.adapters import adapt_codec, adapter_stage
from tiny import checkpoint, expert, run_config, streets, variable_checkpoint

SMALL = {"batch_size": 2, "crop_height": 32, "crop_width": 32, "brightness": 0.0}


def _adapted(folder: Path, codec: gosvae.ImageCodec, base: str, *, steps: int = 3) -> None:
    stage = adapter_stage(steps)
    stage = stage.model_copy(update={"batches": stage.batches.model_copy(update=SMALL)})
    adapt_codec(codec, base, expert(), streets(), stage, run_config(), folder, rank=2, progress=False)


@pytest.mark.parametrize("kind", ["variable-rate", "codec"])
def test_streams_are_those_of_the_codec(kind: str, tmp_path: Path) -> None:
    save_codec(tmp_path / "base", variable_checkpoint() if kind == "variable-rate" else checkpoint())
    base = gosvae.load_codec(tmp_path / "base")
    _adapted(tmp_path / "mine", base, "../base")
    adapted = gosvae.load_codec(tmp_path / "mine")
    image = streets()[0].image_uint8_HW3
    stream = adapted.compress(image)
    assert stream == base.compress(image)
    before, after = base.decompress(stream), adapted.decompress(stream)
    assert before.shape == after.shape
    assert not np.array_equal(before, after)
    assert adapted.name.startswith(base.name)
    size = (tmp_path / "mine" / "adapter.safetensors").stat().st_size
    assert size < (tmp_path / "base" / "weights.safetensors").stat().st_size


def test_a_new_adapter_changes_nothing() -> None:
    weights = {"decoder.a": torch.randn(4, 3, 2, 2), "decoder.b": torch.randn(4), "encoder.a": torch.randn(2)}
    changed = Adapter(weights, 2).changed(weights)
    assert set(changed) == {"decoder.a", "decoder.b"}
    assert all(torch.equal(value, weights[name]) for name, value in changed.items())


def test_gains_come_before_the_changes_of_low_rank() -> None:
    weights = {"decoder.a": torch.randn(4, 3)}
    gain, up, down = torch.randn(4), torch.randn(4, 1), torch.randn(1, 3)
    changes = {"decoder.a:up": up, "decoder.a:down": down, "decoder.a:gain": gain}
    expected = weights["decoder.a"] * (1 + gain)[:, None] + up @ down
    torch.testing.assert_close(changed_weights(weights, changes)["decoder.a"], expected)
    with pytest.raises(CheckpointError, match=r"does not fit the decoder of its codec: decoder\.c"):
        changed_weights(weights, {"decoder.c:gain": gain})


def test_an_adapter_of_another_codec_is_refused(tmp_path: Path) -> None:
    save_codec(tmp_path / "base", variable_checkpoint())
    base = gosvae.load_codec(tmp_path / "base")
    _adapted(tmp_path / "mine", base, "../base", steps=1)
    with pytest.raises(ConfigError, match="is adapted already"):
        _adapted(tmp_path / "twice", gosvae.load_codec(tmp_path / "mine"), "../mine", steps=1)
    save_codec(tmp_path / "base", variable_checkpoint(seed=5))
    with pytest.raises(CheckpointError, match="adapts a codec of fingerprint"):
        gosvae.load_codec(tmp_path / "mine")


def test_the_command_makes_an_adapter_that_others_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_codec(tmp_path / "base", variable_checkpoint())
    settings = [f"batches.{name}={value}" for name, value in SMALL.items()]
    options = [part for each in settings for part in ("--set", each)]
    out = tmp_path / "mine"
    command = [
        "adapt",
        str(tmp_path / "base"),
        "--data",
        "streets:2",
        "--steps",
        "2",
        "--accelerator",
        "cpu",
        "--quiet",
    ]
    assert main([*command, *options, "--out", str(out), "--expert", "embedded"]) == 0
    assert "its streams are those of the codec" in capsys.readouterr().out
    assert main(["evaluate", f"{out}:128", "--data", "streets:2", "--quiet"]) == 0
    assert main([*command, "--out", str(out)]) == 2
    assert "name one" in capsys.readouterr().err
