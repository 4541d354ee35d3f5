"""Atomic writing: a file is either the old one or the new one, whatever happens while it is written."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from gosvae.errors import WriteError


def write_atomically(path: Path, data: bytes) -> None:
    """Write a temporary file in the same folder, flush it to the disk, then replace the old file with it.

    Raises:
        WriteError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    write_together({path: data})


def write_together(files: dict[Path, bytes]) -> None:
    """Write several files; when all are on the disk, they replace the old ones in the given order.

    Raises:
        WriteError: the disk is full or a folder cannot be written; the old files are untouched.
    """
    temporary: dict[Path, Path] = {}
    path = Path()
    try:
        for path, data in files.items():
            if path.exists() and not path.is_file():  # a folder, or a device such as /dev/null
                raise OSError(errno.EEXIST, "it is not a regular file")
            temporary[path] = _write_beside(path, data)
        for path, written in temporary.items():
            written.replace(path)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}; what stood there before is intact") from None
    finally:
        for written in temporary.values():
            with contextlib.suppress(OSError):
                written.unlink(missing_ok=True)


def _write_beside(path: Path, data: bytes) -> Path:
    """Return a temporary file in the folder of `path`, complete and on the disk; a failure leaves no file behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
    except BaseException:  # Ctrl-C too
        with contextlib.suppress(OSError):
            Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def json_bytes(tree: Any) -> bytes:
    """Return a tree of plain values as indented JSON."""
    return (json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=True) + "\n").encode()


def write_json(path: Path, tree: Any) -> None:
    """Write a tree of plain values as indented JSON, atomically."""
    write_atomically(path, json_bytes(tree))


_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def is_lfs_pointer(path: Path) -> bool:
    """Return whether a file is the pointer that Git LFS leaves where it has not downloaded the file itself."""
    try:
        with path.open("rb") as stream:
            return stream.read(len(_LFS_POINTER)) == _LFS_POINTER
    except OSError:
        return False
