"""The runner: rows that are done stay done, an interruption at any place is made good, a failing row stops no other."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_job import CHANGES, ROWS, STEPS, job, runner

from gosvae.codecs.registry import load_codec
from gosvae.errors import ConfigError
from gosvae.evaluation.protocol import CodecEntry, evaluate
from gosvae.evaluation.results import load_evaluation
from gosvae.reproduce import runner as runner_module
from gosvae.reproduce.job import Job, World
from gosvae.reproduce.plan import Trained, all_rows, rows_of
from gosvae.reproduce.progress import TrainingNews
from gosvae.reproduce.records import FAILURE_FILE, ROW_FILE, TRACE_FILE, RowFolder, trained_with
from gosvae.reproduce.runner import Runner
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


def test_a_users_change_of_a_row_is_one_of_its_repetitions() -> None:
    choices = job("vqvae:stages.0.learning_rate=0.1", "vqvae-s1:stages.0.weight_decay=0.1")
    rows = {row.row_id: choices.changes_for(row) for row in rows_of(["table1"], ["vqvae"], 3)}
    assert rows["vqvae-s2"] == rows["vqvae"] == (*CHANGES[:5], "stages.0.learning_rate=0.1")
    assert rows["vqvae-s1"] == (*rows["vqvae"], "stages.0.weight_decay=0.1")


def test_further_seeds_leave_the_keys_of_the_first() -> None:
    alone, among = (Runner(World(job()), rows_of(["table1"], ROWS, n), Path()).keys() for n in (1, 3))
    assert {name: among[name] for name in alone} == alone
    assert len(set(among.values())) == len(among) > len(alone)


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


def trainings(folder: Path) -> dict[str, tuple[int, str]]:
    """When each codec was written, and the log of its training."""
    places = {name: RowFolder(folder / "rows" / name).checkpoint for name in ("vqvae", "gosvae")}
    return {
        name: ((place / "weights.safetensors").stat().st_mtime_ns, (place / "log.jsonl").read_text())
        for name, place in places.items()
    }


def test_other_measurements_train_nothing_again(copy: Path) -> None:
    before, made, lines = trainings(copy), times(copy), list[str]()
    more = replace(job(), test_data="streets:6@val")
    plan = [row for row in all_rows() if row.row_id in ROWS]
    assert Runner(World(more), plan, copy, say=lines.append).run().complete
    assert trainings(copy) == before
    assert all(made[name] != when for name, when in times(copy).items())
    assert any("its training stays, and its numbers are now in gosvae.old-1" in line for line in lines)
    for name in ROWS:
        assert len(load_evaluation(copy / "rows" / name).images) == 6
        assert len(load_evaluation(copy / "rows" / f"{name}.old-1").images) == 4
    assert not (copy / "rows" / "gosvae.old-1" / "train").exists()


def test_an_interruption_while_numbers_are_moved_keeps_the_training(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, plan = trainings(copy), [row for row in all_rows() if row.row_id == "vqvae"]
    real, calls = Path.rename, iter(range(9))

    def interrupted(self: Path, target: Path) -> Path:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return real(self, target)

    world = World(replace(job(), test_data="streets:6@val"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Runner(world, plan, copy, say=lambda _: None).run()
    assert Runner(world, plan, copy, say=lambda _: None).run().complete
    assert trainings(copy) == before


def training_keys(job: Job, trained_with: str | None = None, **measured: str) -> dict[str, str | None]:
    """Keys of the trainings of all rows of tables, for networks of these names."""
    world, rows = World(job, trained_with), {row.row_id: row for row in all_rows() if row.curve is None}
    world.__dict__["perceptual"] = SimpleNamespace(name=measured.get("perceptual", "lpips-squeeze"))
    world.__dict__["features"] = SimpleNamespace(name=measured.get("features", "embedded"))
    if "expert" in measured:
        world.__dict__["expert_fingerprint"] = measured["expert"]
    return {name: world.training_key(row, rows, world.settings(row, rows)) for name, row in rows.items()}


def test_what_a_training_depends_on() -> None:
    plain = replace(job(), changes=(), lpips="lpips-squeeze")
    first = training_keys(plain)
    assert {name for name, key in first.items() if key is None} == {
        row.row_id for row in all_rows() if not isinstance(row.source, Trained)
    }
    assert training_keys(plain, features="inception-2015-12-05") == first
    assert training_keys(replace(plain, test_data="streets:9@val")) == first
    other = replace(plain, lpips="lpips-vgg16")
    assert training_keys(other, "lpips-squeeze", perceptual="lpips-vgg16") == first

    def changed(keys: dict[str, str | None]) -> set[str]:
        return {name for name, key in keys.items() if key != first[name]}

    judged = {"gosvae-scratch", "gosvae", "gosvae-residual", "vqgan", "vqvae-lpips", "gosvae-kld-lpips"}
    assert changed(training_keys(replace(plain, train_lpips="lpips-vgg16"))) == judged
    assert changed(training_keys(other, perceptual="lpips-vgg16")) == judged  # a new folder
    pixels = {"vqvae", "vqvae-residual", "autoencoder", "vqvae-lpips"}
    assert changed(training_keys(plain, expert="other")) & pixels == set()
    assert {"gosvae", "gosvae-ce", "vqvae-kld"} <= changed(training_keys(plain, expert="other"))


def test_the_distance_of_earlier_trainings_is_found(tmp_path: Path) -> None:
    def begin(name: str, stage: dict[str, float], **settings: str) -> None:
        folder = RowFolder(tmp_path / "rows" / name)
        folder.begin({"recipe": {"stages": [{"weights": stage}]}, **settings}, lambda _: None)
        folder.checkpoint.mkdir()

    assert trained_with(tmp_path) is None
    begin("vqvae", {"mse": 1.0}, perceptual="lpips-alex")
    begin("gosvae.old-1", {"lpips": 1.0}, perceptual="lpips-alex")
    assert trained_with(tmp_path) is None
    begin("gosvae", {"lpips": 1.0}, perceptual="lpips-vgg16", training_distance="lpips-squeeze")
    begin("gosvae-scratch", {"lpips": 1.0}, perceptual="lpips-squeeze")
    assert trained_with(tmp_path) == "lpips-squeeze"
    begin("vqgan", {"lpips": 1.0}, perceptual="lpips-vgg16")
    assert trained_with(tmp_path) is None


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
