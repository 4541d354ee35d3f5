"""The result of a stage is the moving average of the weights, recomputed here from the weights of each step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from gosvae.config import parse
from gosvae.datasets.loader import Batch
from gosvae.training.machine.config import StageConfig
from gosvae.training.machine.stage import StageInProgress
from gosvae.training.machine.task import TrainingTask
from tiny import run_config


class OneWeight(TrainingTask):
    """A weight that is drawn to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.network: nn.Module = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.network.weight)  # type: ignore[arg-type]

    @property
    def known_terms(self) -> frozenset[str]:
        return frozenset({"square"})

    def forward(self, x_B3HW: Tensor, labels_BHW: Tensor | None, wanted: frozenset[str]) -> dict[str, Tensor]:
        del x_B3HW, labels_BHW, wanted
        return {"square": (self.network.weight - 1.0).square().sum()}


def weight_of(network: nn.Module) -> float:
    return float(network.get_parameter("weight").detach())


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_the_result_is_the_moving_average_of_the_weights(decay: float, tmp_path: Path) -> None:
    sizes = {"steps": 6, "learning_rate": 0.1, "warmup_steps": 0, "ema_decay": decay}
    stage = parse(StageConfig, {"name": "one", "weights": {"square": 1.0}, **sizes})
    task, fabric = OneWeight(), Fabric(accelerator="cpu", devices=1)
    progress = StageInProgress(fabric, task, stage, run_config(), tmp_path, None)
    weights = []
    for step in range(stage.steps):
        progress.step(Batch(torch.zeros(1, 3, 16, 16), None, ("zero",), (False,)), step)
        weights.append(weight_of(task.network))
    average = weights[0]  # torch's average begins with the first weights
    for weight in weights[1:]:
        average = decay * average + (1.0 - decay) * weight
    assert weights == sorted(set(weights)), "every step moves the weight"
    result = weight_of(progress.result())
    assert result == pytest.approx(average, rel=1e-6)
    assert (result == weights[-1]) == (decay == 0.0)
