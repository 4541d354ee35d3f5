"""Experts from TensorFlow Lite files: what LiteRT computes, and one line where it cannot be used."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from experts.tflite_files import pooling_file
from gosvae.cli.main import main
from gosvae.errors import ExpertError, MissingDependencyError
from gosvae.experts.registry import load_task_expert

LANES = {"task": "lanes"}


def _written(folder: Path, data: bytes, card: dict[str, object] | None = None) -> Path:
    path = folder / "it.tflite"
    path.write_bytes(data)
    if card is not None:
        path.with_suffix(".json").write_text(json.dumps(card), encoding="utf-8")
    return path


@pytest.mark.parametrize("scale", [None, 1 / 255])
def test_an_answer_is_that_of_the_network(scale: float | None, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert")
    expert = load_task_expert(_written(tmp_path, pooling_file(16, 24, 4, scale=scale), LANES), gradients=False)
    x = torch.rand(3, 3, 16, 24)
    torch.testing.assert_close(expert(x), F.avg_pool2d(x, 4), atol=1e-5 if scale is None else 2 / 255, rtol=0)
    assert (expert.info.input_height, expert.info.input_width) == (16, 24)
    assert expert(torch.rand(1, 3, 40, 50)).shape == (1, 3, 4, 6)
    with pytest.raises(ExpertError, match="gives no gradient"):
        expert(x.requires_grad_())


def test_it_judges_a_codec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert")
    path = _written(tmp_path, pooling_file(16, 24, 4))
    assert main(["evaluate", "jpeg:50", "--data", "streets:1", "--expert", str(path), "--quiet"]) == 0
    assert "it cosine" in capsys.readouterr().out


def test_files_that_cannot_be_used_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _written(tmp_path, b"no network")
    with pytest.raises(ExpertError, match="has no gradients: it can judge a codec"):
        load_task_expert(path)
    with pytest.raises(ExpertError, match="no TensorFlow Lite file at"):
        load_task_expert(tmp_path / "other.tflite", gradients=False)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'gosvae\[tflite\]'"):
        load_task_expert(path, gradients=False)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="needs ai-edge-litert")
    with pytest.raises(ExpertError, match="LiteRT cannot read the network"):
        load_task_expert(_written(tmp_path, b"no network"), gradients=False)
