"""Atomic writing: a file is either the old one or the new one, whatever happens while it is written."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from gosvae.errors import WriteError


def write_atomically(path: Path, data: bytes) -> None:
    """Write a temporary file in the same folder, flush it to the disk, then replace the old file with it.

    A file that is replaced hands its mode on to the new one. A link stays a link: the file that it leads to is written.

    Raises:
        WriteError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    write_together({path: data})


def write_together(files: dict[Path, bytes]) -> None:
    """Write several files as `write_atomically` does; once all are on the disk, they replace the old ones in order.

    Raises:
        WriteError: the disk is full or a folder cannot be written; the old files are untouched.
    """
    temporary: dict[Path, Path] = {}
    path = Path()
    try:
        for path, data in files.items():
            target = _behind_links(path)
            if target.exists() and not target.is_file():  # a folder, or a device such as /dev/null
                raise OSError(errno.EEXIST, "it is not a regular file")
            temporary[target] = _write_beside(target, data)
        for path, written in temporary.items():
            written.replace(path)
    except OSError as error:
        raise _write_error(path, error) from None
    finally:
        for written in temporary.values():
            with contextlib.suppress(OSError):
                written.unlink(missing_ok=True)


@contextlib.contextmanager
def written_atomically(path: Path) -> Iterator[BinaryIO]:
    """Yield a stream for a file, readable and seekable; after the block, its bytes take the place of the old file.

    Links and modes are treated as by `write_atomically`. What is no regular file, such as a pipe or a device, is not
    replaced: it takes the bytes when all are there. An exception in the block leaves everything as it was.

    Raises:
        WriteError: the disk is full or the file cannot be written; the old file is untouched.
    """
    try:
        if path.is_dir():
            raise OSError(errno.EISDIR, "it is a folder")
        if path.exists() and not path.is_file():  # the path behind /dev/fd/3 is none that can be opened
            whole = BytesIO()
            yield whole
            path.write_bytes(whole.getvalue())
            return
        target = _behind_links(path)
        with _written_beside(target) as (stream, temporary):
            yield stream
        try:
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _write_error(path, error) from None


def _write_error(path: Path, error: OSError) -> WriteError:
    return WriteError(f"cannot write {path}: {error.strerror}; what stood there before is intact")


def _behind_links(path: Path) -> Path:
    """Return the path that a link leads to, whether there is a file or not; any other path as it is."""
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, "its links lead in a circle")
    return target


def _mode_of(path: Path) -> int:
    """Return the mode of a file, or that of a new file where there is none."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask


def _write_beside(path: Path, data: bytes) -> Path:
    """Return a temporary file in the folder of `path`, complete and on the disk; a failure leaves no file behind."""
    with _written_beside(path) as (stream, temporary):
        stream.write(data)
    return temporary


@contextlib.contextmanager
def _written_beside(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Yield a temporary file in the folder of `path` and its name.

    After the block it is on the disk, with the mode of `path`; a failure leaves no file behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The prefix is short: the name of `path` may be as long as the file system allows.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".gosvae-")
    os.close(descriptor)
    temporary = Path(name)
    try:
        with temporary.open("w+b") as stream:
            yield stream, temporary
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(_mode_of(path))
    except BaseException:  # Ctrl-C too
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def json_bytes(tree: Any) -> bytes:
    """Return a tree of plain values as indented JSON; bytes of file names that are no UTF-8 become escapes of JSON."""
    return (json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=True) + "\n").encode(errors="backslashreplace")


def write_json(path: Path, tree: Any) -> None:
    """Write a tree of plain values as indented JSON, atomically."""
    write_atomically(path, json_bytes(tree))


MOST_JSON_BYTES = 2**24
"""Largest size of a JSON file that is read, in bytes."""
MOST_DEPTH = 100
"""Largest depth of nested lists and mappings in a file that is read."""


def parse_json(data: bytes) -> Any:
    """Return the tree in JSON from a file that may be of any origin.

    Raises:
        ValueError: the bytes are not JSON, more than `MOST_JSON_BYTES`, or nested deeper than `MOST_DEPTH`.
    """
    if len(data) > MOST_JSON_BYTES:
        raise ValueError(f"{len(data)} bytes, at most {MOST_JSON_BYTES} are read")
    try:
        tree = json.loads(data.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level, depth = [tree], 0
    while level:
        depth += 1
        if depth > MOST_DEPTH:
            raise ValueError(f"it is nested more than {MOST_DEPTH} deep")
        inner = [list(part.values()) if isinstance(part, dict) else part for part in level]
        level = [part for parts in inner if isinstance(parts, list) for part in parts]
    return tree


_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def is_lfs_pointer(path: Path) -> bool:
    """Return whether a file is the pointer that Git LFS leaves where it has not downloaded the file itself."""
    try:
        with path.open("rb") as stream:
            return stream.read(len(_LFS_POINTER)) == _LFS_POINTER
    except OSError:
        return False
