"""`gosvae reproduce --paper`: the paper's set on both data sets, in one report, on tiny folders with tiny experts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_job import CHANGES

from gosvae.cli.main import main
from gosvae.datasets.ade20k import ADE20K_CLASSES
from gosvae.datasets.cityscapes import CITYSCAPES_CLASSES
from gosvae.experts.compact import CompactConfig
from gosvae.experts.trained import ExpertCard, build_network
from gosvae.reproduce import trial
from gosvae.reproduce.parts import PAPERS_EXPERIMENTS, Part, Progress
from gosvae.reproduce.plan import rows_of
from gosvae.reproduce.processes import Summary
from gosvae.seeding import seed_everything
from gosvae.training.experts import save_expert

HEIGHT, WIDTH = 32, 64


def image(path: Path, seed: int, *, classes: int = 0) -> None:
    """Write a picture, or a map of some classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    if classes:
        array = np.kron(generator.integers(0, classes, (HEIGHT // 8, WIDTH // 8)), np.ones((8, 8))).astype(np.uint8)
    else:
        array = np.kron(generator.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    Image.fromarray(array).save(path)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Words of a command on two images of each data set with a random expert for each."""
    root = tmp_path_factory.mktemp("data")
    for split, ade_split in (("train", "training"), ("val", "validation")):
        for i in range(2):
            name = f"ulm_00000{i}_000019"
            image(root / f"city/leftImg8bit/{split}/ulm/{name}_leftImg8bit.png", i)
            image(root / f"city/gtFine/{split}/ulm/{name}_gtFine_labelIds.png", i, classes=34)
            image(root / f"ade/images/{ade_split}/ADE_{split}_0000000{i}.jpg", i)
            image(root / f"ade/annotations/{ade_split}/ADE_{split}_0000000{i}.png", i, classes=151)
    found = ["reproduce", "--paper", "--scale", "small", "--lpips", "none", "--accelerator", "cpu", "--precision", "32"]
    found += ["--resize", f"{HEIGHT}x{WIDTH}", "--pictures", "1"]
    for name, folder, classes in (("cityscapes", "city", CITYSCAPES_CLASSES), ("ade20k", "ade", ADE20K_CLASSES)):
        config = CompactConfig(widths=(8, 8, 8, 8), blocks=(1, 1, 1), class_count=len(classes))
        card = ExpertCard(
            name=f"expert-{name}", class_names=classes, input_height=HEIGHT, input_width=WIDTH, network=config
        )
        seed_everything(0)
        save_expert(root / f"expert-{name}", card, build_network(config), {})
        found += [f"--{name}", str(root / folder), f"--{name}-expert", str(root / f"expert-{name}")]
    changes = [*CHANGES, "stages.0.steps=2", "fig4-scratch-r2-s0:stages.0.weights={mse: 1.0, codebook: 1.0}"]
    return [*found, *(word for change in changes for word in ("--set", change))]


ROWS = ("vqvae", "gosvae-scratch", "gosvae", "label-map", "fig4-vqvae-r4-s0")


def test_the_papers_set_is_one_report(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--out", str(tmp_path), "--rows", *ROWS]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split(", ")[1].split(":")[0] for line in lines if ": row " in line and "step" not in line]
    parts = [line.split(":")[0] for line in lines if ": row " in line and "step" not in line]
    assert rows == ["vqvae", "gosvae-scratch", "gosvae", "label-map"] * 2 + ["fig4-vqvae-r4-s0"]
    assert parts == ["cityscapes"] * 4 + ["ade20k"] * 4 + ["cityscapes"]  # Fig. 4 is last, and on Cityscapes alone
    assert "9 rows are done, 0 failed, 0 are left" in lines
    assert not any("left out" in line for line in lines)
    text = (tmp_path / "report" / "report.md").read_text()
    heads = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert heads == [
        "Which claims of the paper hold here (cityscapes)",
        "Which claims of the paper hold here (ade20k)",
        "Table I: payload, parameters, task",
        "Table II (ADE20K): payload, parameters, task",
        "Table III (cityscapes): visual quality",
        "Table III (ade20k): visual quality",
        "Table IV: objective functions",
        "Fig. 2: reconstructions and the expert's maps",
        "Fig. 3: training curves of JSD and LPIPS",
        "Fig. 4: the task against the compression ratio r",
        "Fig. 4 in numbers",
    ]
    table2 = text.split("## Table II (ADE20K)")[1].split("## ")[0]
    assert "38.37" in table2  # the paper's mIoU of VQ-VAE on ADE20K
    assert "expert-ade20k" in table2
    saved = json.loads((tmp_path / "report" / "rows.json").read_text())
    assert [row["data"] for row in saved] == ["cityscapes"] * 5 + ["ade20k"] * 4
    assert saved[0]["paper"] != saved[5]["paper"]
    assert main([*words, "--out", str(tmp_path), "--rows", *ROWS, "--quiet"]) == 0  # nothing is left to do


def test_the_plan_is_exactly_the_papers(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--scale", "paper", "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [line.split(" at scale paper: ")[0] for line in lines if " at scale " in line]
    assert heads == [", ".join(names) for names in PAPERS_EXPERIMENTS.values()]
    first, second, both = (float(line.split()[1]) for line in lines if line.startswith("about "))
    assert both == pytest.approx(first + second, abs=0.11)  # each is rounded to a tenth
    assert lines[-2].endswith(" hours for cityscapes and ade20k together")
    assert not (tmp_path / "out").exists()


def test_rows_are_chosen_from_the_set_of_each_part(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["gosvae-ce", "fig4-scratch-r8-s0"]
    assert main([*words, "--out", str(tmp_path), "--dry-run", "--rows", *names]) == 0
    cityscapes, ade20k = capsys.readouterr().out.split("\ntable2, ")
    assert all(f"\n{name} " in cityscapes and name not in ade20k for name in names)
    assert main([*words, "--out", str(tmp_path), "--rows", "fig4-vqvae-r8-s0"]) == 0
    assert "1 row is done, 0 failed, 0 are left" in capsys.readouterr().out


def test_a_check_begins_with_the_experts_of_all_parts(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a trial was begun")

    monkeypatch.setattr(trial, "try_rows", never)
    wrong = words[words.index("--cityscapes-expert") + 1]
    command = [*words, "--ade20k-expert", wrong, "--out", str(tmp_path / "out"), "--rows", "label-map", "--check"]
    assert main(command) == 2
    assert "labels of 'ade20k' and expert 'expert-cityscapes' have other classes" in capsys.readouterr().err


def test_a_row_that_failed_is_not_tried_twice(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ["--set", "vqvae:stages.0.learning_rate=1.0e+30", "--out", str(tmp_path), "--rows", "vqvae"]
    assert main([*words, *wrong]) == 1
    captured = capsys.readouterr()
    assert sum("FAILED" in line for line in captured.out.splitlines()) == 2
    assert "gosvae: row ade20k/vqvae failed: " in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--paper"], "--paper needs --cityscapes FOLDER and --cityscapes-expert EXPERT, such as hf:"),
        (["--paper", "--cityscapes", "A", "--cityscapes-expert", "B"], "--paper needs --ade20k FOLDER"),
        (["table1", "--paper"], "leave out tables and figures"),
        (["--paper", "--data", "streets:4"], "leave out --data"),
        (["--paper", "--expert", "embedded"], "leave out --expert"),
        (["table1", "--data", "streets:4", "--ade20k", "A"], "--ade20k goes with --paper"),
        (["table1"], "name the images with --data, or give --paper"),
    ],
)
def test_options_that_do_not_go_together(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", *arguments, "--out", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err
    assert message in line
    assert line.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_report_is_written_when_a_table_of_a_part_is_complete() -> None:
    class Plan:
        def __init__(self, name: str, experiment: str) -> None:
            self.name, self.experiments, self.rows = name, (experiment,), rows_of([experiment], ["vqvae", "jpeg"])

    first: Part = Plan("a", "table1")  # type: ignore[assignment]
    second: Part = Plan("b", "table2")  # type: ignore[assignment]
    written = []
    progress = Progress([first, second], lambda: written.append(1))
    progress.after_row(first, Summary(done=["vqvae", "gosvae"]))
    assert len(written) == 0
    progress.after_row(first, Summary(done=["vqvae", "gosvae"], failed={"jpeg": "why"}))
    assert len(written) == 1
    progress.after_row(second, Summary(done=["vqvae"]))
    progress.after_row(second, Summary(done=["vqvae", "gosvae", "jpeg"]))
    assert len(written) == 2
    progress.end()
    assert len(written) == 2
