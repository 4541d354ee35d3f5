"""Videos from the command line: training of the temporal model, compressing, describing and reconstructing."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gosvae.cli.main import main
from gosvae.codecs.checkpoint import save_codec
from gosvae.codecs.sequence.file import SequenceFile
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
    assert sorted(path.name for path in (tmp_path / "some").iterdir()) == ["000002.png", "000003.png", "000004.png"]
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
        (["compress", str(frames), "--fps", "0"], "0 frames a second: expected 0.01 to 655.35 (option --fps)"),
        (["compress", str(frames), "--fps", "0.001"], "expected 0.01 to 655.35"),
        (["compress", str(frames), "--fps", "656"], "expected 0.01 to 655.35"),
        (["compress", str(frames), "--fps", "5", "--jobs", "2"], "--jobs"),
        (["compress", *map(str, sorted(frames.iterdir())), "-o", "seen.mp4"], "seen.mp4 is no name for a sequence"),
        (["compress", str(frames), "--fps", "5", "-o", "seen.mp4"], "seen.mp4 is no name for a sequence"),
        (["compress", str(frames), "--fps", "5", "--for", "people"], "--for"),
        (["compress", str(frames), "--fps", "5", "--entropy", "fixed"], "--entropy"),
        (["compress", str(frames), "--fps", "5", "--container", "1"], "--container"),
        (["compress", str(frames), "--fps", "5", "--detail-slices", "2"], "--detail-slices"),
        *(
            (["decompress", str(file), "-o", f"seen{ending}"], f"seen{ending} is no name of a video")
            for ending in (".png", ".gosv", ".gos", ".wmv")
        ),
        (["decompress", str(file), "-o", "seen/", "--jobs", "2"], "--jobs"),
        (["decompress", str(frames), "--first", "1"], "--first"),
    ):
        assert main([*arguments, *codec]) == 2
        assert match in capsys.readouterr().err
    for other in ("jpeg:30", "label-map", "gosvae-camvid", "x264"):
        assert main(["compress", str(frames), "--fps", "5", "-o", str(tmp_path / "z.gosv"), "--codec", other]) == 2
        error = capsys.readouterr().err
        assert f"no codec with a temporal model, which sequences need, is called '{other.split(':')[0]}'" in error
        assert "take gosvae-streets or gosvae-variable-camvid" in error
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


def test_a_link_is_written_through(tmp_path: Path, codec_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames, real, link = frames_folder(tmp_path / "frames", 2), tmp_path / "real", tmp_path / "link.gosv"
    link.symlink_to("real")
    compress = ["compress", str(frames), "-o", str(link), "--codec", f"{codec_folder}:0"]
    assert main(compress) == 0  # nothing is there yet
    data = real.read_bytes()
    real.write_bytes(b"old")
    for more, note in (([], f"{link} is a link: {real} is replaced"), (["--force"], "")):
        capsys.readouterr()
        assert main([*compress, *more]) == 0
        assert note in capsys.readouterr().err
        assert (link.is_symlink(), real.read_bytes()) == (True, data)
    film, source = tmp_path / "film.mkv", tmp_path / "source"
    film.symlink_to(link)
    assert main(["decompress", str(link), "--codec", str(codec_folder), "-o", str(film), "--force"]) == 2
    assert f"{film} is both the input and the output" in capsys.readouterr().err
    source.write_bytes(data)
    assert main(["decompress", str(source), "--codec", str(codec_folder), "-o", str(film), "--force"]) == 0
    assert film.is_symlink()
    assert b"matroska" in real.read_bytes()[:64]


def test_a_pipe_takes_the_bytes(tmp_path: Path, codec_folder: Path) -> None:
    frames, pipe, taken = frames_folder(tmp_path / "frames", 2), tmp_path / "pipe.gosv", list[bytes]()
    compress = ["compress", str(frames), "--codec", f"{codec_folder}:0", "-o"]
    assert main([*compress, str(tmp_path / "file.gosv")]) == 0
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: taken.append(pipe.read_bytes()), daemon=True)
    reader.start()
    assert main([*compress, str(pipe), "--force"]) == 0
    reader.join(timeout=60)
    assert taken == [(tmp_path / "file.gosv").read_bytes()]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_files_have_the_mode_of_new_files(tmp_path: Path, codec_folder: Path) -> None:
    frames, file, film = frames_folder(tmp_path / "frames", 2), tmp_path / "drive.gosv", tmp_path / "film.mkv"
    before = os.umask(0o077)
    try:
        assert main(["compress", str(frames), "-o", str(file), "--codec", f"{codec_folder}:0"]) == 0
        assert main(["decompress", str(file), "-o", str(film), "--codec", str(codec_folder)]) == 0
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file, film)] == [0o600, 0o600]


@pytest.mark.parametrize("size", [(1, 40), (40, 1)])
def test_frames_that_are_too_small_for_a_video_become_files(
    size: tuple[int, int], tmp_path: Path, codec_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames, file = tmp_path / "frames", tmp_path / "drive.gosv"
    frames.mkdir()
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(frames / "0.png")
    assert main(["compress", str(frames), "-o", str(file), "--codec", f"{codec_folder}:0"]) == 0
    decompress = ["decompress", str(file), "--codec", str(codec_folder), "-o"]
    for ending in (".mp4", ".webm"):
        capsys.readouterr()
        film = tmp_path / f"film{ending}"
        assert main([*decompress, str(film)]) == 2
        error = capsys.readouterr().err
        assert f"{size[1]}x{size[0]} pixels are too few for a video: take a folder of frames" in error
        assert error.count("\n") == 1
        assert not film.exists()
    assert main([*decompress, f"{tmp_path}/back/"]) == 0
    assert read_image(tmp_path / "back" / "000000.png").shape == (*size, 3)


def test_a_damaged_frame_counts_as_one_that_was_not_sent(
    tmp_path: Path, codec_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames, file, back = frames_folder(tmp_path / "frames", 6), tmp_path / "drive.gosv", tmp_path / "back"
    for name in ("0.png", "3.png", "5.png"):
        (frames / name).write_bytes(b"no picture")
    compress = ["compress", str(frames), "-o", str(file), "--codec", f"{codec_folder}:100"]
    assert main([*compress, "--json"]) == 1
    said = capsys.readouterr()
    facts = json.loads(said.out)
    # The first of them has no picture before it, and is left out.
    assert (facts["frames"], facts["frames_kept"], facts["frames_damaged"]) == (5, 3, 3)
    assert said.err.count("gosvae: skipped: ") == 3
    assert "damaged frames left out: 3; the picture before each stays" in said.err
    assert main(["decompress", str(file), "--codec", str(codec_folder), "-o", str(back)]) == 0
    assert len(list(back.iterdir())) == 5
    assert [bool(data) for _, data in SequenceFile.read(file).frames()] == [True, True, False, True, False]
    for path in frames.iterdir():
        path.write_bytes(b"no picture")
    assert main([*compress, "--force"]) == 2
    assert "has no frames that can be read" in capsys.readouterr().err


def test_a_damaged_frame_of_a_video_keeps_the_time_of_those_after_it(
    tmp_path: Path, codec_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    av = pytest.importorskip("av", reason="needs gosvae[video]")
    video, file = tmp_path / "drive.avi", tmp_path / "drive.gosv"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for number in range(5):
            picture = np.roll(streets()[0].image_uint8_HW3, 9 * number, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    data = bytearray(video.read_bytes())
    starts = [at for at in range(len(data)) if data.startswith(b"\xff\xd8\xff", at)]
    for number in (2, 4):
        data[starts[number] : starts[number] + 600] = bytes(600)
    video.write_bytes(data)
    assert main(["compress", str(video), "--codec", f"{codec_folder}:100"]) == 1
    said = capsys.readouterr()
    assert "3 of 5 frames" in said.out
    assert "damaged frames left out: 2" in said.err
    sent = [bool(data) for _, data in SequenceFile.read(file).frames()]
    assert sent == [True, True, False, True, False]


def test_weights_are_not_compared_if_that_is_asked_for(
    tmp_path: Path, codec_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames, file = frames_folder(tmp_path / "frames", 2), tmp_path / "drive.gosv"
    for name, key in (("config.json", "weights_sha256"), ("temporal.json", "weights_sha256")):
        tree = json.loads((codec_folder / name).read_text())
        assert key in tree
        (codec_folder / name).write_text(json.dumps({**tree, key: "0" * 64}))
    codec = ["--codec", str(codec_folder)]
    compress = ["compress", str(frames), "-o", str(file), *codec]
    decompress = ["decompress", str(file), "-o", f"{tmp_path}/back/", *codec]
    evaluate = ["evaluate-video", str(codec_folder), f"{codec_folder}@intra", "--data", str(frames), "--fps", "5"]
    for words in (compress, decompress, [*evaluate, "--quiet"]):
        capsys.readouterr()
        assert main([*words, "--no-verify"]) == 0
        assert "not compared with their SHA-256" in capsys.readouterr().err
        assert main([*words, "--force"] if words is compress else words) == 2
        assert "--no-verify" in capsys.readouterr().err


def test_the_age_of_frames_needs_a_video_and_a_rate(
    tmp_path: Path, codec_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = frames_folder(tmp_path / "frames", 1)
    send = ["send", str(frames), "--udp", "127.0.0.1:1", "--codec", str(codec_folder), "--quiet"]
    for more in (["--video"], ["--kbps", "20"]):
        assert main([*send, *more, "--max-age-ms", "90"]) == 2
        assert "give --video and --kbps (option --max-age-ms)" in capsys.readouterr().err
    assert main([*send, "--video", "--kbps", "20", "--max-age-ms", "90"]) == 0
