"""Images below a folder: the one walk that every command uses, and names and paths as people write and read them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gosvae.errors import ImageError

IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm"),
    }
)
"""File name endings (lower case) that count as images in a folder."""

OTHER_PICTURE_SUFFIXES = frozenset(
    {
        *(".heic", ".heif", ".hif", ".jxl", ".gif", ".apng", ".jp2", ".j2k", ".jpf", ".jpx", ".jxr", ".qoi", ".tga"),
        *(".svg", ".psd", ".xcf", ".exr", ".hdr", ".pfm", ".dds", ".ico", ".pcx", ".dib", ".fits", ".eps"),
        *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2"),
    }
)
"""File name endings (lower case) of pictures that a folder's images leave out."""

_HIDDEN_NAMES = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"})
"""Folders that systems make beside pictures and hide, although no dot begins their names."""


@dataclass(frozen=True)
class Found:
    """The images below a folder.

    Attributes:
        folder: the folder, as it was given.
        files: paths of the images, which begin with `folder`, in natural order.
        left_out: number of files and folders that look as if they held pictures and are left out, by the reason: the
            ending of a format that is not read, or some words.
        hidden: number of hidden files and folders, which are never looked into.
    """

    folder: Path
    files: tuple[Path, ...]
    left_out: dict[str, int]
    hidden: int

    def note(self) -> str:
        """Return one line on everything that is left out, without hidden parts; empty if that is nothing."""
        if not self.left_out:
            return ""
        reasons = ", ".join(f"{reason} ({count})" for reason, count in sorted(self.left_out.items()))
        advice = "; convert pictures to PNG or JPEG" if OTHER_PICTURE_SUFFIXES & self.left_out.keys() else ""
        return f"left out of {printable(self.folder)}: {reasons}{advice}"


def find_images(folder: Path) -> Found:
    """Return all images below a folder.

    Linked files and folders are followed. Every folder is read once, however many links lead to it, so that links in a
    circle do no harm. Hidden files and folders (names that begin with a dot, and a few that systems make) are left out.

    Raises:
        ImageError: the folder cannot be read, or holds no images; the message says what it holds instead.
    """
    walk = _Walk()
    try:
        walk.run(folder)
    except OSError as error:
        raise ImageError(f"cannot read the folder {printable(folder)}: {error.strerror or error}") from None
    files = tuple(sorted(walk.files, key=lambda path: natural_key(path.relative_to(folder))))
    found = Found(folder, files, dict(walk.left_out), walk.hidden)
    if not files:
        hidden = f"; {found.hidden} hidden files or folders are not looked into" if found.hidden else ""
        note = f"; {found.note()}" if found.left_out else ""
        looked_for = ", ".join(sorted(IMAGE_SUFFIXES))
        raise ImageError(f"no images in {printable(folder)} or below it: looked for {looked_for}{note}{hidden}")
    return found


class _Walk:
    """State of one walk: what was found, and the folders that were read, by device and number."""

    def __init__(self) -> None:
        self.files: list[Path] = []
        self.left_out: Counter[str] = Counter()
        self.hidden = 0
        self._read: set[tuple[int, int]] = set()

    def run(self, folder: Path) -> None:
        """Read real folders before linked ones, so that a file keeps the name without a link."""
        links = self._read_tree(folder, self._entries(folder, folder.stat()))
        while links:
            link = links.pop(0)
            links += self._read_folder(link, told="linked folders that are read already")

    def _read_folder(self, folder: Path, told: str = "") -> list[Path]:
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in self._read:
                if told:
                    self.left_out[told] += 1
                return []
            entries = self._entries(folder, status)
        except OSError:
            self.left_out["folders that cannot be opened"] += 1
            return []
        return self._read_tree(folder, entries)

    def _entries(self, folder: Path, status: os.stat_result) -> list[os.DirEntry[str]]:
        with os.scandir(folder) as iterator:
            entries = sorted(iterator, key=lambda entry: natural_key(entry.name))
        self._read.add((status.st_dev, status.st_ino))
        return entries

    def _read_tree(self, folder: Path, entries: list[os.DirEntry[str]]) -> list[Path]:
        """Take the files of a folder and of the real folders below it; return the linked folders among them."""
        links: list[Path] = []
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith(".") or entry.name in _HIDDEN_NAMES:
                self.hidden += 1
            elif _is_folder(entry):
                links += [path] if entry.is_symlink() else self._read_folder(path)
            else:
                self._take(path)
        return links

    def _take(self, path: Path) -> None:
        suffix = path.suffix.lower()
        if suffix in OTHER_PICTURE_SUFFIXES:
            self.left_out[suffix] += 1
        elif suffix in IMAGE_SUFFIXES:
            reason = _problem(path)
            if reason:
                self.left_out[reason] += 1
            else:
                self.files.append(path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _problem(path: Path) -> str:
    """Return why a path with an image's name is no file to read; empty if it is one."""
    try:
        if path.is_file():
            return ""
        return "not regular files" if path.exists() else "broken links"
    except OSError:
        return "broken links"


def natural_key(path: str | Path) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Return the key that sorts names as people count: `2.png` before `10.png`, folder by folder."""
    text = path.as_posix() if isinstance(path, Path) else path
    return tuple(_pieces(text)), text


def _pieces(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield digits as numbers and the rest as text; the end of a folder's name comes before all else."""
    for piece in re.findall(r"/|[0-9]+|[^0-9/]+", text):
        if piece == "/":
            yield (0, 0, "")
        elif piece.isascii() and piece.isdigit():
            yield (1, _number(piece), "")
        else:
            yield (2, 0, piece)


def _number(digits: str) -> int:
    """Return the value of the first 4,000 digits: Python refuses to read longer numbers."""
    return int(digits[:4000])


def printable(path: str | Path) -> str:
    """Return a path as text that every terminal and every UTF-8 file takes.

    Bytes of a file name that are no UTF-8 and control characters are escaped: `caf\\xe9.png`.
    """
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def expanded(path: str | Path) -> Path:
    """Return the path with `~` and `~user` replaced by the folders they stand for; an unknown user's stays as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no such user, or no home folder
        return Path(path)
