"""Kept rows: a small file stands for a row made elsewhere, and a row that needs its checkpoint makes it again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from small_job import job

from gosvae.errors import ConfigError
from gosvae.reproduce.job import World
from gosvae.reproduce.keep import Keep
from gosvae.reproduce.plan import all_rows
from gosvae.reproduce.records import RowFolder, trained_with
from gosvae.reproduce.report import write_report
from gosvae.reproduce.runner import Runner

ROWS = ("vqvae", "gosvae", "jpeg")


def runner(
    folder: Path, kept: Path, *more: str, lines: list[str] | None = None, rows: Sequence[str] = ROWS, **choices: Any
) -> Runner:
    """A runner of three rows with a folder of kept rows."""
    plan = [row for row in all_rows() if row.row_id in rows]
    said: list[str] = [] if lines is None else lines
    return Runner(World(job(*more, **choices)), plan, folder, say=said.append, keep=Keep(kept))


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of each file by its name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that keeps the three rows."""
    folder = tmp_path_factory.mktemp("kept")
    assert runner(tmp_path_factory.mktemp("out"), folder).run().complete
    assert sorted(path.name for path in folder.iterdir()) == ["gosvae.json", "jpeg.json", "vqvae.json"]
    return folder


def test_kept_rows_are_taken_and_not_made(kept: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    runs = runner(tmp_path, kept, lines=lines)
    assert runs.run(max_minutes=0.0).complete
    assert lines == [f"{name} is taken from {kept / name}.json" for name in ROWS]
    evaluation = runs.folder_of("gosvae").evaluation()
    tree = json.loads((kept / "gosvae.json").read_text())
    assert evaluation is not None
    assert evaluation.rows[1].total_bytes == tree["rows"][1]["total_bytes"]
    assert [row.total_bytes for row in evaluation.images] == [image[3] for image in tree["images"]]
    assert evaluation.provenance.command == ""  # it would name folders of the machine
    assert not runs.folder_of("gosvae").checkpoint.exists()
    before = {path: path.read_bytes() for path in kept.iterdir()}
    assert runner(tmp_path, kept).run().complete
    assert {path: path.read_bytes() for path in kept.iterdir()} == before


def test_kept_rows_of_other_settings_are_left(kept: Path, tmp_path: Path) -> None:
    assert runner(tmp_path, kept, "stages.0.steps=3").run(max_minutes=0.0).left == list(ROWS)


def test_a_checkpoint_that_is_needed_is_made_again(kept: Path, tmp_path: Path) -> None:
    some = tmp_path / "some"
    some.mkdir()
    (some / "vqvae.json").write_bytes((kept / "vqvae.json").read_bytes())
    lines: list[str] = []
    runs = runner(tmp_path / "out", some, lines=lines)
    summary = runs.run(max_minutes=0.0)
    assert (summary.done, summary.left) == (["vqvae"], ["gosvae", "jpeg"])
    assert runs.folder_of("vqvae").record() is not None  # it stands in the report until it is made again
    assert runs.run().complete
    assert runs.folder_of("vqvae").checkpoint.exists()
    assert sorted(path.name for path in some.iterdir()) == ["gosvae.json", "jpeg.json", "vqvae.json"]


def test_a_kept_file_is_never_overwritten_by_a_row_of_other_settings(kept: Path, tmp_path: Path) -> None:
    some, lines = Path(shutil.copytree(kept, tmp_path / "some")), list[str]()
    more = ("stages.0.steps=3", "gosvae:stages.0.steps=3")
    assert runner(tmp_path / "out", some, *more, lines=lines).run().complete
    found, before = contents(some), contents(kept)
    assert {name.replace(".old-1", ""): data for name, data in found.items() if ".old-1" in name} == before
    assert set(found) == {*before, *(f"{name}.old-1.json" for name in ROWS)}
    aside = some / "vqvae.old-1.json"
    assert f"vqvae was kept with other settings, in a file that is now {aside}" in lines
    assert runner(tmp_path / "out", some, *more).run().complete
    assert contents(some) == found
    (some / "jpeg.json").write_text("{")
    assert runner(tmp_path / "out", some, *more).run().complete
    assert (some / "jpeg.old-2.json").read_text() == "{"
    assert (some / "jpeg.json").read_bytes() == found["jpeg.json"]


def test_kept_rows_are_not_trained_again_to_be_measured_in_another_way(kept: Path, tmp_path: Path) -> None:
    before = contents(kept)
    for _ in range(2):
        runs = runner(tmp_path / "out", kept, test_data="streets:6@val")
        summary = runs.run()
        assert summary.complete
        assert summary.standing == list(ROWS)
    assert contents(kept) == before
    assert not list((tmp_path / "out").glob("rows/*/train"))
    write_report(runs, ["table1"], tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "3 of 3 rows are done" in text
    assert "| GOS-VAE (r=4), pre-trained start (measured in another way) | " in text
    assert text.count("measured in another way than this report's (on streets, 4 images, by expert-") == 1
    # With the checkpoint, or another training, a row is measured again; JPEG goes with the row whose bytes it takes.
    assert runner(tmp_path / "there", kept, rows=["vqvae"]).run().complete
    (tmp_path / "there" / "rows" / "vqvae" / "train").mkdir()
    assert runner(tmp_path / "there", kept, rows=["vqvae"], test_data="streets:6@val").run(max_minutes=0.0).left
    other = runner(tmp_path / "other", kept, "gosvae:stages.0.steps=3", test_data="streets:6@val")
    assert other.run(max_minutes=0.0).left == ["gosvae", "jpeg"]


def test_a_row_takes_the_bytes_of_a_kept_one_on_the_same_images_alone(kept: Path, tmp_path: Path) -> None:
    some = Path(shutil.copytree(kept, tmp_path / "some"))
    (some / "jpeg.json").unlink()
    summary = runner(tmp_path / "more", some, test_data="streets:6@val").run()
    assert list(summary.failed) == ["jpeg"]
    assert summary.failed["jpeg"].startswith("it takes the bytes of gosvae, whose kept numbers are of other images: ")
    runs = runner(tmp_path / "same", some, fid=False)
    summary = runs.run()
    assert summary.complete
    assert summary.standing == ["vqvae", "gosvae"]
    evaluation = runs.folder_of("jpeg").evaluation()
    assert evaluation is not None
    assert evaluation.rows[1].frechet_network is None
    assert "jpeg.old-1.json" not in contents(some)


def test_a_kept_row_is_trained_and_measured_again_if_another_one_starts_from_it(kept: Path, tmp_path: Path) -> None:
    some = Path(shutil.copytree(kept, tmp_path / "some"))
    (some / "gosvae.json").unlink()
    summary = runner(tmp_path / "out", some, test_data="streets:6@val").run()
    assert summary.complete
    assert summary.standing == []
    assert set(contents(some)) == {"vqvae.json", "vqvae.old-1.json", "gosvae.json", "jpeg.json", "jpeg.old-1.json"}


def test_trainings_keep_the_perceptual_distance_of_kept_rows(kept: Path, tmp_path: Path) -> None:
    assert trained_with(tmp_path, Keep(kept).settings()) is None  # these know none
    assert len(Keep(kept).settings()) == 3
    settings = {"recipe": {"stages": [{"weights": {"lpips": 1.0}}]}, "perceptual": "lpips-alex"}
    assert trained_with(tmp_path, [settings]) == "lpips-alex"
    RowFolder(tmp_path / "rows" / "gosvae").begin({**settings, "perceptual": "lpips-vgg16"}, lambda _: None)
    (tmp_path / "rows" / "gosvae" / "train").mkdir()
    assert trained_with(tmp_path, [settings]) == "lpips-vgg16"


def test_figures_say_why_kept_rows_do_not_make_them(tmp_path: Path) -> None:
    rows = ("gosvae-scratch",)
    assert runner(tmp_path / "out", tmp_path / "kept", rows=rows).run().complete
    runs = runner(tmp_path / "new", tmp_path / "kept", rows=rows)
    assert runs.run().complete
    write_report(runs, ["fig2", "fig3"], tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "from scratch is missing: the row gosvae-scratch has no checkpoint here" in text
    assert "from scratch has no training curves here: its numbers come from a kept file, which has none." in text
    assert "Not made yet." not in text


def test_a_file_that_is_no_row_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "vqvae.json").write_text("{")
    with pytest.raises(ConfigError, match=r"vqvae\.json is no kept row: "):
        runner(tmp_path / "out", tmp_path / "kept").run(max_minutes=0.0)
