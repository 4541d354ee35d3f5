"""What cannot work is refused before the first step, and a trial of every row says what a run takes."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_job import CHANGES, ROWS, job

from gosvae.cli.main import main
from gosvae.datasets.camvid import CAMVID_CLASSES
from gosvae.errors import ConfigError, ImageError
from gosvae.evaluation import features
from gosvae.reproduce import checks, trial
from gosvae.reproduce import job as job_module
from gosvae.reproduce.job import World
from gosvae.reproduce.plan import all_rows, rows_of
from gosvae.reproduce.runner import Runner

PAPER = ("reproduce", "table1", "--scale", "paper", "--resize", "64x96", "--accelerator", "cpu")
DATA = ("--data", "streets:4")


@pytest.fixture(autouse=True)
def _no_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of these tests trains a row, reaches a network or finds files of this machine."""

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a run was begun")

    def offline(*_: Any, **__: Any) -> Any:
        raise OSError("no network in tests")

    monkeypatch.setattr(Runner, "run", never)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.delenv("GOSVAE_WEIGHTS", raising=False)


def refusal(capsys: pytest.CaptureFixture[str], tmp_path: Path, *words: str) -> str:
    """The line with which a command at the paper's scale is refused."""
    assert main([*PAPER, "--out", str(tmp_path / "out"), *words]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert not (tmp_path / "out").exists()
    return line


def test_the_papers_scale_has_no_default_expert(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = refusal(capsys, tmp_path, *DATA)
    assert "the scale paper has no default expert: name it" in line
    assert "(option --expert)" in line


def test_a_wrong_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = refusal(capsys, tmp_path, "--data", f"cityscapes:{tmp_path / 'nowhere'}", "--expert", "embedded")
    assert f"{tmp_path / 'nowhere' / 'leftImg8bit' / 'train'} is not a folder: check the path given" in line


def transformers_folder(folder: Path, class_names: tuple[str, ...]) -> Path:
    """A folder with the configuration of a SegFormer, without its weights."""
    folder.mkdir()
    names = dict(enumerate(class_names))
    config = {"model_type": "segformer", "architectures": ["SegformerForSemanticSegmentation"], "id2label": names}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "SegformerImageProcessor"}))
    return folder


NO_DISTANCES = ("--lpips", "none", "--no-fid", "--rows", "vqvae")


@pytest.mark.parametrize("size", ["", "?short=256"])
def test_an_expert_of_other_classes_is_refused_by_its_configuration(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("the weights were loaded")

    monkeypatch.setattr(job_module, "load_expert", never)
    folder = transformers_folder(tmp_path / "model", ("road", "sky", "tree"))
    line = refusal(capsys, tmp_path, *DATA, "--expert", f"{folder}{size}", *NO_DISTANCES)
    assert "labels of 'streets' and expert" in line
    assert "have other classes (11 classes against 3" in line
    assert line.endswith(": take an expert for these classes\n")  # `reproduce` cannot leave labels out


def test_an_expert_without_weights(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = transformers_folder(tmp_path / "model", CAMVID_CLASSES)
    line = refusal(capsys, tmp_path, *DATA, "--expert", str(folder), *NO_DISTANCES)
    assert "cannot be loaded as a transformers model: " in line
    assert "no file named" in line


def test_a_hub_id_that_does_not_exist(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = refusal(capsys, tmp_path, *DATA, "--expert", "hf:nobody/no-model", *NO_DISTANCES)
    assert "cannot get 'nobody/no-model' from the Hugging Face hub" in line


def test_an_expert_of_the_package_with_other_classes(tmp_path: Path) -> None:
    """Classes that only the loaded expert tells are compared too."""
    world = World(job(data=f"cityscapes:{cityscapes(tmp_path)}"))
    with pytest.raises(ConfigError, match=r"have other classes \(19 classes against 11"):
        checks.check_job(world, rows_of(["table1"], ["vqvae"]))


def cityscapes(root: Path) -> Path:
    for split in ("train", "val"):
        for kind in ("leftImg8bit", "gtFine"):
            (root / kind / split / "aachen").mkdir(parents=True)
        stem = "aachen_000000_000019"
        Image.new("RGB", (96, 64)).save(root / "leftImg8bit" / split / "aachen" / f"{stem}_leftImg8bit.png")
        Image.new("L", (96, 64), 7).save(root / "gtFine" / split / "aachen" / f"{stem}_gtFine_labelIds.png")
    return root


@pytest.mark.parametrize("words", [[], ["--check"], ["--dry-run"]])
def test_the_experts_map_does_not_take_the_place_of_missing_labels_at_the_papers_scale(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = cityscapes(tmp_path / "data")
    shutil.rmtree(root / "gtFine" / "val")
    command = [*PAPER, "--data", f"cityscapes:{root}", "--expert", "embedded", *NO_DISTANCES, *words]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    missing = root / "gtFine" / "val" / "*" / "*_gtFine_labelIds.png"
    assert f"the scale paper measures on ground truth, and there are no label maps {missing}: put them there" in line
    checks.check_labels(World(job(data=f"cityscapes:{root}")))  # at other scales, captions say so
    pictures = f"folder:{root / 'leftImg8bit' / 'val' / 'aachen'}"  # images that never have labels are named as such
    checks.check_labels(World(job(scale="paper", data=f"cityscapes:{root}", test_data=pictures)))


def test_no_other_lpips_takes_the_place_of_the_papers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, lpips_weights: Path
) -> None:
    """Weights of LPIPS-Squeeze are there, and only a command that names it uses them."""
    words = (*DATA, "--expert", "embedded", "--no-fid", "--weights", str(lpips_weights))
    line = refusal(capsys, tmp_path, *words)
    assert "lpips-vgg16" in line or "vgg16-397923af.pth" in line
    assert f"put torchvision's vgg16-397923af.pth into {lpips_weights}, and pip install torchmetrics" in line
    assert World(job(scale="paper", lpips="auto", weights=lpips_weights)).training_distance == "lpips-vgg16"
    assert World(job(lpips="auto", weights=lpips_weights)).training_distance == "lpips-squeeze"
    world = World(job(scale="paper", lpips="lpips-squeeze", weights=lpips_weights, fid=False))
    checks.check_job(world, rows_of(["table1"], ["gosvae"]))


def test_a_row_whose_loss_has_no_distance(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = refusal(capsys, tmp_path, *DATA, "--expert", "embedded", "--no-fid", "--lpips", "none", "--rows", "gosvae")
    assert "row gosvae is trained with LPIPS, of which no weights are wanted or found" in line
    assert "(option --lpips)" in line


def test_a_finished_row_needs_no_weights_for_its_training(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, loaded = rows_of(["table4"], ["vqvae-lpips"]), list[str]()
    monkeypatch.setattr(checks, "load_perceptual", lambda name, _: loaded.append(name))
    for before in (None, "lpips-squeeze"):
        checks.check_job(World(job(), before), rows, lambda: [])
    assert loaded == []
    checks.check_job(World(job(), "lpips-squeeze"), rows)
    assert loaded == ["lpips-squeeze"]
    with pytest.raises(ConfigError, match="row vqvae-lpips is trained with LPIPS"):
        checks.check_job(World(job()), rows, lambda: rows)


def test_the_fid_is_required_at_the_papers_scale(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    words = (*DATA, "--expert", "embedded", "--lpips", "none", "--weights", str(weights), "--rows", "vqvae")
    line = refusal(capsys, tmp_path, *words)
    assert "no inception-2015-12-05.pt or pt_inception-2015" in line
    assert f" in {weights}: " in line
    assert line.endswith(", or measure no FID (option --weights)\n")
    path = weights / "inception-2015-12-05.pt"
    path.write_bytes(b"something")
    line = refusal(capsys, tmp_path, *words)
    assert "it again, or accept it as another network, whose distance is no FID (option --any-inception)" in line
    assert "is not a TorchScript file" in refusal(capsys, tmp_path, *words, "--any-inception")
    monkeypatch.setattr(features, "PUBLISHED", {hashlib.sha256(b"something").hexdigest(): "a test"})
    assert "is not a TorchScript file" in refusal(capsys, tmp_path, *words)
    world = World(job(scale="paper", fid=False))
    assert world.features is None
    row = next(row for row in all_rows() if row.row_id == "vqvae")
    assert world.settings(row, {"vqvae": row})["frechet"] is None


def test_an_impossible_override_is_found_before_the_first_row(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    line = refusal(capsys, tmp_path, *DATA, "--expert", "embedded", "--set", "gosvae:model.autoencoder.widht=3")
    assert "row gosvae: " in line
    assert "did you mean 'width'" in line


def test_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    root = cityscapes(tmp_path)
    (root / "leftImg8bit" / "val" / "aachen" / "aachen_000000_000019_leftImg8bit.png").write_bytes(b"")
    world = World(job(data=f"cityscapes:{root}"))
    with pytest.raises(ImageError, match="the first image to test on cannot be used: "):
        checks.check_job(world, rows_of(["table1"], ["vqvae"]))


def test_a_trial_of_rows() -> None:
    rows = [row for row in all_rows() if row.row_id in (*ROWS, "fig4-vqvae-r8-s0", "fig4-vqvae-r8-s1", "gosvae-ce")]
    world = World(job("gosvae-ce:stages.0.batches.crop_height=640", "gosvae-ce:stages.0.batches.crop_width=640"))
    found = {one.row_id: one for one in trial.try_rows(world, rows)}
    assert list(found) == [row.row_id for row in rows]
    for name in ("vqvae", "gosvae"):
        (stage,) = found[name].stages
        assert stage.batch == stage.tried == 1
        assert stage.fits >= 1
        assert stage.seconds > 0
        assert stage.peak_bytes > 2**20
        hours, image_seconds = found[name].hours, found[name].image_seconds
        assert hours is not None
        assert image_seconds is not None
        assert hours * 3600 == pytest.approx(4 * stage.seconds + 4 * image_seconds)
    assert found["jpeg"].stages == ()
    assert found["jpeg"].works
    # Rows that differ in their seed alone are tried once.
    assert found["fig4-vqvae-r8-s1"].hours == found["fig4-vqvae-r8-s0"].hours
    assert "cannot cut 640x640" in found["gosvae-ce"].trouble
    assert not found["gosvae-ce"].works


class GrowingMemory:
    """A machine of 100 bytes on which a step takes 20 bytes and 9 for each image."""

    batch = 0

    def __init__(self, _: torch.device) -> None:
        pass

    def reset(self) -> None:
        pass

    def peak_bytes(self) -> int:
        return 20 + 9 * GrowingMemory.batch

    def limit_bytes(self) -> int:
        return 100


@pytest.mark.parametrize(("planned", "tried", "fits"), [(1, 1, 1), (2, 2, 8), (6, 6, 8), (16, 2, 8)])
def test_the_batch_that_fits(planned: int, tried: int, fits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []

    def steps(_fabric: Any, _task: Any, stages: Any, _run: Any, batches_of: Any) -> dict[str, float]:
        batches.append(batches_of(stages[0], 0, 1).batch(0).x_B3HW.shape[0])
        GrowingMemory.batch = batches[-1]
        return {stages[0].name: 0.5 * batches[-1]}

    monkeypatch.setattr(trial, "MemoryMeter", GrowingMemory)
    monkeypatch.setattr(trial, "try_stages", steps)
    world = World(job(f"vqvae:stages.0.batches.batch_size={planned}"))
    (found,) = trial.try_rows(world, rows_of(["table1"], ["vqvae"]))
    (stage,) = found.stages
    assert (stage.batch, stage.tried, stage.fits) == (planned, tried, fits)
    assert batches == sorted({1, min(2, planned), tried})
    assert found.works == (fits >= planned)
    assert stage.seconds_of(10) == pytest.approx(5.0 * planned)


def test_a_step_without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> dict[str, float]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trial, "try_stages", none)
    (found,) = trial.try_rows(World(job()), rows_of(["table1"], ["vqvae"]))
    assert found.stages[0].fits == 0
    assert not found.works


def test_the_command_prints_a_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = [word for change in CHANGES for word in ("--set", change)]
    words = ["reproduce", "table1", *DATA, "--resize", "64x96", "--lpips", "none", "--accelerator", "cpu", *changes]
    assert main([*words, "--check", "--out", str(tmp_path / "out"), "--rows", "vqvae", "label-map"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "trial of 2 rows at scale small on cpu; memory is the peak of the process"
    row = next(line.split() for line in lines if line.startswith("vqvae "))
    assert row[1] == "1"
    assert float(row[3]) > 0
    assert lines[-1].startswith("about ")
    assert not (tmp_path / "out").exists()
