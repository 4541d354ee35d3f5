"""An expert is adapted to what a codec makes of images: it sees better on them, and nobody else has changed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gosvae.cli.main import main
from gosvae.codecs.checkpoint import save_codec
from gosvae.codecs.trained import TrainedCodec
from gosvae.codecs.variable import VariableRateCodec
from gosvae.codecs.vq import VqCodec
from gosvae.errors import ConfigError
from gosvae.experts.registry import load_expert
from gosvae.losses.divergence import jensen_shannon
from gosvae.tensors import image_to_tensor
from gosvae.training.adaptation import adapt_expert, adaptation_stage
from gosvae.training.machine.config import BatchConfig
from tiny import checkpoint, run_config, streets, variable_checkpoint


@pytest.mark.parametrize("codec", [VqCodec(checkpoint()), VariableRateCodec(variable_checkpoint())])
def test_an_adapted_expert_sees_better_what_it_receives(codec: TrainedCodec, tmp_path: Path) -> None:
    frozen = load_expert("embedded")
    before = frozen.fingerprint()
    stage = adaptation_stage(30).model_copy(
        update={"learning_rate": 1e-3, "ema_decay": 0.5, "warmup_steps": 1, "batches": BatchConfig(batch_size=2)}
    )
    outcome = adapt_expert(codec, frozen, streets(), stage, run_config(), tmp_path, progress=False)
    assert outcome.complete
    assert frozen.fingerprint() == before
    adapted = load_expert(tmp_path)
    assert adapted.info.name == f"{frozen.info.name}-at-{codec.name}"
    assert adapted.info.class_names == frozen.info.class_names
    x = image_to_tensor(streets()[1].image_uint8_HW3)
    x_hat = image_to_tensor(codec.decompress(codec.compress(streets()[1].image_uint8_HW3)))
    with torch.no_grad():
        wanted, given = jensen_shannon(frozen(x), frozen(x_hat)), jensen_shannon(frozen(x), adapted(x_hat))
    assert given < wanted


def test_what_cannot_be_adapted_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        adaptation_stage(0)
    folder = tmp_path / "codec"
    save_codec(folder, checkpoint())
    common = [
        "--data",
        "streets:2",
        "--resize",
        "64x96",
        "--out",
        str(tmp_path / "run"),
        "--quiet",
        "--precision",
        "32",
    ]
    small = ["--set", "batches={batch_size: 1}", "--steps", "2"]
    assert main(["adapt-expert", str(folder), *common, *small]) == 0
    assert "finished" in capsys.readouterr().out
    assert main(["adapt-expert", "jpeg", *common, *small]) != 0
    assert main(["info", str(tmp_path / "run")]) == 0
    assert "expert-camvid-at-tiny" in capsys.readouterr().out
