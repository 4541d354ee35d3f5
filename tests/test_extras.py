"""An absent optional package is one line that names the extra; nothing else of the command or the library fails."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gosvae
from conftest import REPOSITORY
from gosvae.cli import demo
from gosvae.cli.main import main
from gosvae.diffusion import DiffusionConfig, make_scheduler
from gosvae.errors import MissingDependencyError
from gosvae.evaluation.bd_rate import bd_rate_of_points
from gosvae.extras import PACKAGES, needs, require
from gosvae.training.machine.config import RunConfig
from gosvae.training.machine.loop import make_fabric
from gosvae.training.machine.records import Records

POINTS = [(1.0, 0.1), (2.0, 0.2), (3.0, 0.3), (4.0, 0.4)]
USES: list[tuple[str, str, Callable[[Path], Any]]] = [
    ("jpegxl", "imagecodecs", lambda _: gosvae.load_codec("jpegxl:50")),
    ("plot", "bjontegaard", lambda _: bd_rate_of_points(POINTS, POINTS)),
    ("train", "diffusers", lambda _: make_scheduler(DiffusionConfig())),
    ("train", "lightning_fabric", lambda _: make_fabric(RunConfig(accelerator="cpu"))),
    ("train", "tensorboard", lambda folder: Records(folder, from_step=0, tensorboard=True)),
]
"""Extra, package that is taken away, and what needs it."""


def take_away(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Make every import of a package fail, as if it were not installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    if package == "tensorboard":  # PyTorch's half of it may be loaded already
        for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize(("extra", "package", "use"), USES, ids=[package for _, package, _ in USES])
def test_an_absent_package_names_its_extra(
    extra: str, package: str, use: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_away(monkeypatch, package)
    with pytest.raises(MissingDependencyError, match=rf"{package}.*: pip install 'gosvae\[{extra}\]'") as caught:
        use(tmp_path)
    assert "\n" not in str(caught.value)


def test_extras_are_those_of_the_project() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra, packages in PACKAGES.items():
        named = {re.split(r"[<>=]", r)[0].replace("-", "_") for r in project["optional-dependencies"][extra]}
        assert named == set(packages)
        required = {re.split(r"[<>=]", r)[0].replace("-", "_") for r in project["dependencies"]}
        assert not required & set(packages)


@pytest.mark.parametrize("extra", PACKAGES)
def test_a_command_looks_for_an_extra_before_it_works(extra: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if extra == "tflite":  # the only one that the environment of the tests may lack
        pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert")
    require(extra, "a test")
    for package in PACKAGES[extra]:
        with monkeypatch.context() as patch:
            take_away(patch, package)
            with pytest.raises(MissingDependencyError, match=rf"a test needs .*{package}.*gosvae\[{extra}\]"):
                require(extra, "a test")


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), needs("plot", "a test"):
        _ = 1 / 0


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        pixels = np.arange(64 * 96 * 3, dtype=np.int64).reshape(64, 96, 3) * (number + 3) % 256
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return folder


def test_results_without_matplotlib_lack_the_plot_only(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    take_away(monkeypatch, "matplotlib")
    words = ["evaluate", "jpeg:10", "jpeg:30", "--data", str(photos), "--no-labels", "--quiet"]
    assert main([*words, "--out", str(tmp_path / "results")]) == 0
    shown = capsys.readouterr()
    assert "gosvae: no plot: " in shown.err
    assert "gosvae[plot]" in shown.err
    assert {"table.md", "evaluation.json", "pictures.png"} <= {p.name for p in (tmp_path / "results").iterdir()}
    assert "rate-task.png" not in shown.out


def test_a_bd_rate_is_refused_before_anything_is_measured(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    take_away(monkeypatch, "scipy")
    assert main(["evaluate", "--data", str(photos), "--sweep", "jpeg", "--anchor", "jpeg"]) == 2
    shown = capsys.readouterr()
    assert "gosvae[plot]" in shown.err
    assert not shown.out


def test_the_demo_leaves_out_what_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    take_away(monkeypatch, "imagecodecs")
    assert [codec.name for codec in demo._baselines()] == ["avif", "webp", "jpeg"]
    assert "left out: JPEG XL needs" in capsys.readouterr().err
