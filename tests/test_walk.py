"""Which files of a folder are images, in which order, and how names are written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gosvae.errors import ImageError
from gosvae.walk import IMAGE_SUFFIXES, OTHER_PICTURE_SUFFIXES, expanded, find_images, natural_key, printable


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images(folder).files]


def test_images_come_in_natural_order_folder_by_folder(tmp_path: Path) -> None:
    touch(tmp_path, "10.png", "2.png", "1.PNG", "cam10/1.jpg", "cam2/12.jpg", "cam2/3.jpg", "notes.txt", "cam-x.png")
    assert names(tmp_path) == ["1.PNG", "2.png", "10.png", "cam2/3.jpg", "cam2/12.jpg", "cam10/1.jpg", "cam-x.png"]


def test_linked_files_and_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.png", "real/deep/b.png", "data/c.png", "file.png")
    (tmp_path / "data" / "cam0").symlink_to(tmp_path / "real")
    (tmp_path / "data" / "d.png").symlink_to(tmp_path / "file.png")
    assert names(tmp_path / "data") == ["c.png", "cam0/a.png", "cam0/deep/b.png", "d.png"]
    assert find_images(tmp_path / "data").note() == ""
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert names(tmp_path / "link") == names(tmp_path / "data")


def test_links_in_a_circle_end_and_every_folder_is_read_once(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "over").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "over").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "self").symlink_to("self")
    assert names(tmp_path) == ["a/1.png", "b/2.png"]
    assert find_images(tmp_path).note() == f"left out of {tmp_path}: linked folders that are read already (3)"


def test_hidden_parts_are_left_out_below_the_folder_only(tmp_path: Path) -> None:
    root = tmp_path / ".cache"
    touch(root, "a.png", ".ipynb_checkpoints/a.png", ".Trash-1000/files/a.png", "._a.png", "__MACOSX/a.png")
    assert names(root) == ["a.png"]
    assert find_images(root).hidden == 4
    (root / "a.png").unlink()
    with pytest.raises(ImageError, match=r"no images in .* 4 hidden files or folders"):
        find_images(root)


def test_pictures_that_are_left_out_are_told_with_the_reason(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.HEIC", "c.heic", "sub/d.jxl", "e.jfif", "f.pgm", "notes.txt")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "round.png").symlink_to("round.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert names(tmp_path) == ["a.png", "e.jfif", "f.pgm"]
    assert find_images(tmp_path).note() == (
        f"left out of {tmp_path}: .heic (2), .jxl (1), broken links (2), not regular files (1); "
        "convert pictures to PNG or JPEG"
    )


def test_a_folder_without_images_says_what_it_holds(tmp_path: Path) -> None:
    touch(tmp_path, "a.heic")
    with pytest.raises(ImageError, match=r"no images in .*looked for .*\.png.*\.heic \(1\)"):
        find_images(tmp_path)
    with pytest.raises(ImageError, match="cannot read the folder"):
        find_images(tmp_path / "none")


def test_a_folder_that_cannot_be_opened_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.png", "closed/b.png")
    scandir = os.scandir

    def refused(path: Path) -> os._ScandirIterator[str]:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(os.fspath(path))

    monkeypatch.setattr(os, "scandir", refused)
    found = find_images(tmp_path)
    assert [path.name for path in found.files] == ["a.png"]
    assert "folders that cannot be opened (1)" in found.note()


def test_a_suffix_is_read_or_left_out() -> None:
    assert not IMAGE_SUFFIXES & OTHER_PICTURE_SUFFIXES


@given(st.lists(st.text("0123456789ab/-.é²\udce9", max_size=8)))
def test_the_order_is_total(texts: list[str]) -> None:
    backwards = texts[::-1]
    assert sorted(texts, key=natural_key) == sorted(backwards, key=natural_key)


def test_long_numbers_have_an_order() -> None:
    assert natural_key("9" * 5000) > natural_key("1")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain.png", "plain.png"),
        ("café ☂.png", "café ☂.png"),
        (os.fsdecode(b"caf\xe9.png"), r"caf\xe9.png"),
        ("two\nlines\x1b[31m.png", r"two\nlines\x1b[31m.png"),
    ],
)
def test_names_are_printable(name: str, text: str) -> None:
    assert printable(name) == text
    assert printable(Path(name)) == text
    text.encode()


def test_home_folders_are_expanded_where_they_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/a") == tmp_path / "a"
    assert expanded("~no-such-user/a") == Path("~no-such-user/a")
