"""`gosvae reproduce` on the command line: the plan, the errors, the exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_job import CHANGES

from gosvae.cli.main import main
from gosvae.reproduce.lock import alone_in

COMMON = ("--data", "streets:4", "--resize", "64x96", "--lpips", "none", "--accelerator", "cpu", "--precision", "32")


def command(folder: Path, *arguments: str) -> list[str]:
    """Words of a command whose recipes are tiny."""
    changes = [word for change in CHANGES for word in ("--set", change)]
    return ["reproduce", *arguments, *COMMON, "--out", str(folder), *changes]


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["reproduce", "table1", *COMMON, "--expert", "embedded", "--out", str(tmp_path / "out")]
    assert main([*words, "--dry-run", "--scale", "paper"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("table1 at scale paper: ")
    row = next(line.split() for line in lines if line.startswith("gosvae "))
    assert row[1] == "50"  # 100 epochs of 4 images, 8 a step
    assert row[4] == "vqvae"
    assert lines[-2].startswith("about ")
    assert "not measured" in lines[-2]
    assert lines[-1].startswith("Not checked: the expert, files of weights, single images, memory and the time")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("expert", "expected"),
    [
        (
            "hf:shi-labs/oneformer_cityscapes_swin_large",
            ("has 16 times the pixels: ?short=256", "at 1024x2048 pixels)"),
        ),
        ("hf:shi-labs/oneformer_cityscapes_swin_large?short=256", ("Swin-L", "at 256x512 pixels)")),
        (
            "hf:any/segformer",
            ("OneFormer (Swin-L)", "; the expert here is hf:any/segformer, which takes another time)"),
        ),
        ("embedded", ("RTX 4090 with the embedded expert, not measured)",)),
    ],
)
def test_the_plan_says_for_which_expert_its_hours_are(
    expert: str, expected: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reproduce", "table1", *COMMON, "--expert", expert, "--out", str(tmp_path), "--scale", "paper"]
    assert main([*words, "--dry-run", "--rows", "vqvae"]) == 0
    out = capsys.readouterr().out
    assert all(text in out for text in expected)
    assert ("times the pixels" in out) == expert.endswith("oneformer_cityscapes_swin_large")
    assert ("OneFormer" in out) == (expert != "embedded")


def test_rows_then_a_report_then_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = command(tmp_path, "table1", "--rows", "label-map")
    assert main([*words, "--max-minutes", "0"]) == 3
    assert "0 rows are done, 0 failed, 1 is left" in capsys.readouterr().out
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "row 1 of 1, label-map" in out
    assert f"written: {tmp_path / 'report' / 'report.html'}" in out
    assert main([*words, "--quiet", "--report", str(tmp_path / "page")]) == 0
    assert capsys.readouterr().out == "1 row is done, 0 failed, 0 are left\n"
    assert (tmp_path / "page" / "report.md").is_file()


def test_the_report_is_written_when_a_table_is_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(tmp_path, "fig2", "table1", "--rows", "vqvae", "label-map")) == 0
    lines = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert lines.count("written") == 2
    assert lines.index("row 1 of 2, vqvae") < lines.index("written") < lines.index("row 2 of 2, label-map")
    report = (tmp_path / "report" / "report.md").read_text()
    assert report.index("## Table I") < report.index("## Fig. 2")


@pytest.mark.parametrize("order", [1, -1])
def test_a_training_that_a_table_and_fig_4_share_is_made_once(order: int, tmp_path: Path) -> None:
    calls = [("table1", "vqvae"), ("fig4", "fig4-vqvae-r4-s0")][::order]
    for experiment, row in calls:
        words = command(tmp_path, experiment, "--rows", row, "--scale", "paper", "--expert", "embedded", "--no-fid")
        assert main(words) == 0
    # The first point of Fig. 4 that is measured is one whose codec a row of Table I has trained.
    assert order == -1 or (tmp_path / "report" / "fig4.png").is_file()
    assert sorted(path.name for path in (tmp_path / "rows").iterdir()) == ["fig4-vqvae-r4-s0", "vqvae"]
    assert not (tmp_path / "rows" / "fig4-vqvae-r4-s0" / "train").exists()


def test_kept_rows_count_as_done_and_are_not_trained_to_be_measured_without_lpips(
    tmp_path: Path, lpips_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = "gosvae-scratch:stages.0.weights={lpips: 1.0, codebook: 1.0, commitment: 0.25}"
    common = ("--rows", "gosvae-scratch", "fig4-start-r8-s0", "--keep", str(tmp_path / "kept"))

    def words(out: str, *more: str) -> list[str]:
        return [*command(tmp_path / out, "table1", *common), "--set", weights, "--quiet", *more]

    assert main(words("a", "--lpips", "lpips-squeeze", "--weights", str(lpips_weights))) == 0
    (tmp_path / "kept" / "fig4-start-r8-s0.json").unlink()
    capsys.readouterr()
    assert main(words("b", "--max-minutes", "0")) == 3
    captured = capsys.readouterr()
    # The start is kept too, but without the checkpoint that the last row needs.
    assert captured.out == "2 rows are done, 0 failed, 1 is left\n"
    assert "2 of 3 rows are done" in (tmp_path / "b" / "report" / "report.md").read_text()
    assert "gosvae: measured in another way, and not trained again, " in captured.err
    assert captured.err.endswith(": gosvae-scratch, fig4-vqvae-r8-s0\n")
    assert main(words("b")) == 0
    captured = capsys.readouterr()
    assert captured.out == "3 rows are done, 0 failed, 0 are left\n"
    assert captured.err.endswith("--out: gosvae-scratch\n")
    assert not (tmp_path / "b" / "rows" / "gosvae-scratch" / "train").exists()


HOLD = "import sys; from pathlib import Path; from gosvae.reproduce.lock import alone_in\n"
HOLD += "with alone_in(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"


def test_one_process_makes_rows_in_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = command(tmp_path, "table1", "--rows", "label-map")
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert main(words) == 2
        line = capsys.readouterr().err
        assert f"the process {other.pid} makes rows in {tmp_path}: wait until it ends, or name another" in line
        assert line.endswith("(option --out)\n")
        assert line.count("\n") == 1
        assert main([*words, "--max-minutes", "0"]) == 3
        other.kill()
    assert main(words) == 0
    with alone_in(tmp_path):
        assert (tmp_path / "lock").read_text() == str(os.getpid())


def test_a_report_alone_keeps_the_reason_of_a_failure(tmp_path: Path) -> None:
    words = command(tmp_path, "table1", "--rows", "vqvae", "--set", "vqvae:stages.0.learning_rate=1.0e+30")
    assert main(words) == 1
    assert main([*words, "--max-minutes", "0"]) == 3
    assert "VQ-VAE (r=4) (failed)" in (tmp_path / "report" / "report.md").read_text()


def test_a_failed_row_is_an_exit_status_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = command(tmp_path, "all", "--rows", "vqvae", "--set", "vqvae:stages.0.learning_rate=1.0e+30")
    assert main(words) == 1
    captured = capsys.readouterr()
    assert "gosvae: row vqvae failed: " in captured.err
    assert "table2 is left out" in captured.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("table2",), "Table II is on ADE20K, got 'streets': give --data ade20k:PATH, or make table1"),
        (("table1", "--rows", "gosva"), "unknown row 'gosva'; did you mean 'gosvae'?"),
        (("table1", "--set", "vqave:stages.0.steps=1", "--dry-run"), "unknown row 'vqave'; did you mean 'vqvae'?"),
        (("table1", "--set", "vqvae-s2:stages.0.steps=1"), "unknown row 'vqvae-s2'; did you mean"),
        (("table1", "--leave-out", "gosva"), "unknown row 'gosva'; did you mean 'gosvae'?"),
        (("table1", "--data", "streets:4@val"), "the split is chosen here"),
        (("table1", "--seeds", "0"), "--seeds must be at least 1, got 0"),
        (("fig2", "--pictures", "0"), "--pictures must be at least 1"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", arguments[0], *COMMON, "--out", str(tmp_path), *arguments[1:]]) == 2
    line = capsys.readouterr().err
    assert message in line
    assert line.count("\n") == 1


def test_an_expert_of_another_task_is_refused_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")
    (tmp_path / "net.json").write_text('{"task": "depth"}')
    arguments = ["--data", "folder:none", "--expert", str(tmp_path / "net.onnx"), "--dry-run"]
    assert main(["reproduce", "table1", *arguments, "--out", str(tmp_path)]) == 2
    line = capsys.readouterr().err
    assert "expert 'net' has the task 'depth': an expert of segmentation is needed here" in line
    assert line.count("\n") == 1
