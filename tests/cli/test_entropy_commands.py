"""`gosvae train-entropy` and `gosvae entropy`, from the command line to the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gosvae.cli.main import main
from gosvae.codecs.checkpoint import save_codec
from tiny import checkpoint, model_config


def quick(folder: Path, *more: str) -> list[str]:
    """A short training of a small context model."""
    changes = ("model.width=16", "model.embedding_width=4", "stages.0.batches.batch_size=1")
    options = [part for change in changes for part in ("--set", change)]
    return ["train-entropy", str(folder), "--data", "streets:2", "--steps", "3", "--quiet", *options, *more]


def test_a_context_model_from_training_to_its_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_codec(tmp_path / "codec", checkpoint(model_config()))
    assert main([*quick(tmp_path / "codec"), "--out", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out == f"finished: {tmp_path / 'run'}\n"
    report = tmp_path / "numbers.json"
    assert main(["entropy", str(tmp_path / "run"), "--data", "streets:2", "--limit", "1", "--out", str(report)]) == 0
    printed = capsys.readouterr().out
    tree = json.loads(report.read_text())
    assert tree["images"] == 1
    assert [row["model"] for row in tree["rows"]] == ["fixed-length", "static-histogram", "adaptive-counts", "context"]
    assert all(row["model"] in printed for row in tree["rows"])
    fixed = tree["rows"][0]
    assert fixed["bits_per_index"] == tree["raw_bits"] == 4
    assert fixed["payload_bytes"] == tree["indices_per_image"] / 2
    for row in tree["rows"]:
        assert row["overhead_bytes"] < 8 + 0.005 * row["payload_bytes"]


def test_what_cannot_be_trained_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_codec(tmp_path / "codec", checkpoint(model_config()))
    for wrong, message in (
        (["--set", "model.widht=3"], "did you mean 'width'"),
        (["--set", "stages.0.weights.mse=1"], "unknown loss term 'mse'"),
        (["--steps", "0"], "0 steps"),
    ):
        assert main([*quick(tmp_path / "codec", *wrong), "--out", str(tmp_path / "run")]) == 2
        assert message in capsys.readouterr().err
