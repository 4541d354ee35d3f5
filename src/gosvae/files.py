"""Files that are either the old ones or the new ones, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from gosvae.errors import GosvaeError


class WriteError(GosvaeError):
    """A file that cannot be written (no space, no permission); what stood there before is intact."""


def write_atomically(path: Path, data: bytes) -> None:
    """Write through a temporary file in the same folder, flush to the disk, then replace.

    Raises:
        WriteError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink(missing_ok=True)
        raise WriteError(f"cannot write {path}: {error.strerror}; what stood there before is intact") from None


def write_json(path: Path, tree: Any) -> None:
    """Write indented JSON atomically."""
    write_atomically(path, (json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=True) + "\n").encode())
