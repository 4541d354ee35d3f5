"""Targets are compared with all sources, with each other and with what is there, before anything is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gosvae.cli.targets import Existing, Naming, files_below, plan
from gosvae.errors import ConfigError
from gosvae.walk import find_images

COMPRESS = Naming(".gos", lambda path: path.with_suffix(".gos"), lambda folder: find_images(folder).files)
TO_AVIF = Naming(".avif", lambda path: path.with_suffix(".avif"), COMPRESS.find, folder_needs_out=True)
DECOMPRESS = Naming(".png", lambda path: path.with_name(path.name + ".png"), lambda folder: files_below(folder, ".gos"))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with a few files and work in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png", "there.gos", "deep/c.png", "deep/sub/d.jpg", "deep/sub/d.png", "coded/e.gos"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "link.gos").symlink_to("there.gos")
    (tmp_path / "loop.gos").symlink_to("new.gos")
    (tmp_path / "photos").symlink_to("deep")
    return tmp_path


def targets(
    *sources: str, out: str | None = None, naming: Naming = COMPRESS, existing: Existing = "refuse"
) -> dict[str, str]:
    """Return targets by source."""
    jobs = plan(sources, out, naming, existing).jobs
    return {str(job.source or "-"): str(job.target or "-") for job in jobs}


@pytest.mark.parametrize(
    ("sources", "out", "expected"),
    [
        (["a.png"], None, {"a.png": "a.gos"}),
        (["a.png"], "x.gos", {"a.png": "x.gos"}),
        (["a.png"], "new/", {"a.png": "new/a.gos"}),
        (["a.png"], "new", {"a.png": "new"}),
        (["a.png"], "coded", {"a.png": "coded/a.gos"}),
        (["a.png", "b.png"], "new", {"a.png": "new/a.gos", "b.png": "new/b.gos"}),
        (["a.png", "deep/c.png"], "new/", {"a.png": "new/a.gos", "deep/c.png": "new/c.gos"}),
        (["a.png"], "-", {"a.png": "-"}),
        (["-"], None, {"-": "-"}),
        (["-"], "x.gos", {"-": "x.gos"}),
        (["none.png"], None, {"none.png": "none.gos"}),  # told when its turn comes
        (["a.png"], "link.gos", {"a.png": "link.gos"}),  # a link that is named is written through
        (
            ["deep"],
            "new",
            {
                "deep/c.png": "new/c.gos",
                "deep/sub/d.jpg": "new/sub/d.jpg.gos",
                "deep/sub/d.png": "new/sub/d.png.gos",
            },
        ),
        (
            ["deep/sub/", "a.png"],
            "new",
            {"deep/sub/d.jpg": "new/d.jpg.gos", "deep/sub/d.png": "new/d.png.gos", "a.png": "new/a.gos"},
        ),
    ],
)  # fmt: skip
def test_names_of_results(sources: list[str], out: str | None, expected: dict[str, str]) -> None:
    assert targets(*sources, out=out) == expected


def test_the_default_name_of_a_reconstruction_is_never_that_of_the_original() -> None:
    for source in ("a.png", "a.gos.png", "a", "x.y.png", "deep/c.png"):
        stream = COMPRESS.beside(Path(source))
        assert DECOMPRESS.beside(stream) != Path(source)
    assert targets("there.gos", naming=DECOMPRESS) == {"there.gos": "there.gos.png"}
    assert targets("coded", out="new/", naming=DECOMPRESS) == {"coded/e.gos": "new/e.png"}


@pytest.mark.parametrize("existing", ["refuse", "replace", "skip"])
@pytest.mark.parametrize(
    ("sources", "out", "message"),
    [
        (["a.png"], "a.png", "both the input"),
        (["a.png"], "./deep/../a.png", "both the input"),
        (["deep/c.png"], "photos/c.png", "both the input"),
        (["deep/c.png"], str(Path("deep", "c.png")), "both the input"),
        (["a.png", "a.png"], "new", "two files would be written to new/a.gos, a.png and a.png"),
        (["a.png", "deep/../a.png"], None, "two files would be written"),
        (["a.png", "deep/c.png"], "b.png", "give a folder"),
        (["deep"], "b.png", "give a folder"),
        (["a.png"], "b.png/", "b.png is a file: leave out the slash"),
        (["a.png/"], None, "a.png is a file: leave out the slash"),
        (["deep/none/"], None, "no such folder"),
        (["a.png", "-"], None, "must be the only source"),
        (["a.png", "b.png"], "-", "result of one file"),
        (["deep"], "-", "result of one file"),
        (["-"], "new/", "expected a file"),
        (["a.png"], "b.png/c.gos", "not a folder"),
        (["a.png"], "/dev/null", "not a regular file"),
    ],
)
def test_what_is_refused_however_existing_files_are_treated(
    sources: list[str], out: str | None, message: str, existing: Existing
) -> None:
    with pytest.raises(ConfigError, match=message):
        targets(*sources, out=out, existing=existing)


def test_a_target_that_is_another_source_is_refused(place: Path) -> None:
    (place / "a.avif").write_bytes(b"x")
    for sources in (["a.png", "a.avif"], ["a.avif", "a.png"], [str(place / "a.png"), "deep/../a.avif"]):
        with pytest.raises(ConfigError, match=r"would be written over|both the input"):
            targets(*sources, naming=TO_AVIF, existing="replace")
    (place / "other.avif").symlink_to("b.png")
    with pytest.raises(ConfigError, match=r"over b\.png, which is to be read"):
        targets("other.png", "b.png", naming=TO_AVIF, existing="replace")
    with pytest.raises(ConfigError, match="name another one for the results"):
        targets("deep", naming=TO_AVIF)


def test_a_file_behind_a_named_link_is_replaced_and_told(place: Path) -> None:
    made = plan(["a.png"], "link.gos", COMPRESS, "refuse")
    assert made.note == f"link.gos is a link: {place.resolve() / 'there.gos'} is replaced"
    assert plan(["a.png"], "link.gos", COMPRESS, "replace").note is None
    assert plan(["a.png"], "link.gos", COMPRESS, "skip").jobs == ()
    (place / "new-link.gos").symlink_to("not-there.gos")
    assert plan(["a.png"], "new-link.gos", COMPRESS, "refuse").note is None


def test_existing_targets(place: Path) -> None:
    (place / "b.gos").write_bytes(b"old")
    with pytest.raises(ConfigError, match=r"b\.gos is there already.*--force"):
        targets("b.png")
    with pytest.raises(ConfigError, match=r"there\.gos is there already"):
        targets("a.png", out="there.gos")
    with pytest.raises(ConfigError, match=r"1 of 2 results are there already, the first is b\.gos: --skip-existing"):
        targets("a.png", "b.png")
    assert targets("a.png", "b.png", existing="replace") == {"a.png": "a.gos", "b.png": "b.gos"}
    assert targets("a.png", "b.png", existing="skip") == {"a.png": "a.gos"}
    assert plan(["a.png", "b.png"], None, COMPRESS, "skip").skipped == 1
    (place / "a.gos").mkdir()
    with pytest.raises(ConfigError, match=r"a\.gos is a folder"):
        targets("a.png", existing="replace")


def test_results_below_the_folder_are_no_sources_of_the_next_call(place: Path) -> None:
    jpeg = Naming(".jpg", lambda path: path.with_suffix(".jpg"), COMPRESS.find)
    first = targets("deep", out="deep/jpeg", naming=jpeg)
    for name in first.values():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")
    assert targets("deep", out="deep/jpeg", naming=jpeg, existing="replace") == first
    assert len(first) == 3
    assert place.exists()


def test_folders_of_streams() -> None:
    Path("coded/.hidden").mkdir()
    Path("coded/.hidden/f.gos").touch()
    for number in (10, 9):
        Path(f"coded/{number}.GOS").touch()
    assert [path.name for path in files_below(Path("coded"), ".gos")] == ["9.GOS", "10.GOS", "e.gos"]
    with pytest.raises(ConfigError, match=r"no \.gos files in deep"):
        files_below(Path("deep"), ".gos")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused_at_the_start(place: Path) -> None:
    (place / "coded").chmod(0o555)
    with pytest.raises(ConfigError, match="no permission to write in coded"):
        targets("a.png", out="coded/")
