"""Trainings that imitate experts of several tasks: they run, resume, and are evaluated."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import gosvae
from gosvae.cli.main import main
from gosvae.codecs.checkpoint import save_codec
from gosvae.errors import ConfigError
from gosvae.training.machine.config import RunConfig
from tiny import variable_checkpoint, variable_config

QUICK = [
    "stages.0.batches.crop_height=32",
    "stages.0.batches.crop_width=32",
    "stages.0.batches.batch_size=2",
    "stages.0.weights={jsd: 1.0, mse: 1.0, codebook: 1.0, commitment: 0.25}",
]
EXPERTS = '''"""A small expert for each task."""
import torch
from torch import nn
from gosvae import DenseBoxes, ExpertInfo, TaskExpert


class Small(TaskExpert):
    def __init__(self, task):
        super().__init__(ExpertInfo(task, ("person", "car", "bus"), 32, 48))
        self.task = task
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.layer = nn.Conv2d(3, 8, 8, stride=8)

    def dense(self, x):
        y = self.layer(x)
        if self.task == "detection":
            cells = y.flatten(2).transpose(1, 2)
            corners = torch.cat([cells[..., :2].sigmoid() / 2, 0.5 + cells[..., :2].sigmoid() / 2], dim=-1)
            return DenseBoxes((8 * cells[..., 4]).sigmoid(), (8 * cells[..., 5:8]).sigmoid(), corners)
        return {"depth": y[:, :1].exp(), "features": (y,)}[self.task]
'''


@pytest.fixture
def experts(tmp_path: Path) -> Path:
    path = tmp_path / "experts.py"
    path.write_text(EXPERTS, encoding="utf-8")
    return path


def _train(folder: Path, *experts: str, steps: int, max_minutes: float | None = None) -> gosvae.ImageCodec:
    run = RunConfig(accelerator="cpu", tensorboard=False, log_steps=1)
    gosvae.train(
        "gosvae-scratch",
        "streets:2",
        expert=experts,
        out=folder,
        overrides=[*QUICK, f"stages.0.steps={steps}"],
        run=run,
        lpips="none",
        max_minutes=max_minutes,
        progress=False,
    )
    return gosvae.load_codec(folder)


def _log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("task", ["detection", "depth", "features"])
def test_an_expert_of_any_task_trains_resumes_and_judges(task: str, experts: Path, tmp_path: Path) -> None:
    source = f"{experts}:Small:{task}"
    codec = _train(tmp_path / "whole", source, steps=4)
    values = [line[f"imitation {task}"] for line in _log(tmp_path / "whole")]
    assert len(values) >= 4
    assert all(value > 0 for value in values)
    _train(tmp_path / "halted", source, steps=4, max_minutes=0.0)
    resumed = _train(tmp_path / "halted", source, steps=4)
    assert resumed.fingerprint == codec.fingerprint

    scenes = gosvae.load_prepared("streets:2", default_split="test")
    judge = gosvae.load_task_expert(source)
    result = gosvae.evaluate([gosvae.CodecEntry("mine", codec)], scenes, None, judges={"it": judge}, progress=False)
    first = gosvae.load_task(judge).columns[0]
    assert result.rows[0].tasks[f"it {first}"] == pytest.approx(1.0)
    assert (result.rows[1].tasks[f"it {first}"] or 0.0) <= 1.0
    assert result.rows[1].agreement_miou is None


def test_several_experts_are_imitated_and_each_is_reported(experts: Path, tmp_path: Path) -> None:
    _train(tmp_path / "run", "map=embedded", f"far={experts}:Small:depth:0.5", steps=2)
    line = _log(tmp_path / "run")[0]
    assert line["imitation map"] > 0
    assert line["imitation far"] > 0


@pytest.mark.parametrize("tasks", [("embedded", "detection"), ("depth",), ("features",)])
def test_the_recipe_for_experts_of_any_tasks_tunes_a_trained_codec(
    tasks: tuple[str, ...], experts: Path, tmp_path: Path
) -> None:
    """`gosvae-tasks` as the page on tasks shows it: from a trained codec, halted, resumed and evaluated."""
    save_codec(tmp_path / "start", variable_checkpoint())
    sources = [f"it{n}=" + (task if task == "embedded" else f"{experts}:Small:{task}") for n, task in enumerate(tasks)]
    model = json.dumps(variable_config().model_dump(mode="json"))
    changes = [*QUICK[:3], f"model={model}", "stages.0.steps=3", "stages.0.warmup_steps=1"]

    def train(folder: Path, max_minutes: float | None = None) -> None:
        gosvae.train(
            "gosvae-tasks",
            "streets:2",
            expert=sources,
            init=tmp_path / "start",
            out=folder,
            overrides=changes,
            run=RunConfig(accelerator="cpu", tensorboard=False, log_steps=1),
            max_minutes=max_minutes,
            progress=False,
        )

    train(tmp_path / "whole")
    train(tmp_path / "halted", max_minutes=0.0)
    train(tmp_path / "halted")
    codec = gosvae.load_codec(tmp_path / "halted:128")
    assert codec.fingerprint == gosvae.load_codec(tmp_path / "whole").fingerprint  # type: ignore[attr-defined]
    if len(tasks) > 1:
        assert all(line[f"imitation it{n}"] > 0 for line in _log(tmp_path / "whole") for n in range(len(tasks)))
    scenes = gosvae.load_prepared("streets:2", default_split="test")
    judge = gosvae.load_task_expert(sources[-1].partition("=")[2])
    result = gosvae.evaluate([gosvae.CodecEntry("mine", codec)], scenes, None, judges={"it": judge}, progress=False)
    assert result.rows[0].tasks[f"it {gosvae.load_task(judge).columns[0]}"] == pytest.approx(1.0)
    assert set(result.rows[1].tasks) == {f"it {column}" for column in gosvae.load_task(judge).columns}


def test_two_experts_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two experts have the name 'embedded'"):
        _train(tmp_path, "embedded", "embedded", steps=1)


def test_the_command_judges_by_several_experts(
    experts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["gosvae"])
    out = tmp_path / "results"
    others = ["--expert", f"far={experts}:Small:depth", "--expert", f"b={experts}:Small:detection"]
    given = ["evaluate", "jpeg:30", "--data", "streets:2", *others, "--quiet", "--out"]
    assert main([*given, str(out), "--expert", "embedded"]) == 0
    table = capsys.readouterr().out
    for column in ("mIoU", "agreement", "far delta 1.25", "far abs rel", "b AP50:95"):
        assert column in table
    assert "far (depth), b (detection): against the judge's own results" in " ".join(table.split())
    assert gosvae.load_evaluation(out).rows[1].tasks["far abs rel"] > 0
    assert (out / "pictures.png").is_file()
    assert main([*given, str(tmp_path / "others")]) == 0
    assert "mIoU" not in capsys.readouterr().out
