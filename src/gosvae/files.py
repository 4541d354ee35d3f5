"""Files that are either the old ones or the new ones, whatever happens while they are written."""

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
    """Write through a temporary file in the same folder, flush to the disk, then replace.

    Raises:
        WriteError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    write_together({path: data})


def write_together(files: dict[Path, bytes]) -> None:
    """Write several files: none is replaced, in the given order, before all are on the disk.

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
    """A temporary file in the folder of `path`, complete and on the disk; nothing is left of one that failed."""
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
    """Indented JSON."""
    return (json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=True) + "\n").encode()


def write_json(path: Path, tree: Any) -> None:
    """Write indented JSON atomically."""
    write_atomically(path, json_bytes(tree))
