"""`gosvae evaluate --channel` and `gosvae evaluate-link`, from words to files."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter

from gosvae.cli.main import main
from gosvae.codecs.checkpoint import save_codec
from gosvae.evaluation import load_evaluation
from gosvae.evaluation.link_sweep import SWEEP_FILE, Sweep
from tiny import checkpoint


@pytest.fixture
def codec(tmp_path: Path) -> str:
    save_codec(tmp_path / "tiny", checkpoint())
    return str(tmp_path / "tiny")


def test_evaluate_over_a_channel(codec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "evaluate",
        codec,
        "--baselines",
        "jpeg",
        "--data",
        "streets:3",
        "--resize",
        "64x96",
        "--out",
        str(tmp_path),
    ]
    channel = ["--channel", "packet-loss p=0.3", "--fec", "0.25", "--packets", "4", "--seed", "2", "--device", "cpu"]
    assert main([*words, *channel, "--quiet"]) == 0
    assert "packet-loss p=0.3, 4 packets an image, FEC 25 %, seed 2" in " ".join(capsys.readouterr().out.split())
    _, ours, jpeg = load_evaluation(tmp_path).rows
    assert ours.concealed_share is not None
    assert 0 < ours.concealed_share < 1
    assert ours.lost_images == 0
    assert ours.damaged_images > 0
    assert jpeg.total_bytes is not None
    assert ours.total_bytes is not None
    assert jpeg.over_budget_images == 3 or jpeg.total_bytes <= ours.total_bytes


def saved_sweep(folder: Path) -> Sweep:
    return TypeAdapter(Sweep).validate_json((folder / SWEEP_FILE).read_bytes())


def test_evaluate_link(codec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate-link", codec, "jpeg", "avif:2KiB", "--kib", "1.75", "--data", "streets:2", "--resize", "64x96"]
    more = ["--axes", "loss", "ber", "--device", "cpu", "--quiet", "--limit", "1", "--out", str(tmp_path / "out")]
    assert main([*words, *more]) == 0
    printed = capsys.readouterr().out
    sweep = saved_sweep(tmp_path / "out")
    assert (tmp_path / "out" / "table.md").read_text(encoding="utf-8") in printed
    for name in ("loss.png", "loss.svg", "ber.png", "ber.svg"):
        assert (tmp_path / "out" / name).is_file()
    labels = [row.system for row in sweep.rows if row.axis == "loss" and row.x == 0.1]
    assert labels == [n for spec in (codec, "jpeg", "avif:2KiB") for n in (spec, f"{spec} + 25 % FEC")]
    for row in sweep.rows:
        if row.system.startswith("jpeg"):
            assert row.over_budget_images or row.air_bytes <= 1792
    clear, *_, noisy = [row for row in sweep.rows if row.axis == "ber" and row.system == codec]
    assert (clear.x, clear.whole, noisy.whole) == (0.0, 1.0, 0.0)


def test_evaluate_link_by_radio(tmp_path: Path) -> None:
    words = "evaluate-link jpeg:20 --data streets:1 --resize 64x96 --fec 0 --packets 2 --axes awgn --points 0 3"
    assert main([*words.split(), "--device", "cpu", "--quiet", "--no-labels", "--out", str(tmp_path)]) == 0
    noisy, clear = saved_sweep(tmp_path).rows
    assert noisy.channel == "awgn snr_db=0.0 modulation=qpsk ldpc_rate=0.5"
    assert (noisy.whole, clear.whole) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("evaluate jpeg --fec 0.25", "--fec needs a channel"),
        ("evaluate jpeg --channel packet-los", "did you mean 'packet-loss'"),
        ("evaluate label-map --channel binary-symmetric", "expected binary-symmetric p=0..1"),
        ("evaluate-link jpeg --kib 0", "--kib 0.0: expected more than 0"),
        ("evaluate-link jpeg --points 0 1 --axes loss ber", "--points are those of one axis"),
        ("evaluate-link jpeg --limit 0", "--limit must be at least 1"),
        ("evaluate-link jpeg --repeats 0", "repeats"),
        ("evaluate-link jpeg --packets 0", "0 packets"),
    ],
)
def test_errors_of_one_line(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words.split(), "--data", "streets:1", "--device", "cpu"]) == 2
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1
