"""States of a running training: saved often, checked when read, with the one before as a fallback."""

from __future__ import annotations

import hashlib
import io
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gosvae.config import to_tree
from gosvae.errors import CheckpointError
from gosvae.files import write_atomically
from gosvae.training.machine.config import RunConfig, StageConfig

log = logging.getLogger(__name__)
KEPT = 2
"""Number of states that are kept."""
_SHOWN = 3
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


def settings_of(stages: Sequence[StageConfig], run: RunConfig) -> dict[str, Any]:
    """Return the settings that must be the same for a run to continue, as a tree."""
    chosen = {"seed": run.seed, "precision": run.precision, "devices": run.devices}
    return {"stages": [to_tree(stage) for stage in stages], **chosen}


def check_origins(then: Mapping[str, Any] | None, now: Mapping[str, Any], folder: Path, *, changed_data: bool) -> None:
    """Refuse to continue a run with other settings, data or networks; the message says which of them differ.

    Args:
        then: origins of the run by name, or None for a run of an earlier version, which did not save them.
        now: origins that were given.
        folder: folder of the run.
        changed_data: whether other data are allowed.

    Raises:
        CheckpointError: something differs that is not allowed to.
    """
    if then is None:
        if changed_data:
            log.warning("%s was begun by an earlier version, which did not save what its data were", folder)
            return
        differ = ["settings, data or expert"]
    else:
        found = {name: _differences(then.get(name), now.get(name)) for name in {**now, **then}}
        changed = {name: lines for name, lines in found.items() if lines}
        if changed_data and set(changed) <= {"data"}:
            log.warning("%s continues with other data: %s", folder, "; ".join(changed.get("data", [])))
            return
        differ = [
            f"{name} ({'; '.join(lines[:_SHOWN])}{', ...' if lines[_SHOWN:] else ''})"
            for name, lines in changed.items()
        ]
        differ = differ or ["networks"]
        if set(changed) == {"data"}:
            raise CheckpointError(
                f"{folder} holds a run with other {differ[0]}: give the data it was started with, allow changed data, "
                "or give another folder",
                argument="changed_data",
            )
    raise CheckpointError(
        f"{folder} holds a run with other {' and '.join(differ)}: give those it was started with, or another folder",
        argument="out",
    )


def _differences(then: Any, now: Any, path: str = "") -> list[str]:
    """Return a line for each value of a tree that differs."""
    if isinstance(then, dict) and isinstance(now, dict):
        pairs = [(str(key), then.get(key), now.get(key)) for key in {**then, **now}]
    elif isinstance(then, list | tuple) and isinstance(now, list | tuple) and len(then) == len(now):
        pairs = [(str(n), a, b) for n, (a, b) in enumerate(zip(then, now, strict=True))]
    elif then == now:
        return []
    else:
        name = f"{path} " if path else ""
        return [f"{name}{_shown(then)}, now {_shown(now)}"]
    return [line for key, a, b in pairs for line in _differences(a, b, f"{path}.{key}".lstrip("."))]


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
