"""Files are the old ones or the new ones, whatever happens in between."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest

from gosvae.errors import WriteError
from gosvae.files import (
    MOST_DEPTH,
    MOST_JSON_BYTES,
    json_bytes,
    parse_json,
    write_atomically,
    write_json,
    write_together,
    written_atomically,
)


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_made_with_its_folders_and_the_usual_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.bin"
    write_atomically(path, b"123")
    write_atomically(path, b"4")
    assert path.read_bytes() == b"4"
    assert names(path.parent) == ["c.bin"]
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_replaced_file_hands_its_mode_on(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write_atomically(path, b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o640)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    real, link, chain = tmp_path / "store" / "real", tmp_path / "link", tmp_path / "chain"
    link.symlink_to("store/real")  # leads to nothing yet
    chain.symlink_to(link)
    write_atomically(link, b"1")
    assert real.read_bytes() == b"1"
    write_together({chain: b"2"})
    assert (link.is_symlink(), chain.is_symlink(), real.read_bytes()) == (True, True, b"2")
    assert names(tmp_path / "store") == ["real"]
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    with pytest.raises(WriteError, match="circle"):
        write_atomically(circle, b"3")
    assert circle.is_symlink()


def test_a_name_of_the_greatest_length_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".gos")
    write_atomically(path, b"1")
    assert path.read_bytes() == b"1"


def test_json_escapes_names_that_are_no_utf8() -> None:
    tree = {"caf\udce9.png": "é"}
    assert json.loads(json_bytes(tree).decode()) == tree


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.json"
    write_json(path, {"old": True})
    old = path.read_bytes()
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(WriteError, match=r"c\.json: No space left on device; what stood there before is intact"):
        write_json(path, {"new": True})
    assert path.read_bytes() == old
    assert names(tmp_path) == ["c.json"]


def test_files_that_belong_together_change_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write_together({one: b"old 1", two: b"old 2"})
    calls = iter([None, OSError(errno.ENOSPC, "No space left on device")])

    def second_fails(_: int) -> None:
        if error := next(calls):
            raise error

    monkeypatch.setattr(os, "fsync", second_fails)
    with pytest.raises(WriteError, match=r"two: No space"):
        write_together({one: b"new 1", two: b"new 2"})
    assert (one.read_bytes(), two.read_bytes()) == (b"old 1", b"old 2")
    assert names(tmp_path) == ["one", "two"]


def test_an_interrupted_write_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "x", b"1")
    assert names(tmp_path) == []


def test_folders_and_devices_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(WriteError, match=r"not a regular file"):
            write_atomically(tmp_path / name, b"1")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    with pytest.raises(WriteError, match=r"File exists|Not a directory"):
        write_atomically(tmp_path / "pipe" / "below", b"1")


def test_json_of_any_origin_is_bounded() -> None:
    deepest = b"[" * MOST_DEPTH + b"]" * MOST_DEPTH
    assert json_bytes(parse_json(deepest)).split() == json_bytes(json.loads(deepest)).split()
    for opening, closing in ((b"[", b"]"), (b'{"a": ', b"}")):
        with pytest.raises(ValueError, match="nested more than 100 deep"):
            parse_json(opening * MOST_DEPTH + b"[]" + closing * MOST_DEPTH)
    with pytest.raises(ValueError, match="at most 16777216 are read"):
        parse_json(b" " * MOST_JSON_BYTES + b"1")


def test_a_stream_takes_the_place_of_a_file(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to("real")
    with pytest.raises(TypeError), written_atomically(link) as stream:
        stream.write("text")  # type: ignore[arg-type]
    assert (names(tmp_path), real.read_bytes()) == (["link", "real"], b"old")
    with written_atomically(link) as stream:
        stream.write(b"new!")
        stream.seek(0)
        assert stream.read(2) == b"ne"
        assert real.read_bytes() == b"old"
    assert (names(tmp_path), real.read_bytes()) == (["link", "real"], b"new!")
    assert (link.is_symlink(), stat.S_IMODE(real.stat().st_mode)) == (True, 0o640)
    with written_atomically(Path(os.devnull)) as stream:
        stream.write(b"1")
    assert not Path(os.devnull).is_file()
    reading, writing = os.pipe()
    with written_atomically(Path(f"/dev/fd/{writing}")) as stream:
        stream.write(b"piped")
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"piped"
    with pytest.raises(WriteError, match="it is a folder"), written_atomically(tmp_path):
        pass


def test_a_stream_onto_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(WriteError, match="No space left on device"), written_atomically(path) as stream:
        stream.write(b"new")
    assert (names(tmp_path), path.read_bytes()) == (["a"], b"old")
