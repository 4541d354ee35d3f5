"""The command: what it prints and writes, and one line with exit status 2 for what a user can mend."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from gosvae.bitstream import Header, pack
from gosvae.cli.main import main
from gosvae.codecs.checkpoint import load_codec_checkpoint, save_codec
from gosvae.images import read_image, write_image
from gosvae.recipes import recipe_names
from gosvae.training.machine.provenance import earlier_runs
from gosvae.weights import WEIGHTS_FILE
from tiny import checkpoint, recipe_tree, streets, variable_checkpoint

COMMANDS = ("demo", "train", "train-expert", "export", "evaluate", "compress", "decompress", "info", "list")
EXPERT = {
    "kind": "expert",
    "name": "tiny-expert",
    "description": "for tests",
    "widths": [8, 8, 8, 8],
    "blocks": [1, 1, 1],
    "stages": [
        {
            "name": "supervised",
            "weights": {"cross_entropy": 1.0},
            "steps": 2,
            "batches": {"batch_size": 1, "crop_height": 32, "crop_width": 48},
        }
    ],
}
QUICK = ("--accelerator", "cpu", "--precision", "32", "--resize", "64x96", "--quiet")

Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command that succeeds and return what it prints."""

    def call(*arguments: object) -> str:
        assert main([str(a) for a in arguments]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out

    return call


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command that is refused and return its one line."""

    def call(*arguments: object) -> str:
        try:
            status = main([str(a) for a in arguments])
        except SystemExit as error:  # from argparse
            status = int(error.code or 0)
        line = capsys.readouterr().err
        assert status == 2
        assert line.startswith("gosvae")
        assert ": error: " in line
        assert line.count("\n") == 1, line
        return line

    return call


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codec") / "tiny"
    save_codec(folder, checkpoint())
    return folder


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by the command itself."""
    folder = tmp_path_factory.mktemp("expert")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(EXPERT))
    out = folder / "run"
    command = ["train-expert", str(folder / "recipe.yaml"), "--data", "streets:2", "--out", str(out), *QUICK]
    assert main(command) == 0
    return out


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for i in range(2):
        write_image(folder / f"{i}.png", streets()[i].image_uint8_HW3)
    return folder


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_is_enough_to_start(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "usage: gosvae" in text
    if not command:
        assert all(name in text for name in COMMANDS)


def test_list_names_everything(run: Run) -> None:
    text = run("list")
    for name in (*recipe_names(), "embedded", "camvid", "streets", "jpeg[:QUALITY]"):
        assert f"  {name}" in text
    assert "recipes:" not in run("list", "datasets")


def test_info_tells_all_runs_or_that_they_are_not_recorded(run: Run, tmp_path: Path) -> None:
    run_of = {"recipe": {"name": "second"}, "stages": {"joint": 3}, "minutes_of_stage": 0.5, "init": "old"}
    first = {"recipe": {"name": "first"}, "stages": {"pixels": 7}, "minutes_of_stage": 1.5, "init": None}
    for name, notes in {
        "whole": {**run_of, "earlier_runs": earlier_runs(first), "context": {"stages": {"context": 9}}},
        "partly": {**run_of, "earlier_runs": earlier_runs({**first, "init": "lost"})},
        "released": run_of,
        "single": first,
    }.items():
        save_codec(tmp_path / name, dataclasses.replace(checkpoint(), provenance=notes))
    text = run("info", tmp_path / "whole")
    assert re.search(r"earlier run 1 +first, pixels 7, 1\.5 minutes \(last stage\)$", text, re.MULTILINE)
    assert re.search(r"context model +context 9$", text, re.MULTILINE)
    assert "not recorded" not in text
    text = run("info", tmp_path / "partly")
    assert "earlier run 1" in text
    assert re.search(r"started from +lost, whose own runs are not recorded", text)
    text = run("info", tmp_path / "released")
    assert "earlier run" not in text
    assert re.search(r"started from +old, whose own runs are not recorded", text)
    assert "started from" not in run("info", tmp_path / "single")


def test_info_shows_names_of_strangers_without_their_control_characters(run: Run, tmp_path: Path) -> None:
    notes = {"dataset": "streets\x1b[2J\r\x07", "hardware": "a\nb"}
    save_codec(tmp_path / "codec", dataclasses.replace(checkpoint(), provenance=notes))
    text = run("info", tmp_path / "codec")
    assert r"streets\x1b[2J\r\x07" in text
    assert r"a\nb" in text
    assert all(character.isprintable() or character == "\n" for character in text)


def test_damaged_weights_are_loaded_by_who_asks_for_it_and_a_note_says_so(
    refuse: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "other"):
        save_codec(tmp_path / name, checkpoint(seed=len(name)))
    damaged = tmp_path / "one"
    (damaged / WEIGHTS_FILE).write_bytes((tmp_path / "other" / WEIGHTS_FILE).read_bytes())
    assert "--no-verify" in refuse("info", damaged)
    assert main(["info", str(damaged), "--no-verify"]) == 0
    shown = capsys.readouterr()
    assert "fingerprint" in shown.out
    assert shown.err == "gosvae: note: the weights of models are not compared with their SHA-256\n"


def test_there_and_back(run: Run, codec: Path, photos: Path, tmp_path: Path) -> None:
    stream, back = tmp_path / "a.gos", tmp_path / "a.png"
    text = run("compress", photos / "0.png", "-o", stream, "--codec", codec)
    assert "96x64" in text
    assert "bpp (tiny)" in text
    assert "96x64 (tiny)" in run("decompress", stream, "-o", back, "--codec", codec)
    assert read_image(back).shape == (64, 96, 3)
    text = run("info", stream)
    for part in ("version 2, checksum correct", "96x64 pixels", "entropy model", "not a model of this package"):
        assert part in text
    text = run("info", codec)
    for part in ("tiny (recipe none)", "shallow, stride 4", "K = 16, D = 4"):
        assert part in text
    fixed = tmp_path / "fixed.gos"
    run("compress", photos / "0.png", "-o", fixed, "--codec", codec, "--entropy", "fixed")
    run("decompress", fixed, "--codec", codec)
    np.testing.assert_array_equal(read_image(tmp_path / "fixed.gos.png"), read_image(back))


def test_compress_says_what_a_model_is_made_for(
    run: Run, refuse: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = dataclasses.replace(checkpoint(), provenance={"dataset": "camvid (367)+streets (180)"})
    save_codec(tmp_path / "model", model)
    assert main(["compress", str(photos / "0.png"), str(photos / "1.png"), "--codec", str(tmp_path / "model")]) == 0
    captured = capsys.readouterr()
    assert captured.err == "gosvae: note: tiny is made for street scenes; other pictures may come out badly\n"
    assert captured.out.count("\n") == 3  # two files and their sum
    run("compress", photos / "0.png", "--codec", "jpeg:40")  # nothing on standard error: JPEG was not trained
    refuse("compress", tmp_path / "none.png", "--codec", tmp_path / "model")  # the error alone, without the note


def test_folders_of_results_and_classical_codecs(run: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("compress", photos / "0.png", photos / "1.png", "-o", out, "--codec", "jpeg:40")
    assert sorted(path.name for path in out.iterdir()) == ["0.jpg", "1.jpg"]
    run("decompress", out / "0.jpg", out / "1.jpg", "-o", tmp_path / "back", "--codec", "jpeg")
    assert read_image(tmp_path / "back" / "1.png").shape == (64, 96, 3)


def test_streams_are_refused_in_one_line(refuse: Run, codec: Path, photos: Path, tmp_path: Path) -> None:
    picture = photos / "0.png"
    assert "did you mean 'jpeg'?" in refuse("compress", picture, "--codec", "jepg")
    assert "no such checkpoint folder: runs/none" in refuse("compress", picture, "--codec", "runs/none")
    assert "is both the input and the output" in refuse("decompress", picture, "-o", picture, "--codec", "jpeg")
    assert f"two files would be written to {photos / '0.gos'}" in refuse("compress", picture, picture, "--codec", codec)
    (tmp_path / "one").touch()
    assert "give a folder" in refuse("compress", picture, photos / "1.png", "-o", tmp_path / "one", "--codec", codec)
    assert "not a regular file" in refuse("compress", picture, "-o", "/dev/null", "--codec", codec)
    (tmp_path / "not.png").write_text("text")
    assert str(tmp_path / "not.png") in refuse("compress", tmp_path / "not.png", "--codec", codec)
    assert "none.png" in refuse("compress", tmp_path / "none.png", "--codec", codec)
    renamed = Path(shutil.copy(picture, tmp_path / "renamed.gos"))
    for command in (("decompress", renamed, "--codec", codec), ("decompress", renamed), ("info", renamed)):
        assert f"{renamed}: not a gosvae stream: it begins with" in refuse(*command)
    assert "cannot read" in refuse("decompress", tmp_path / "none.gos")
    assert "no such file or folder" in refuse("info", tmp_path / "none.gos")
    assert "unknown model 'expert-camvdi'; did you mean 'expert-camvid'?" in refuse("info", "expert-camvdi")
    for size in ("0", "-1", "nan", "much"):
        assert f"expected a size in KiB above 0 such as 0.5, got '{size}'" in refuse("compress", picture, "--kib", size)
    assert f"is {photos} a checkpoint folder?" in refuse("info", photos)
    huge = tmp_path / "huge.gos"
    huge.write_bytes(pack(Header(b"mark", 2**14, 2**14, 1), b"few"))
    said = refuse("decompress", huge)
    assert f"{huge}: a picture of 268435456 pixels, at most 67108864 are decoded" in said
    assert "--max-pixels" in said


def test_info_knows_the_embedded_expert_by_both_names(run: Run) -> None:
    assert run("info", "embedded") == run("info", "expert-camvid")


def test_slices_and_containers(run: Run, refuse: Run, codec: Path, photos: Path, tmp_path: Path) -> None:
    stream, back = tmp_path / "a.gos", tmp_path / "a.png"
    command = ("compress", photos / "0.png", "-o", stream, "--codec", codec)
    run(*command, "--slices", "4", "--slice-layout", "interleaved", "--entropy", "fixed")
    text = run("info", stream)
    for part in ("version 2, checksums correct", "4 (interleaved; 48 to 48 bytes each)", "0 (fixed)"):
        assert part in text
    run("decompress", stream, "-o", back, "--codec", codec)
    whole = read_image(back)
    run(*command, "--container", "1", "--entropy", "fixed", "--force")
    assert "version 1, checksum correct" in run("info", stream)
    run("decompress", stream, "-o", back, "--codec", codec, "--force")
    assert (read_image(back) == whole).all()
    stream.unlink()
    assert "300 slices: expected 1..256" in refuse(*command, "--slices", "300")
    assert "this codec has no context entropy model" in refuse(*command, "--entropy", "context")
    assert "'jpeg' has no option slices: leave it out" in refuse(*command[:-1], "jpeg", "--slices", "3")


def test_another_models_stream_and_damage_name_the_file(
    run: Run, refuse: Run, codec: Path, photos: Path, tmp_path: Path
) -> None:
    stream = tmp_path / "a.gos"
    run("compress", photos / "0.png", "-o", stream, "--codec", codec)
    save_codec(tmp_path / "other", checkpoint(seed=1))
    assert f"{stream}: made by another codec" in refuse("decompress", stream, "--codec", tmp_path / "other")
    assert f"{stream}: no model of this package" in refuse("decompress", stream)
    stream.write_bytes(stream.read_bytes()[:-5])
    assert f"{stream}: truncated" in refuse("decompress", stream, "--codec", codec)
    assert not (tmp_path / "a.png").exists()


def test_what_argparse_refuses_is_one_line_too(refuse: Run, photos: Path) -> None:
    assert "see gosvae --help" in refuse()
    assert "unknown command 'compres'; did you mean 'compress'?" in refuse("compres")
    assert "--data" in refuse("train", "gosvae")
    assert "expected HEIGHTxWIDTH" in refuse("evaluate", "--data", photos, "--resize", "big")


def test_evaluate_writes_table_numbers_and_picture(
    run: Run, refuse: Run, codec: Path, expert: Path, tmp_path: Path
) -> None:
    second = Path(shutil.copytree(codec, tmp_path / "second"))
    common = ("--data", "streets:2", "--expert", expert, "--resize", "64x96", "--quiet")
    text = run("evaluate", codec, second, *common, "--baselines", "jpeg", "--out", tmp_path / "results")
    for name in ("table.md", "evaluation.json", "pictures.png"):
        assert (tmp_path / "results" / name).is_file()
    for part in ("uncompressed", "tiny", "jpeg", str(second)):  # two codecs of one name can be told apart
        assert part in text
    assert json.loads((tmp_path / "results" / "evaluation.json").read_text())
    assert "miou" in run("evaluate", "jpeg:30", *common, "--limit", 1).lower()
    assert "--limit must be at least 1" in refuse("evaluate", codec, *common, "--limit", 0)
    assert "add --sweep jpeg" in refuse("evaluate", codec, *common, "--anchor", "jpeg")
    assert "not among the codecs" in refuse("evaluate", codec, *common, "--match", "other")
    assert "pass it as the expert (option --expert)" in refuse("evaluate", expert, *common)
    assert "unknown expert" in refuse("evaluate", codec, "--data", "streets:1", "--expert", "nobody")
    assert "did you mean 'streets'?" in refuse("evaluate", codec, "--data", "street:2", "--expert", expert)


def test_curves_of_an_evaluation(expert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for seed, folder in enumerate((first, second)):  # two codecs of one name are two curves
        save_codec(folder, variable_checkpoint(seed=seed, name="tiny-variable"))
    points = [f"jpeg:{quality}" for quality in (2, 10, 30, 55, 90)]
    command = ["evaluate", *points, "--curve", "mine", "--sweep", first, second, "jpeg", "--anchor", "mine"]
    command += ["--data", "streets:1", "--expert", expert, "--resize", "64x96", "--no-labels", "--quiet"]
    assert main([str(part) for part in command]) == 0
    out, err = capsys.readouterr()
    assert "BD-rate of jpeg against mine:" in out
    for curve in ("tiny-variable", second):
        assert out.count(f"{curve}:") >= 9
        assert f"BD-rate of {curve} against mine:" in out + err
    assert "BD-rate of mine" not in out + err


def test_info_of_an_expert(run: Run, expert: Path) -> None:
    text = run("info", expert)
    assert "tiny-expert" in text
    assert "96x64 pixels" in text


def test_train_stop_continue_export(
    run: Run, refuse: Run, expert: Path, tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = recipe_tree()
    del tree["stages"][1]["weights"]["lpips"]  # its weights may not be at hand
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump(json.loads(json.dumps(tree))))  # shared parts would become aliases
    out = tmp_path / "run"
    command = ("train", mine, "--data", "streets:3", "--out", out, "--set", "stages.0.steps=2", *QUICK)
    assert "needs an expert: name one, such as 'embedded' (option --expert)" in refuse(*command)
    command = (*command, "--expert", expert)
    assert f"stopped at step 1; the same command continues: {out}" in run(*command, "--max-minutes", "0")
    assert "other settings" in refuse(*command, "--seed", "1")
    assert f"finished: {out}" in run(*command)
    assert f"finished: {out}" in run(*command)
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert "tiny (recipe tiny)" in run("info", out)
    text = run("export", out / "stages" / "pixels", tmp_path / "model", "--name", "street-pixels")
    assert text.startswith(f"street-pixels: {tmp_path / 'model'}")
    exported, original = load_codec_checkpoint(tmp_path / "model"), load_codec_checkpoint(out / "stages" / "pixels")
    assert exported.fingerprint() == original.fingerprint()
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "config.json",
        "provenance.json",
        "weights.safetensors",
    ]
    assert main(["compress", str(photos / "0.png"), "--codec", str(tmp_path / "model")]) == 0
    assert "is made for street scenes" in capsys.readouterr().err
    assert (photos / "0.gos").is_file()


def test_trainings_are_refused_in_one_line(refuse: Run, tmp_path: Path) -> None:
    base = ("--data", "streets:2", "--out", tmp_path / "run", *QUICK)
    assert "did you mean 'gosvae'?" in refuse("train", "gosva", *base)
    text = refuse("train", "vqvae", *base, "--set", "model.autoencoder.strid=8")
    assert "model.autoencoder.strid: unknown key 'strid'; did you mean 'stride'?" in text
    assert "use gosvae train-expert" in refuse("train", "expert-compact", *base)
    assert "use gosvae train" in refuse("train-expert", "vqvae", *base)
    assert "options: devices" in refuse("train", "vqvae", *base, "--devices", "0")
    text = refuse("train", "vqvae", *base, "--set", "stages.0.weights={mes: 1.0}")
    assert "unknown loss term 'mes'; did you mean 'mse'?" in text
    text = refuse("train", "vqvae", *base, "--set", "stages.0.batches.crop_height=500")
    assert "cannot cut 500x256" in text
    (tmp_path / "file").touch()
    text = refuse("train", "vqvae", "--data", "streets:2", "--out", tmp_path / "file" / "run", *QUICK)
    assert "file" in text
    assert "cannot read" in refuse("export", tmp_path / "none", tmp_path / "model")


def test_an_accelerator_that_is_not_there_is_one_line(refuse: Run, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has what the test wants to be missing")
    text = refuse("train", "vqvae", "--data", "streets:2", "--out", tmp_path, "--accelerator", "cuda", "--quiet")
    assert "cuda" in text
