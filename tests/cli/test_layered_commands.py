"""`gosvae compress --for`, `gosvae truncate`, and what `gosvae info` says of both layers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gosvae.cli.main import main
from gosvae.codecs import registry
from gosvae.codecs.checkpoint import save_codec
from gosvae.images import read_image, write_image
from tiny import streets, variable_checkpoint


@pytest.fixture
def street(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture, in a place where the only model of the package is tiny."""
    save_codec(tmp_path / "models" / registry.DEFAULT_CODEC, variable_checkpoint(name=registry.DEFAULT_CODEC))
    monkeypatch.setattr(registry, "models_folder", lambda: tmp_path / "models")
    write_image(tmp_path / "street.png", streets()[0].image_uint8_HW3)
    return tmp_path / "street.png"


def test_purposes_are_told(street: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for purpose, told in (
        ("machine", "a task layer for perception models"),
        ("people", ": a faithful picture of"),
        ("both", "KiB and a faithful picture of"),
    ):
        target = street.with_name(f"{purpose}.gos")
        assert main(["compress", str(street), "--for", purpose, "--effort", "1", "-o", str(target)]) == 0
        assert told in capsys.readouterr().out
        assert main(["decompress", str(target), "-o", str(target.with_suffix(".png"))]) == 0
        assert read_image(target.with_suffix(".png")).shape == (64, 96, 3)
    capsys.readouterr()
    assert main(["info", str(street.with_name("both.gos"))]) == 0
    assert "the last 1 for detail" in capsys.readouterr().out
    assert main(["compress", str(street), "--codec", "jpeg", "--for", "people", "-o", str(street) + ".jpg"]) == 2
    assert "'jpeg' has no option purpose: leave it out (option --for)" in capsys.readouterr().err


def test_truncate(street: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = street.with_suffix(".gos")
    assert main(["compress", str(street), "--for", "both", "--effort", "1"]) == 0
    capsys.readouterr()
    assert main(["truncate", str(data), "--kib", "0.3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    shorter = data.with_name("street.0.3KiB.gos")
    assert Path(told["target"]) == shorter
    assert told["bytes"] == shorter.stat().st_size <= 0.3 * 1024 < data.stat().st_size
    assert (told["slices"], told["slices_before"]) == (1, 2)
    assert main(["truncate", str(data), "--kib", "0.3"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["truncate", str(data), "--kib", "0.01", "--force"]) == 2
    assert "its first slice alone takes" in capsys.readouterr().err
