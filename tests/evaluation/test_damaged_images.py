"""Images that cannot be read are left out, told and counted, and nothing that was measured is lost."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from small_world import BlockCodec, Brightness, RawCodec, Scenes

from gosvae.cli.main import main
from gosvae.datasets.base import Sample
from gosvae.errors import DatasetError, ImageError
from gosvae.evaluation import CodecEntry, Evaluation, evaluate, load_evaluation, save_evaluation
from gosvae.evaluation.cells import caption
from gosvae.evaluation.rows import ImageRow
from gosvae.images import write_image

SIZES = ((16, 24), (9, 17), (16, 16))


class Damaged(Scenes):
    """Scenes of which some cannot be read."""

    def __init__(self, damaged: set[int]) -> None:
        super().__init__(SIZES)
        self.damaged = damaged

    def __getitem__(self, index: int) -> Sample:
        if index in self.damaged:
            raise ImageError(f"scene-{index}.png is damaged")
        return super().__getitem__(index)


def measured(dataset: Scenes, **options: object) -> Evaluation:
    entries = [CodecEntry("Block", BlockCodec(4), budget_bytes=[2000, 1, 3000]), CodecEntry("Raw", RawCodec())]
    return evaluate(entries, dataset, Brightness().freeze(), **options)  # type: ignore[arg-type]


def test_a_damaged_image_is_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    evaluation = measured(Damaged({1}), skip_damaged=True, keep_images=(1, 2))
    whole = measured(Scenes(SIZES))
    assert evaluation.images == tuple(row for row in whole.images if row.image != "scene-1")
    assert [row.image_count for row in evaluation.rows] == [2, 2, 2]
    assert [kept.name for kept in evaluation.kept] == ["scene-2"]
    assert evaluation.provenance.skipped == ("scene-1.png is damaged",)
    assert "left out because they cannot be read: 1" in caption(evaluation.provenance, evaluation.rows)
    assert "left out: scene-1.png is damaged" in caplog.text
    save_evaluation(evaluation, tmp_path)
    assert load_evaluation(tmp_path).provenance == evaluation.provenance


def test_an_evaluation_in_python_ends_at_a_damaged_image_unless_it_is_told_otherwise() -> None:
    with pytest.raises(ImageError, match="scene-1"):
        measured(Damaged({1}))


def test_an_evaluation_of_damaged_images_alone_is_an_error() -> None:
    with pytest.raises(DatasetError, match="none of the 3 images of 'scenes' can be read; the first: scene-0"):
        measured(Damaged({0, 1, 2}), skip_damaged=True)


def test_rows_are_given_out_as_soon_as_they_are_measured() -> None:
    got: list[ImageRow] = []
    with pytest.raises(ImageError):
        measured(Damaged({2}), on_image=got.extend)
    assert [(row.image, row.label) for row in got] == [
        (f"scene-{n}", label) for n in (0, 1) for label in ("Block", "Raw")
    ]


def images(folder: Path, names: list[bytes]) -> None:
    folder.mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    for name in names:
        write_image(folder / "made.png", picture)
        (folder / "made.png").rename(folder / os.fsdecode(name))


def command(tmp_path: Path, *more: str) -> int:
    data, out = f"folder:{tmp_path / 'data'}", str(tmp_path / "out")
    return main(["evaluate", "jpeg:50", "--data", data, "--out", out, "--quiet", *more])


def test_the_command_measures_the_rest_and_its_status_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images(tmp_path / "data", [b"1.png", b"2.png", b"3.png"])
    good = (tmp_path / "data" / "2.png").read_bytes()
    (tmp_path / "data" / "2.png").write_bytes(good[: len(good) // 2])
    assert command(tmp_path) == 1
    assert "1 of 3 images cannot be read and are left out" in capsys.readouterr().err
    evaluation = load_evaluation(tmp_path / "out")
    assert [row.image for row in evaluation.images] == ["1.png", "3.png"]
    assert not (tmp_path / "out" / "images.jsonl").exists()


def test_the_command_refuses_a_folder_that_cannot_be_made_before_it_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images(tmp_path / "data", [b"1.png"])
    (tmp_path / "out").write_text("a file")
    assert command(tmp_path) == 2
    captured = capsys.readouterr()
    assert "cannot write results in" in captured.err
    assert "(option --out)" in captured.err
    assert captured.out == ""


def test_an_error_leaves_the_rows_that_were_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images(tmp_path / "data", [b"1.png", b"2.png", b"3.png"])
    from gosvae.codecs.classical_base import ClassicalCodec

    real, calls = ClassicalCodec.decompress, iter(range(9))

    def fails_at_the_third(self: ClassicalCodec, data: bytes) -> object:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return real(self, data)

    monkeypatch.setattr(ClassicalCodec, "decompress", fails_at_the_third)
    assert command(tmp_path) == 130
    lines = (tmp_path / "out" / "images.jsonl").read_text().splitlines()
    assert [(json.loads(line)["image"], json.loads(line)["label"]) for line in lines] == [
        ("1.png", "jpeg:50"),
        ("2.png", "jpeg:50"),
    ]


def test_names_that_are_not_utf8_are_written_as_escapes(tmp_path: Path) -> None:
    try:
        images(tmp_path / "data", [b"caf\xe9.png"])
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert command(tmp_path) == 0
    assert [row.image for row in load_evaluation(tmp_path / "out").images] == ["caf\\xe9.png"]
