"""Videos from the command line: training of the temporal model, compressing, describing and reconstructing."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gosvae.cli.main import main
from gosvae.codecs.checkpoint import save_codec
from gosvae.codecs.temporal_model import save_temporal_model
from gosvae.codecs.variable import VariableRateCodec
from gosvae.images import read_image
from gosvae.sender.sources import open_source
from gosvae.sender.video import VideoFile
from tiny import streets, temporal_model, variable_checkpoint


@pytest.fixture
def codec_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "codec"
    save_codec(folder, variable_checkpoint())
    codec = VariableRateCodec.load(folder)
    save_temporal_model(folder, temporal_model(codec))
    return folder


def frames_folder(folder: Path, count: int = 6) -> Path:
    folder.mkdir()
    for number in range(count):
        Image.fromarray(np.roll(streets()[0].image_uint8_HW3, number, axis=1)).save(folder / f"{number}.png")
    return folder


def test_a_folder_of_frames_becomes_one_file_and_frames_again(
    tmp_path: Path, codec_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames, file, back = frames_folder(tmp_path / "frames"), tmp_path / "drive.gosv", tmp_path / "back"
    compress = ["compress", str(frames), "-o", str(file), "--codec", f"{codec_folder}:100", "--key-interval", "4"]
    assert main([*compress, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["frames"], facts["width"], facts["height"]) == (6, 96, 64)
    assert facts["bytes"] == file.stat().st_size
    assert main(["info", str(file), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert (described["frames"], described["key_frames"], described["complete"]) == (6, [0, 4], True)
    assert main(["info", str(file)]) == 0
    assert "not a model of this package" in capsys.readouterr().out
    assert main(["decompress", str(file), "--codec", str(codec_folder), "-o", f"{back}/"]) == 0
    names = sorted(path.name for path in back.iterdir())
    assert names == [f"{number:06d}.png" for number in range(6)]
    assert read_image(back / names[0]).shape == (64, 96, 3)
    assert main(compress) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["decompress", str(file), "-o", f"{back}/", "--force"]) == 2
    assert "no model of this package" in capsys.readouterr().err
    assert main(["decompress", str(file), "--codec", str(codec_folder), "--max-pixels", "6143"]) == 2
    assert "a picture of 6144 pixels, at most 6143 are decoded" in capsys.readouterr().err


def test_no_codec_needs_to_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames, file = frames_folder(tmp_path / "frames", 2), tmp_path / "drive.gosv"
    assert main(["compress", str(frames), "-o", str(file)]) == 0
    assert "2 of 2 frames" in capsys.readouterr().out
    assert main(["decompress", str(file), "-o", str(tmp_path / "back/")]) == 0
    assert main(["info", str(file)]) == 0


def test_a_video_becomes_a_video(tmp_path: Path, codec_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video, file, back = tmp_path / "drive.mp4", tmp_path / "drive.gosv", tmp_path / "back.mkv"
    moving = [np.roll(streets()[0].image_uint8_HW3, number, axis=1) for number in range(8)]
    with video.open("w+b") as stream:
        assert VideoFile(stream, ".mp4", 12.5).write(moving) == 8
    assert main(["compress", str(video), "--codec", str(codec_folder), "--kbps", "40", "--resize", "32x48"]) == 0
    assert "8 frames" in capsys.readouterr().out
    assert main(["decompress", str(file), "--codec", str(codec_folder), "-o", str(back)]) == 0
    assert "8 frames" in capsys.readouterr().out
    with back.open("rb") as stream:
        assert [picture.shape for picture in open_source([str(back)], stream)] == [(32, 48, 3)] * 8


def test_a_rate_that_cannot_be_kept_is_told(
    tmp_path: Path, codec_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames, file = frames_folder(tmp_path / "frames"), tmp_path / "drive.gosv"
    words = ["compress", str(frames), "-o", str(file), "--codec", str(codec_folder), "--fps", "10", "--force"]
    assert main([*words, "--kbps", "0.1", "--max-age-ms", "200"]) == 0
    assert "note: 0.1 kbit/s cannot be kept with a frame every 200 ms" in capsys.readouterr().err
    assert main([*words, "--kbps", "5000"]) == 0
    assert "note" not in capsys.readouterr().err


def test_a_file_that_was_cut_is_reconstructed_up_to_the_cut(
    tmp_path: Path, codec_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames, file = frames_folder(tmp_path / "frames"), tmp_path / "drive.gosv"
    assert main(["compress", str(frames), "-o", str(file), "--codec", f"{codec_folder}:0", "--fps", "5"]) == 0
    file.write_bytes(file.read_bytes()[:-60])
    capsys.readouterr()
    assert main(["decompress", str(file), "--codec", str(codec_folder), "-o", str(tmp_path / "back/")]) == 0
    assert "the file was cut" in capsys.readouterr().out
    assert 1 <= len(list((tmp_path / "back").iterdir())) < 6


def test_a_budget_for_every_frame(tmp_path: Path, codec_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames, file = frames_folder(tmp_path / "frames", 3), tmp_path / "drive.gosv"
    assert main(["compress", str(frames), "-o", str(file), "--codec", str(codec_folder), "--kib", "0.2"]) == 0
    assert file.stat().st_size < 3 * 0.2 * 1024 + 80
    capsys.readouterr()
    assert main(["compress", str(frames), "-o", str(tmp_path / "a.gosv"), "--kib", "1", "--kbps", "9"]) == 2
    assert "--kbps" in capsys.readouterr().err
    assert main(["compress", str(frames), str(frames), "-o", str(tmp_path / "a.gosv")]) == 2
    assert "2 sources" in capsys.readouterr().err


def test_images_by_name_become_one_file(tmp_path: Path, codec_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [str(path) for path in sorted(frames_folder(tmp_path / "frames", 3).iterdir())]
    file = tmp_path / "drive.gosv"
    assert main(["compress", *names, "-o", str(file), "--codec", f"{codec_folder}:0"]) == 0
    assert "3 sources -> " in capsys.readouterr().out
    assert main(["info", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 3
    for out in ([], ["-o", str(tmp_path)]):
        assert main(["compress", *names, *out, "--fps", "5", "--codec", str(codec_folder)]) == 2
        assert "name the .gosv file" in capsys.readouterr().err


def test_a_sequence_goes_through_pipes(
    tmp_path: Path, codec_folder: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def give(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))  # type: ignore[arg-type]

    picture = streets()[0].image_uint8_HW3
    give(b"".join(b"P6 96 64 255\n" + np.roll(picture, number, axis=1).tobytes() for number in range(3)))
    assert main(["compress", "-", "-o", "-", "--fps", "5", "--codec", f"{codec_folder}:0"]) == 0
    captured = capsysbinary.readouterr()
    assert b"3 of 3 frames" in captured.err
    give(captured.out)
    assert main(["info", "-", "--json"]) == 0
    assert json.loads(capsysbinary.readouterr().out)["frames"] == 3
    give(captured.out)
    assert main(["decompress", "-", "-o", str(tmp_path / "back/"), "--codec", str(codec_folder)]) == 0
    assert len(list((tmp_path / "back").iterdir())) == 3
    give(captured.out)
    assert main(["decompress", "-", "--codec", str(codec_folder)]) == 2
    assert b"standard output takes no sequence" in capsysbinary.readouterr().err


def test_decoding_may_begin_anywhere(tmp_path: Path, codec_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames, file = frames_folder(tmp_path / "frames", 7), tmp_path / "drive.gosv"
    compress = ["compress", str(frames), "-o", str(file), "--codec", f"{codec_folder}:100", "--key-interval", "3"]
    decompress = ["decompress", str(file), "--codec", str(codec_folder), "-o"]
    assert main(compress) == main([*decompress, str(tmp_path / "all")]) == 0
    assert main([*decompress, str(tmp_path / "some"), "--first", "2", "--frames", "3"]) == 0
    some = [read_image(path) for path in sorted((tmp_path / "some").iterdir())]
    expected = [read_image(path) for path in sorted((tmp_path / "all").iterdir())[2:5]]
    assert len(some) == 3
    for picture, same in zip(some, expected, strict=True):
        np.testing.assert_array_equal(picture, same)
    for option, value, match in (("--first", "7", "the frames 0 to 6"), ("--frames", "0", "at least 1")):
        assert main([*decompress, str(tmp_path / "no"), option, value]) == 2
        assert match in capsys.readouterr().err
    data = bytearray(file.read_bytes())
    data[60] ^= 1
    file.write_bytes(data)
    assert main([*decompress, str(tmp_path / "damaged")]) == 2
    error = capsys.readouterr().err
    assert f"{file}: damaged" in error
    assert "--first 3 reads on from the key frame" in error
    assert main([*decompress, str(tmp_path / "rest"), "--first", "3"]) == 0


def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, codec_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames, file = frames_folder(tmp_path / "frames", 2), tmp_path / "drive.gosv"
    codec = ["--codec", str(codec_folder)]
    assert main(["compress", str(frames), "-o", f"{tmp_path}/", "--fps", "5", *codec]) == 0
    assert main(["compress", str(tmp_path / "frames"), "-o", str(file), *codec]) == 0
    assert (tmp_path / "frames.gosv").is_file()
    capsys.readouterr()
    for arguments, match in (
        (["compress", str(frames), "--kbps", "9"], "--kbps"),
        (["compress", str(frames), "--resize", "32x48"], "--resize"),
        (["compress", str(frames), "--fps", "5", "--max-age-ms", "90"], "--max-age-ms"),
        (["compress", str(frames), "--fps", "0"], "expected more than 0"),
        (["compress", str(frames), "--fps", "5", "-o", "seen.mp4"], "seen.mp4 is no name for a sequence"),
        (["compress", str(frames), "--fps", "5", "--for", "people"], "--for"),
        (["compress", str(frames), "--fps", "5", "--entropy", "fixed"], "--entropy"),
        (["compress", str(frames), "--fps", "5", "--container", "1"], "--container"),
        (["compress", str(frames), "--fps", "5", "--detail-slices", "2"], "--detail-slices"),
        (["decompress", str(file), "-o", "seen.png"], "name of one image"),
        (["decompress", str(frames), "--first", "1"], "--first"),
    ):
        assert main([*arguments, *codec]) == 2
        assert match in capsys.readouterr().err
    with_level = ["--codec", f"{codec_folder}:3", "--kbps", "9"]
    assert main(["compress", str(frames), "--fps", "5", *with_level]) == 2
    assert "leave out one of them (option --kbps)" in capsys.readouterr().err
    Image.fromarray(streets()[0].image_uint8_HW3[:32]).save(frames / "2.png")
    assert main(["compress", str(frames), "-o", str(tmp_path / "sizes.gosv"), *codec]) == 2
    assert "frame 2 has 96x32 pixels, the first one 96x64" in capsys.readouterr().err
    before = file.read_bytes()
    assert main(["compress", str(frames), "-o", str(file), "--skip-existing", *codec]) == 0
    assert "is left as it is" in capsys.readouterr().err
    assert file.read_bytes() == before
    file.write_bytes(before[:30])
    assert main(["decompress", str(file), "-o", str(tmp_path / "seen.mp4")]) == 2
    assert f"{file}: cut before the end of its first frame" in capsys.readouterr().err


def test_a_temporal_model_is_trained_for_a_codec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codec, run = tmp_path / "codec", tmp_path / "run"
    save_codec(codec, variable_checkpoint())
    train = ["train-temporal", str(codec), "--stills", "streets:2", "--steps", "2", "--quiet", "--out", str(run)]
    small = ["--set", "size=[32, 48]", "--set", "taps=5", "--set", "stages.0.batches.batch_size=1"]
    films = ["--films", str(frames_folder(tmp_path / "frames"))]
    assert main([*train, *small, *films]) == 0
    assert capsys.readouterr().out == f"finished: {run}\n"
    assert (run / "temporal.json").is_file()
    assert main(["train-temporal", str(codec), "--out", str(run)]) == 2
    assert "--films" in capsys.readouterr().err
