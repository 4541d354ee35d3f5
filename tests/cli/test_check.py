"""`gosvae check` tells a usable expert from one that is not, and says what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gosvae.cli.main import main
from gosvae.datasets.folder import ImageFolder
from gosvae.errors import ConfigError, ExpertError
from gosvae.evaluation.expert_check import check_expert
from gosvae.evaluation.task_check import check_task_expert
from gosvae.experts.base import DenseBoxes, Expert, ExpertInfo, TaskExpert
from gosvae.images import read_image, write_image
from tiny import streets

CLASSES = streets().class_names


def test_the_command_shows_shares_gradient_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "check.png"
    assert main(["check", "--data", "streets:3", "--images", "2", "--device", "cpu", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("expert: expert-camvid, 11 classes, ")
    assert lines[1] == "data: streets, 2 of 3 images"
    assert float(lines[2].removeprefix("gradient at the pixels: ")) > 0
    assert float(lines[3].removeprefix("mIoU with the labels: ")) > 0.3
    shares = [float(line.split("%")[0]) for line in lines[5:16]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=1)
    assert lines[-1] == "nothing is wrong"
    assert read_image(out).shape == (2 * 256, 2 * 512, 3)


class _Constant(Expert):
    """Sees one class everywhere; a gradient arrives or not."""

    def __init__(self, names: tuple[str, ...] = CLASSES, *, factor: float = 0.0) -> None:
        super().__init__(ExpertInfo("constant", names, 64, 96))
        self.factor = factor

    def class_logits(self, x_B3HW: Tensor) -> Tensor:
        logits = self.factor * x_B3HW.mean(dim=1, keepdim=True).repeat(1, len(self.info.class_names), 1, 1)
        return logits + torch.nn.functional.one_hot(torch.tensor(2), len(self.info.class_names)).view(1, -1, 1, 1)


def test_what_is_wrong_is_said() -> None:
    problems = check_expert(_Constant(), streets()).problems
    assert [problem.split(":")[0] for problem in problems] == [
        "No gradient reaches the pixels, so that no codec can learn from this expert",
        "100 % of the pixels are 'pole'",
        f"The mIoU with the labels is {check_expert(_Constant(), streets()).miou:.3f}",
    ]
    with pytest.raises(ExpertError, match="NaN or infinite"):
        check_expert(_Constant(factor=float("nan")), streets())


def test_other_classes_than_those_of_the_labels_are_said_and_not_compared() -> None:
    result = check_expert(_Constant(("a", "b", "c"), factor=1.0), streets())
    assert "have other classes" in result.problems[0]
    assert result.miou is None


def test_an_expert_through_which_no_gradient_can_be_taken() -> None:
    class Detached(_Constant):
        def class_logits(self, x_B3HW: Tensor) -> Tensor:
            return super().class_logits(x_B3HW).detach()

    with pytest.raises(ExpertError, match="cannot take a gradient"):
        check_expert(Detached(), streets())


def test_images_of_several_sizes_and_without_labels(tmp_path: Path) -> None:
    for number, width in enumerate((64, 48)):
        write_image(tmp_path / f"{number}.png", np.full((32, width, 3), 90, np.uint8))
    result = check_expert(_Constant(factor=1.0), ImageFolder(tmp_path))
    assert result.miou is None
    assert result.image_count == 2
    assert result.picture_uint8_HW3.shape == (64, 128, 3)
    with pytest.raises(ConfigError, match="at least 1 image"):
        check_expert(_Constant(), streets(), images=0)


def test_an_expert_of_another_task_is_checked_by_its_own_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime", reason="needs gosvae[onnx]")
    from experts.onnx_files import exported, write_onnx
    from experts.tiny_models import TinySegmenter

    path = write_onnx(tmp_path / "net.onnx", exported(TinySegmenter()))
    out = tmp_path / "check.png"
    assert main(["check", "--expert", str(path), "--data", "streets:2", "--images", "2", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ONNX Runtime: largest difference ")
    assert float(lines[0].split()[4]) < 1e-4
    assert lines[1].startswith("expert: net, features, ")
    assert float(lines[3].removeprefix("gradient at the pixels: ")) > 0
    assert float(lines[4].rpartition(" ")[2]) > 0
    assert float(lines[5].removeprefix("cosine of images at an eighth of their size: ")) < 1
    assert lines[-1] == "nothing is wrong"
    assert out.is_file()


def test_a_detector_that_finds_nothing_is_told() -> None:
    class Blind(TaskExpert):
        task = "detection"

        def dense(self, x_B3HW: Tensor) -> DenseBoxes:
            score = 0.01 * x_B3HW.mean(dim=(1, 2, 3))[:, None]
            corners = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]).expand(len(x_B3HW), 1, 4)
            return DenseBoxes(score, score[..., None], corners)

    problems = check_task_expert(Blind(ExpertInfo("blind", ("car",), 64, 96)), streets()).problems
    assert [problem[:24] for problem in problems] == ["No box has a score of 0."]


def test_scores_that_are_no_probabilities_are_told() -> None:
    class Raw(TaskExpert):
        task = "detection"

        def dense(self, x_B3HW: Tensor) -> DenseBoxes:
            score = 4.0 * x_B3HW.mean(dim=(1, 2, 3))[:, None]
            corners = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]).expand(len(x_B3HW), 1, 4)
            return DenseBoxes(score, score[..., None], corners)

    problems = check_task_expert(Raw(ExpertInfo("raw", ("car",), 64, 96)), streets()).problems
    assert "Scores are below 0 or above 1: export the network with its sigmoid." in problems
