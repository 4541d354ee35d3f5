"""The runner: rows that are done stay done, an interruption at any place is made good, a failing row stops no other."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_job import ROWS, STEPS, job, runner

from gosvae.codecs.registry import load_codec
from gosvae.errors import ConfigError
from gosvae.evaluation.protocol import CodecEntry, evaluate
from gosvae.evaluation.results import load_evaluation
from gosvae.reproduce import runner as runner_module
from gosvae.reproduce.job import Job, World
from gosvae.reproduce.progress import TrainingNews
from gosvae.reproduce.records import FAILURE_FILE, ROW_FILE, TRACE_FILE, RowFolder
from gosvae.reproduce.scales import load_scale


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all rows of `ROWS` are done."""
    folder = tmp_path_factory.mktemp("reproduction")
    lines: list[str] = []
    summary = runner(folder, lines=lines).run()
    assert summary.complete
    assert summary.done == list(ROWS)
    assert [line for line in lines if "row 2 of 4, gosvae: GOS-VAE" in line and "min left for 3 rows" in line]
    return folder


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil."""
    return Path(shutil.copytree(done, tmp_path / "copy"))


def times(folder: Path) -> dict[str, int]:
    """When each row was finished."""
    return {name: (folder / "rows" / name / ROW_FILE).stat().st_mtime_ns for name in ROWS}


def test_a_row_keeps_settings_seed_checkpoint_images_minutes_and_steps(done: Path) -> None:
    records = {name: RowFolder(done / "rows" / name).record() for name in ROWS}
    start, tuned, jpeg = records["vqvae"], records["gosvae"], records["jpeg"]
    assert start is not None
    assert tuned is not None
    assert jpeg is not None
    assert (start.own_steps, start.start_steps, start.seed, start.batch_size) == (STEPS, 0, 0, 1)
    assert (tuned.own_steps, tuned.start_steps) == (STEPS, STEPS)
    assert (jpeg.steps, jpeg.seed, jpeg.training_minutes) == ({}, None, 0.0)
    assert start.training_minutes >= 0
    for name in ROWS:
        evaluation = load_evaluation(done / "rows" / name)
        assert [image.label for image in evaluation.images] == [name] * 4
    assert (done / "rows" / "vqvae" / "train" / "weights.safetensors").is_file()


def test_the_rate_of_a_knob_is_that_of_the_reference_image_by_image(done: Path) -> None:
    reference, jpeg = (load_evaluation(done / "rows" / name).images for name in ("gosvae", "jpeg"))
    for image, other in zip(reference, jpeg, strict=True):
        assert image.image == other.image
        assert other.over_budget == (other.total_bytes > image.total_bytes)


def test_budgets_are_one_for_each_image() -> None:
    world = World(job())
    entry = CodecEntry("jpeg", load_codec("jpeg"), budget_bytes=[5000, 5000])
    with pytest.raises(ConfigError, match="'jpeg' has 2 budgets for 4 images"):
        evaluate([entry], world.test_images, world.expert)


def test_rows_that_are_done_are_not_done_again(copy: Path) -> None:
    before = times(copy)
    lines: list[str] = []
    assert runner(copy, lines=lines).run().complete
    assert times(copy) == before
    assert lines == []


def test_time_that_is_up_leaves_rows_and_the_same_call_continues(tmp_path: Path, done: Path) -> None:
    summary = runner(tmp_path).run(max_minutes=0.0)
    assert summary.left == list(ROWS)
    assert not summary.failed
    assert runner(tmp_path).run().complete
    for name in ROWS:  # as if nothing had been between
        rows = [load_evaluation(folder / "rows" / name).rows[1] for folder in (tmp_path, done)]
        assert rows[0].total_bytes == rows[1].total_bytes
        assert rows[0].miou == rows[1].miou


@pytest.mark.parametrize("place", ["train", "evaluate", "save_evaluation", "finish"])
def test_an_interruption_at_any_place_is_made_good(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if place == "finish":
            patch.setattr(RowFolder, "finish", interrupted)
        else:
            patch.setattr(runner_module, place, interrupted)
        with pytest.raises(KeyboardInterrupt):
            runner(tmp_path, rows=["vqvae"]).run()
    folder = RowFolder(tmp_path / "rows" / "vqvae")
    assert folder.record() is None
    log = folder.log()
    assert bool(log) == (place != "train")
    assert runner(tmp_path, rows=["vqvae"]).run().complete
    assert not log or folder.log() == log  # a finished training is not done again
    assert not list(tmp_path.glob("rows/*.old-*"))


def test_a_training_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more, lines, real = ("stages.0.steps=9",), list[str](), runner_module.train

    def stopped(*args: Any, **options: Any) -> Any:
        return real(*args, **{**options, "max_minutes": 0.0})  # one step, then the state is saved

    with monkeypatch.context() as patch:
        patch.setattr(runner_module, "train", stopped)
        assert runner(tmp_path, *more, rows=["vqvae"], lines=lines).run().left == ["vqvae"]
    assert any("stopped at step 1; the same command continues" in line for line in lines)
    assert runner(tmp_path, *more, rows=["vqvae"]).run().complete
    record = RowFolder(tmp_path / "rows" / "vqvae").record()
    assert record is not None
    assert record.own_steps == 9


def test_changed_settings_are_done_again_and_the_old_rows_are_kept_aside(copy: Path) -> None:
    before, lines = times(copy), list[str]()
    assert runner(copy, "gosvae:stages.0.learning_rate=0.002", lines=lines).run().complete
    after = times(copy)
    # JPEG takes the bytes of what has changed; the start and the label map do not know it.
    assert {name for name in ROWS if after[name] != before[name]} == {"gosvae", "jpeg"}
    assert (copy / "rows" / "gosvae.old-1" / ROW_FILE).is_file()
    assert any("its settings have changed; what was there is now gosvae.old-1" in line for line in lines)


def test_a_row_that_fails_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    lines: list[str] = []
    summary = runner(tmp_path, "gosvae:stages.0.learning_rate=1.0e+30", lines=lines).run()
    assert summary.done == ["vqvae", "label-map"]
    assert list(summary.failed) == ["gosvae", "jpeg"]
    assert "not finite" in summary.failed["gosvae"]
    assert summary.failed["jpeg"] == "it needs the row gosvae, which failed"
    assert RowFolder(tmp_path / "rows" / "gosvae").failure() == summary.failed["gosvae"]
    assert any("FAILED" in line for line in lines)
    assert runner(tmp_path).run().complete  # with a rate that works
    assert not list(tmp_path.glob(f"rows/*/{FAILURE_FILE}"))


def test_a_defect_in_a_row_leaves_its_traceback(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("two lines\nof text")

    (copy / "rows" / "jpeg" / ROW_FILE).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(runner_module, "evaluate", broken)
        summary = runner(copy).run()
    assert summary.failed["jpeg"].startswith("RuntimeError: two lines (see ")
    assert "of text" in (copy / "rows" / "jpeg" / TRACE_FILE).read_text()
    assert runner(copy).run().complete
    assert not (copy / "rows" / "jpeg" / TRACE_FILE).exists()


def test_a_damaged_record_or_result_is_not_done(copy: Path) -> None:
    (copy / "rows" / "jpeg" / ROW_FILE).write_text("{")
    (copy / "rows" / "label-map" / "evaluation.json").write_text("")
    lines: list[str] = []
    assert runner(copy, lines=lines).run().complete
    assert [line.split(":")[0] for line in lines] == ["row 3 of 4, jpeg", "row 4 of 4, label-map"]


def test_an_unknown_recipe_fails_alone(tmp_path: Path) -> None:
    summary = runner(tmp_path, "vqvae:model.autoencoder.widht=3", rows=["vqvae", "label-map"]).run()
    assert summary.done == ["label-map"]
    assert "did you mean 'width'" in summary.failed["vqvae"]


def test_data_come_without_a_split() -> None:
    with pytest.raises(ConfigError, match="the split is chosen here"):
        Job(data="streets:4@val", expert="embedded", scale=load_scale("small"))


def test_news_of_a_training(tmp_path: Path) -> None:
    folder, lines = RowFolder(tmp_path), list[str]()
    folder.checkpoint.mkdir()
    with TrainingNews(folder, "row 1 of 1", 10, lines.append, every_seconds=0.01) as news:
        (folder.checkpoint / "log.jsonl").write_text('{"step": 4, "stage": "pixels", "minutes": 0.5}\n{"st')
        deadline_s = time.monotonic() + 60.0
        while not lines and time.monotonic() < deadline_s:
            news._ended.wait(0.01)
    assert lines[0].startswith("row 1 of 1: step 4 of 10, ")
    assert lines[0].endswith("min left")
    assert folder.training_minutes() == 0.5


def test_points_of_fig_4_may_be_measured_on_fewer_images() -> None:
    world = World(replace(job(), scale=replace(load_scale("small"), sweep_images=2)))
    names = [world.test_images[i].name for i in range(4)]
    for row in runner(Path(), rows=["fig4-vqvae-r8-s0", "vqvae"]).rows:
        images = world.images_of(row)
        seen = [images[i].name for i in range(len(images))]
        assert seen == (names if row.row_id == "vqvae" else [names[0], names[2]])
