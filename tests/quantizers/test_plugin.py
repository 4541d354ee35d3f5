"""Quantizers of others: named by the environment or by an installed package, never by a model's file."""

from __future__ import annotations

import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError

from gosvae import plugins
from gosvae.cli.main import main
from gosvae.codecs.registry import load_codec
from gosvae.codecs.vq_model import VqModelConfig
from gosvae.config import identity, parse
from gosvae.datasets.streets import Streets
from gosvae.errors import ConfigError
from gosvae.quantizers import FiniteScalarQuantizer, PluginConfig, Quantizer, build_quantizer
from gosvae.quantizers.plugin import QUANTIZERS_VARIABLE
from tiny import autoencoder

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
FILE = """
from pathlib import Path

from gosvae.quantizers import FiniteScalarQuantizer

Path(__file__).with_suffix(".ran").touch()


class Mine(FiniteScalarQuantizer):
    def __init__(self, width=4, channels=2):
        super().__init__([width] * channels)


def number():
    return 3


def large():
    made = Mine()
    made.codebook_size = 2**17
    return made
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def named(name: str, **options: Any) -> Quantizer:
    return build_quantizer(PluginConfig(source=name, options=options))


def test_the_environment_names_a_class_of_a_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(QUANTIZERS_VARIABLE, f"{file}:number, {file}:Mine")
    quantizer = named("Mine", width=5, channels=3)
    z = torch.randn(1, 3, 2, 2)
    assert torch.equal(quantizer.encode(z), FiniteScalarQuantizer([5, 5, 5]).encode(z))


def test_the_class_on_the_page_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.search(r'title="my_quantizer.py"\n(.*?)```', PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    (tmp_path / "page.py").write_text(found[1])
    monkeypatch.setenv(QUANTIZERS_VARIABLE, f"{tmp_path / 'page.py'}:Signs")
    quantizer, z = named("Signs", channels=5), torch.randn(2, 5, 3, 4, requires_grad=True)
    result = quantizer(z)
    assert torch.equal(result.z_q_BDhw, torch.where(z > 0, 1.0, -1.0))
    assert torch.equal(result.indices_Bhw, quantizer.encode(z))
    assert torch.equal(quantizer.lookup(result.indices_Bhw), result.z_q_BDhw)
    assert int(result.indices_Bhw.max()) < quantizer.codebook_size == 32
    result.z_q_BDhw.sum().backward()
    assert z.grad is not None
    assert torch.equal(z.grad, torch.ones_like(z))


def test_a_package_registers_a_class(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(file.parent))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    point = EntryPoint("own", "mine:Mine", "gosvae.quantizers")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == point.group else [])
    assert named("own").codebook_size == 16


@pytest.mark.parametrize("source", ["{file}:Mine", "./mine.py:Mine", "mine.py", "a:b", "", "1x", "a/b", "mine.Mine"])
def test_a_configuration_holds_a_name_and_no_path(source: str, file: Path) -> None:
    with pytest.raises(ValidationError, match="source"):
        PluginConfig(source=source.format(file=file))
    tree = {"quantizer": {"kind": "plugin", "source": source.format(file=file)}}
    with pytest.raises(ConfigError, match=r"quantizer\.source"):
        parse(VqModelConfig, tree, stored=True)
    assert not file.with_suffix(".ran").exists()


def test_name_and_options_belong_to_the_identity_of_a_model() -> None:
    def of(**fields: Any) -> dict[str, Any]:
        return identity(PluginConfig(**fields))

    assert of(source="Mine") == {"source": "Mine"}
    assert of(source="Mine", options={"width": 5}) == {"source": "Mine", "options": {"width": 5}}


def test_what_is_wrong_is_said(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match=r"quantizer 'Mine' is part of no installed .* GOSVAE_QUANTIZERS=FILE.py:Mine"
    ):
        named("Mine")
    monkeypatch.setenv(QUANTIZERS_VARIABLE, f"{file}:Mine,{file}:number,{file}:large,{file}:Absent")
    with pytest.raises(ConfigError, match=r"makes a int, expected a gosvae.Quantizer"):
        named("number")
    with pytest.raises(ConfigError, match="codebook_size=131072 and code_dim=2; expected 2 to 65536 codes"):
        named("large")
    with pytest.raises(ConfigError, match="has no class or function 'Absent'"):
        named("Absent")
    with pytest.raises(ConfigError, match="'Mine' fails: TypeError"):
        named("Mine", colour="red")
    monkeypatch.setenv(QUANTIZERS_VARIABLE, "mine:Mine")
    with pytest.raises(ConfigError, match=r"has 'mine:Mine'; expected FILE.py:NAME"):
        named("Mine")


def test_a_codec_is_trained_with_one_and_loads_only_where_the_user_names_it(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = {"name": "pixels", "weights": {"mse": 1.0}, "steps": 2, "learning_rate": 0.01}
    stage["batches"] = {"batch_size": 1, "crop_height": 32, "crop_width": 48}
    quantizer = {"kind": "plugin", "source": "Mine"}
    model = {"autoencoder": autoencoder(), "quantizer": quantizer}
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text(yaml.safe_dump({"name": "own", "description": "a test", "model": model, "stages": [stage]}))
    monkeypatch.setenv(QUANTIZERS_VARIABLE, f"{file}:Mine")
    arguments = ["train", str(recipe), "--data", "streets:2", "--resize", "64x96", "--out", str(out)]
    changes = ["model.quantizer.options.width=5", "model.quantizer.options.channels=3"]
    assert main([*arguments, *(word for change in changes for word in ("--set", change)), "--accelerator", "cpu"]) == 0
    image = Streets(1, 3, 64, 96)[0].image_uint8_HW3
    codec = load_codec(str(out))
    stream = codec.compress(image)
    assert codec.description["quantizer"] == "plugin, K = 125, D = 3"  # type: ignore[attr-defined]
    assert codec.decompress(stream).shape == image.shape
    assert load_codec(str(out)).compress(image) == stream

    monkeypatch.delenv(QUANTIZERS_VARIABLE)
    ran = file.with_suffix(".ran")
    ran.unlink()
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    assert main(["info", str(out)]) == 2
    told = capsys.readouterr().err
    assert "set GOSVAE_QUANTIZERS=FILE.py:Mine" in told
    assert len(told.strip().splitlines()) == 1
    assert not ran.exists(), "a model's file has run code"
