"""Lock of a folder, so that two processes do not make the same rows at the same time."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from gosvae.errors import ConfigError, WriteError

if sys.platform != "win32":
    import fcntl

LOCK_FILE = "lock"


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder, which is made if it does not exist, within this context.

    The file `lock` holds the id of the process. The operating system ends the lock with the process, however that ends;
    where it has no such locks, as on Windows, nothing is kept out.

    Raises:
        ConfigError: another process works in the folder.
        WriteError: no permission.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK_FILE).open("a+", encoding="utf-8")
    except OSError as error:
        raise WriteError(f"cannot write {folder / LOCK_FILE}: {error.strerror}") from None
    with file:
        if sys.platform != "win32":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                who = file.read().strip()
                raise ConfigError(
                    f"the process {who} makes rows in {folder}: wait until it ends, or name another folder",
                    argument="out",
                ) from None
            except OSError:  # a file system without locks
                pass
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
