"""Many files at once: what cannot be used is told and counted, the rest is done; pipes, JSON, several processes."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gosvae
from gosvae.cli.main import main
from gosvae.codecs.checkpoint import save_codec
from gosvae.images import read_image, write_image
from tiny import checkpoint, streets


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codec") / "2026-11-30T04:15" / "tiny+"  # `:` and `+` are part of the path
    save_codec(folder, checkpoint())
    return folder


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five pictures in a folder, the third of which is damaged; tests work beside it."""
    monkeypatch.chdir(tmp_path)
    for number in range(1, 6):
        write_image(tmp_path / "photos" / "sub" / f"{number}.png", streets()[number % 2].image_uint8_HW3)
    damaged = tmp_path / "photos" / "sub" / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    return tmp_path / "photos"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_damaged_picture_among_others(photos: Path, codec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = [str(path) for path in sorted(photos.glob("sub/*.png"))]
    assert main(["compress", *sources, "none.png", "--codec", str(codec)]) == 1
    captured = capsys.readouterr()
    assert sorted(path.name for path in photos.glob("sub/*.gos")) == ["1.gos", "2.gos", "4.gos", "5.gos"]
    first, second = captured.err.splitlines()
    assert first.startswith(f"gosvae: skipped: {sources[2]} is damaged")
    assert second.startswith("gosvae: skipped: cannot open none.png")
    *lines, total = captured.out.splitlines()
    assert [line.partition(" -> ")[0] for line in lines] == [s for s in sources if s != sources[2]]
    assert total.startswith("4 files: ")
    assert " KiB, ratio " in total
    assert total.endswith(" s; 2 could not be used")


def test_a_folder_there_and_back_and_again(photos: Path, codec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = ["compress", str(photos), "-o", "coded", "--codec", str(codec)]
    assert main(there) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("4 files: ")
    assert captured.out.count("\n") == 1
    streams = contents(Path("coded"))
    assert sorted(streams) == [f"sub/{number}.gos" for number in (1, 2, 4, 5)]

    assert main(there) == 2  # nothing is replaced
    assert "4 of 5 results are there already" in capsys.readouterr().err
    Path("coded/sub/4.gos").unlink()
    Path("coded/sub/1.gos").write_bytes(b"mine")
    assert main([*there, "--skip-existing"]) == 1
    assert capsys.readouterr().out.endswith("; 1 could not be used; 3 left as they were\n")
    assert contents(Path("coded")) == {**streams, "sub/1.gos": b"mine"}
    assert main([*there, "--force", "--quiet"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert contents(Path("coded")) == streams

    assert main(["decompress", "coded", "-o", "seen/", "--codec", str(codec)]) == 0
    assert sorted(contents(Path("seen"))) == [f"sub/{number}.png" for number in (1, 2, 4, 5)]


@pytest.mark.slow
def test_several_processes_write_the_same_files(photos: Path, codec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for jobs in ("1", "2"):
        assert main(["compress", str(photos), "-o", jobs, "--codec", str(codec), "--jobs", jobs, "--json"]) == 1
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [Path(line["source"]).name for line in lines] == [f"{number}.png" for number in (1, 2, 3, 4, 5)]
        assert "is damaged" in lines[2]["error"]
    assert contents(Path("1")) == contents(Path("2"))
    with pytest.raises(SystemExit):
        main(["compress", str(photos), "-o", "3", "--jobs", "0"])


def test_nothing_that_can_be_used(photos: Path, codec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = str(photos / "sub" / "3.png")
    assert main(["compress", damaged, "none.png", "--codec", str(codec)]) == 2
    assert "none of the 2 files could be used" in capsys.readouterr().err
    assert main(["compress", "none", "-o", "x/", "--codec", str(codec)]) == 2
    Path("empty").mkdir()
    assert main(["compress", "empty", "-o", "x/", "--codec", str(codec)]) == 2
    assert "no images in empty" in capsys.readouterr().err
    assert not Path("x").exists()


def test_a_full_disk_ends_the_work_and_says_how_to_go_on(
    photos: Path, codec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, calls = os.fsync, iter([None, None, OSError(28, "No space left on device")])

    def full(descriptor: int) -> None:
        if error := next(calls):
            raise error
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert main(["compress", str(photos), "-o", "coded", "--codec", str(codec)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2] == "gosvae: stopped after 3 of 5 files; the same command with --skip-existing goes on"
    assert "No space left on device" in lines[-1]
    assert sorted(contents(Path("coded"))) == ["sub/1.gos", "sub/2.gos"]


def test_an_interruption_says_how_to_go_on(
    photos: Path, codec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, calls = os.fsync, iter([False, False, True])

    def interrupted(descriptor: int) -> None:
        if next(calls):
            raise KeyboardInterrupt
        real(descriptor)

    there = ["compress", str(photos), "-o", "coded", "--codec", str(codec), "--skip-existing"]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        assert main(there) == 130
    assert "stopped after 3 of 5 files; the same command with --skip-existing goes on" in capsys.readouterr().err
    assert main(there) == 1
    assert capsys.readouterr().out.startswith("2 files: ")
    assert sorted(contents(Path("coded"))) == [f"sub/{number}.gos" for number in (1, 2, 4, 5)]
    assert main(there) == 1  # the damaged picture is told again, the others are done
    assert "1 could not be used; 4 left as they were" in capsys.readouterr().out


def test_links_in_a_circle_are_one_line(photos: Path, codec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("circle.gos").symlink_to("circle.gos")
    assert main(["compress", str(photos / "sub" / "1.png"), "-o", "circle.gos", "--codec", str(codec)]) == 2
    assert main(["compress", "circle.gos", "-o", "x.gos", "--codec", str(codec)]) == 2
    assert capsys.readouterr().err.count("\n") == 2
    assert Path("circle.gos").is_symlink()


def test_json_of_one_file(photos: Path, codec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(photos / "sub" / "1.png")
    assert main(["compress", source, "-o", "a.gos", "--codec", str(codec), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    size = Path("a.gos").stat().st_size
    assert facts == {
        "source": source,
        "target": "a.gos",
        "width": 96,
        "height": 64,
        "bytes": size,
        "bpp": 8 * size / (96 * 64),
        "codec": "tiny",
    }
    assert main(["info", "a.gos", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["width"], facts["bytes"], facts["slices"]) == (96, size, 1)
    assert main(["list", "datasets", "--json"]) == 0
    assert "camvid" in json.loads(capsys.readouterr().out)["datasets"]


class Stdin:
    """Standard input that holds some bytes."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


def test_a_pipe(
    photos: Path, codec: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    source = photos / "sub" / "1.png"
    main(["compress", str(source), "-o", "a.gos", "--codec", str(codec), "--quiet"])
    stream = Path("a.gos").read_bytes()
    assert main(["compress", str(source), "-o", "-", "--codec", str(codec)]) == 0
    assert capsysbinary.readouterr().out == stream
    monkeypatch.setattr(sys, "stdin", Stdin(source.read_bytes()))
    assert main(["compress", "-", "--codec", str(codec)]) == 0
    captured = capsysbinary.readouterr()
    assert captured.out == stream
    assert captured.err.startswith(b"- -> -: 96x64")
    monkeypatch.setattr(sys, "stdin", Stdin(stream))
    assert main(["info", "-"]) == 0
    assert b"96x64 pixels" in capsysbinary.readouterr().out
    monkeypatch.setattr(sys, "stdin", Stdin(stream))
    assert main(["decompress", "-", "--codec", str(codec), "-o", "-"]) == 0
    png = capsysbinary.readouterr().out
    main(["decompress", "a.gos", "--codec", str(codec)])
    assert (read_image(io.BytesIO(png)) == read_image("a.gos.png")).all()
    assert not Path("-").exists()


def test_standard_input_is_touched_for_a_dash_only(
    photos: Path, codec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["compress", str(photos / "sub" / "1.png"), "-o", "a.gos", "--codec", str(codec)]) == 0
    for command in (["compress", "-", "-o", "b.gos", "--codec", str(codec)], ["info", "-"]):
        assert main(command) == 2
        assert "standard input is closed" in capsys.readouterr().err
    send = ("send", "--udp", "127.0.0.1:9", "--quiet", "--codec", str(codec))
    assert main([*send, str(photos / "sub" / "1.png")]) == 0
    capsys.readouterr()
    assert main([*send, "-"]) == 2
    assert "standard input is closed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", [b"x" * 246 + b".png", b"caf\xe9.png", b"a\nb\x1b[2J.png", b"c++:1.png", "日本.png".encode()]
)
def test_names(name: bytes, photos: Path, codec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = os.fsdecode(name)
    (photos / "sub" / "1.png").replace(path)
    assert main(["compress", path, "--codec", f"{codec}"]) == 0
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert line.rstrip("\n").isprintable()
    assert main(["decompress", path[:-4] + ".gos", "--codec", str(codec)]) == 0
    assert Path(path[:-4] + ".gos.png").is_file()
    assert main(["compress", path, "--codec", str(codec)]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.rstrip("\n").isprintable()


def test_a_terminal_that_knows_ascii_only(photos: Path, codec: Path) -> None:
    (photos / "sub" / "1.png").replace("日本.png")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path(gosvae.__file__).parents[1])}
    command = [sys.executable, "-m", "gosvae", "compress", "日本.png", "--codec", str(codec)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(r"\u65e5\u672c.png -> ")


def test_a_link_that_is_named_is_written_through(photos: Path, codec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("store").mkdir()
    Path("store/real.gos").write_bytes(b"old")
    Path("store/real.gos").chmod(0o600)
    Path("link.gos").symlink_to("store/real.gos")
    assert main(["compress", str(photos / "sub" / "1.png"), "-o", "link.gos", "--codec", str(codec)]) == 0
    assert Path("link.gos").is_symlink()
    assert Path("store/real.gos").read_bytes()[:3] != b"old"
    assert Path("store/real.gos").stat().st_mode & 0o777 == 0o600
    assert (
        f"gosvae: note: link.gos is a link: {Path('store/real.gos').resolve()} is replaced\n" in capsys.readouterr().err
    )


def test_a_single_result_that_is_there_is_skipped_and_told(
    photos: Path, codec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("old.gos").write_bytes(b"mine")
    source = str(photos / "sub" / "1.png")
    assert main(["compress", source, "-o", "old.gos", "--codec", str(codec), "--skip-existing"]) == 0
    assert capsys.readouterr().out.endswith("; 1 left as they were\n")
    assert Path("old.gos").read_bytes() == b"mine"


def test_the_ratio_of_sizes_is_above_one_in_both_directions(
    photos: Path, codec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = [str(photos / "sub" / f"{number}.png") for number in (1, 2)]
    assert main(["compress", *sources, "-o", "coded/", "--codec", str(codec)]) == 0
    assert main(["decompress", "coded", "-o", "back", "--codec", str(codec)]) == 0
    ratios = [float(text) for text in re.findall(r"ratio (\S+),", capsys.readouterr().out)]
    assert len(ratios) == 2
    assert min(ratios) > 1


def test_the_original_survives(photos: Path, codec: Path) -> None:
    source = photos / "sub" / "1.png"
    before = source.read_bytes()
    stream = str(source.with_suffix(".gos"))
    assert main(["compress", str(source), "--codec", str(codec)]) == 0
    assert main(["decompress", stream, "--codec", str(codec)]) == 0
    assert main(["decompress", stream, "--codec", str(codec), "--force"]) == 0
    assert main(["decompress", stream, "--codec", str(codec), "-o", str(source)]) == 2
    assert main(["compress", str(source), "--codec", "jpeg:30", "-o", str(source), "--force"]) == 2
    assert source.read_bytes() == before
