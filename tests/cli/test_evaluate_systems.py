"""`gosvae evaluate` with the label map, JPEG of the shrunk image and the Fréchet distance."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gosvae.cli.main import main
from gosvae.evaluation import load_evaluation


def test_systems_beside_the_papers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "evaluate label-map jpeg-half:40 --baselines jpeg-quarter --match jpeg-half:40 --data streets:2"
    options = f"--resize 64x96 --frechet expert --device cpu --quiet --out {tmp_path}"
    assert main([*command.split(), *options.split()]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Fréchet distance (not FID): features of expert-camvid, class probabilities in 4x4 cells, N = 2" in printed
    _, label_map, half, quarter = load_evaluation(tmp_path).rows
    assert [row.label for row in (label_map, half, quarter)] == ["label-map", "jpeg-half:40", "jpeg-quarter"]
    assert label_map.agreement_miou == 1.0
    assert label_map.psnr_db is label_map.frechet_distance is None
    assert half.frechet_distance is not None
    assert half.frechet_distance > 0
    assert quarter.total_bytes is not None
    assert half.total_bytes is not None
    assert quarter.total_bytes <= half.total_bytes
    assert (tmp_path / "pictures.png").is_file()
    assert (tmp_path / "rate-task.png").is_file()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_an_error_of_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "jpeg", "--data", "streets:1", "--device", "cuda"]) == 2
    line = capsys.readouterr().err
    assert "--device cuda: this PyTorch sees no GPU" in line
    assert line.count("\n") == 1
