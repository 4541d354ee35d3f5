"""Kept rows: a small file stands for a row made elsewhere, and a row that needs its checkpoint makes it again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_job import job

from gosvae.errors import ConfigError
from gosvae.reproduce.job import World
from gosvae.reproduce.keep import Keep
from gosvae.reproduce.plan import all_rows
from gosvae.reproduce.runner import Runner

ROWS = ("vqvae", "gosvae", "jpeg")


def runner(folder: Path, kept: Path, *more: str, lines: list[str] | None = None) -> Runner:
    """A runner of three rows with a folder of kept rows."""
    plan = [row for row in all_rows() if row.row_id in ROWS]
    said: list[str] = [] if lines is None else lines
    return Runner(World(job(*more)), plan, folder, say=said.append, keep=Keep(kept))


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
    assert runs.run(max_minutes=0.0).left == list(ROWS)
    assert runs.folder_of("vqvae").record() is not None  # it stands in the report until it is made again
    assert runs.run().complete
    assert runs.folder_of("vqvae").checkpoint.exists()
    assert sorted(path.name for path in some.iterdir()) == ["gosvae.json", "jpeg.json", "vqvae.json"]


def test_a_file_that_is_no_row_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "vqvae.json").write_text("{")
    with pytest.raises(ConfigError, match=r"vqvae\.json is no kept row: "):
        runner(tmp_path / "out", tmp_path / "kept").run(max_minutes=0.0)
