"""States of a running training: saved often, checked when read, with the one before as a fallback."""

from __future__ import annotations

import hashlib
import io
import logging
import re
from pathlib import Path
from typing import Any

import torch

from gosvae.errors import CheckpointError
from gosvae.files import write_atomically

log = logging.getLogger(__name__)
KEPT = 2
"""Number of states that are kept."""
_NAME = re.compile(r"^(\d{2})-(\d{9})\.state$")


def _states(folder: Path) -> list[Path]:
    """Return the files of states, newest first; their names sort by stage and step."""
    return sorted((p for p in folder.glob("*.state") if _NAME.match(p.name)), reverse=True)


def save_state(folder: Path, stage: int, step: int, state: dict[str, Any]) -> Path:
    """Write a state, preceded by its SHA-256, and remove all but this one and the one before; return its path.

    Raises:
        WriteError: no space or no permission; earlier states are intact.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    path = folder / f"{stage:02d}-{step:09d}.state"
    write_atomically(path, hashlib.sha256(payload).digest() + payload)
    # Newer states are damaged, or the run would have continued from them; they must not displace intact ones.
    intact = [p for p in _states(folder) if p.name <= path.name]
    for old in {*_states(folder), *folder.glob(".*.state.*")}.difference(intact[:KEPT]):  # and half-written files
        old.unlink(missing_ok=True)
    return path


def _read(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    if hashlib.sha256(data[32:]).digest() != data[:32]:
        raise CheckpointError(f"{path} is damaged")
    state: dict[str, Any] = torch.load(io.BytesIO(data[32:]), map_location="cpu", weights_only=True)
    return state


def load_newest_state(folder: Path) -> dict[str, Any] | None:
    """Return the newest intact state, or None where no state has been saved.

    Raises:
        CheckpointError: there are states, and all are damaged.
    """
    paths = _states(folder)
    for path in paths:
        try:
            return _read(path)
        except (CheckpointError, OSError, RuntimeError) as error:
            log.warning("%s cannot be used (%s): falling back to the one before", path.name, error)
    if paths:
        raise CheckpointError(f"all states in {folder} are damaged: remove the folder to start again")
    return None
