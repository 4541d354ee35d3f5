"""Codecs, experts and channels of others, from a Python file or an entry point, and what can be wrong with them."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch

from gosvae import plugins
from gosvae.channels import load_channel
from gosvae.cli.main import main
from gosvae.codecs.registry import load_codec
from gosvae.errors import ConfigError, ExpertError
from gosvae.evaluation import load_evaluation
from gosvae.experts.registry import load_expert

FILE = """
import gosvae
import torch


class Raw(gosvae.ImageCodec):
    name = "raw"

    def __init__(self, rate="none"):
        self.rate = rate

    def compress(self, image_uint8_HW3):
        return bytes(image_uint8_HW3.shape[:2]) + image_uint8_HW3.tobytes()

    def decompress(self, data):
        import numpy as np
        return np.frombuffer(data[2:], np.uint8).reshape(data[0], data[1], 3)


class Halves(gosvae.Expert):
    def __init__(self):
        super().__init__(gosvae.ExpertInfo("halves", ("dark", "bright"), 16, 16))

    def class_logits(self, x_B3HW):
        grey = x_B3HW.mean(1, keepdim=True)
        return torch.cat([1 - grey, grey], 1)


class Nothing(gosvae.Channel):
    name = "nothing"
    usage = "nothing share=S"
    share: float = 0.0

    def __call__(self, packets, generator):
        return gosvae.Delivery(tuple(packets), (), ())


def broken():
    raise RuntimeError("no luck")


def other():
    return 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


@pytest.fixture
def registered(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(file.parent))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    points = [
        EntryPoint("raw", "mine:Raw", "gosvae.codecs"),
        EntryPoint("halves", "mine:Halves", "gosvae.experts"),
        EntryPoint("nothing", "mine:Nothing", "gosvae.channels"),
        EntryPoint("lost", "mine:Absent", "gosvae.codecs"),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point for point in points if point.group == group])


def check(codec_spec: str, expert_spec: str, channel_spec: str) -> None:
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    codec = load_codec(codec_spec)
    assert codec.name == "raw"
    assert np.array_equal(codec.decompress(codec.compress(image)), image)
    assert load_codec(f"{codec_spec}:7").rate == "7"  # type: ignore[attr-defined]
    expert = load_expert(expert_spec)
    assert expert.info.source == expert_spec
    assert expert.class_map(torch.ones(1, 3, 4, 5)).unique().tolist() == [1]
    assert load_channel(f"{channel_spec} share=0.5").share == 0.5  # type: ignore[attr-defined]


def test_a_file_names_them(file: Path) -> None:
    check(f"{file}:Raw", f"{file}:Halves", f"{file}:Nothing")


@pytest.mark.usefixtures("registered")
def test_a_package_registers_them() -> None:
    check("raw", "halves", "nothing")
    assert plugins.plugin_names("codecs") == ["lost", "raw"]
    with pytest.raises(ConfigError, match=r"plugin 'lost' \(mine:Absent\) cannot be loaded: AttributeError"):
        load_codec("lost")


def test_the_commands_take_them(file: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    arguments = ["evaluate", f"{file}:Raw", "--expert", f"{file}:Halves", "--data", "streets:1", "--resize", "32x64"]
    assert main([*arguments, "--no-labels", "--device", "cpu", "--out", out, "--quiet"]) == 0
    assert load_evaluation(tmp_path / "out").rows[1].agreement_miou == 1.0


def test_what_is_wrong_is_said(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file: .*absent.py"):
        load_codec(f"{tmp_path / 'absent.py'}:Raw")
    with pytest.raises(ConfigError, match="has no class or function 'Wrong'"):
        load_codec(f"{file}:Wrong")
    with pytest.raises(ConfigError, match="fails: RuntimeError: no luck"):
        load_codec(f"{file}:broken")
    with pytest.raises(ConfigError, match=r"makes a int, expected a gosvae.ImageCodec"):
        load_codec(f"{file}:other")
    with pytest.raises(ConfigError, match=r"is no subclass of gosvae.Channel"):
        load_channel(f"{file}:Raw")
    file.write_text("1 / 0")
    with pytest.raises(ConfigError, match="cannot be run: ZeroDivisionError: division by zero"):
        load_codec(f"{file}:Raw")
    with pytest.raises(ConfigError, match="unknown codec 'nowhere'"):
        load_codec("nowhere")
    with pytest.raises(ExpertError, match="unknown expert"):
        load_expert("nowhere")
    with pytest.raises(ConfigError, match="unknown channel 'nowhere'"):
        load_channel("nowhere")
