"""Finished models on disk: `config.json`, which names the weights by their SHA-256, `weights.safetensors` and notes.

A folder of another maker is data: reading it runs no code, and a file that was changed or cut is refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from gosvae.errors import CheckpointError, GosvaeError
from gosvae.files import is_lfs_pointer, json_bytes

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "weights.safetensors"
NOTES_FILE = "provenance.json"
SHA256_KEY = "weights_sha256"
"""Key of `config.json` with the SHA-256 of the weights' file, which is no part of the model's configuration.

Models that were written before the key existed have none.
"""
_SLACK = 2**16
_SHA256 = re.compile(r"[0-9a-f]{64}")


def model_files(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    notes: Mapping[str, Any],
    *,
    weights_file: str = WEIGHTS_FILE,
) -> dict[Path, bytes]:
    """Return the contents of a model's files by their path, for `files.write_together`."""
    weights = save(dict(tensors))
    return {
        folder / NOTES_FILE: json_bytes(notes),
        folder / CONFIG_FILE: json_bytes({**config, SHA256_KEY: sha256_of(weights)}),
        folder / weights_file: weights,
    }


def sha256_of(weights: bytes) -> str:
    """Return the value of `SHA256_KEY` for the contents of a file of weights."""
    return hashlib.sha256(weights).hexdigest()


def read_weights(
    folder: Path,
    sha256: object,
    *,
    verify: bool = True,
    error: type[GosvaeError] = GosvaeError,
    weights_file: str = WEIGHTS_FILE,
    config_file: str = CONFIG_FILE,
) -> dict[str, Tensor]:
    """Return the tensors of a model's weights, all of whose values are finite.

    Args:
        folder: folder of the model.
        sha256: value of `SHA256_KEY` in its `config_file`; None where the key is absent, and nothing is compared.
        verify: whether to compare the SHA-256.
        error: type of the errors.
        weights_file: name of the file of the weights.
        config_file: name of the file that names the weights by their SHA-256.

    Raises:
        GosvaeError: the file cannot be read, is damaged, is not the one that `config_file` names, or has a value
            that is NaN or infinite. The error is of the type `error`.
    """
    path = folder / weights_file
    if is_lfs_pointer(path):
        raise error(f"{path} is a Git LFS pointer, not the file itself: run git lfs pull in {folder}")
    if sha256 is not None and not (isinstance(sha256, str) and _SHA256.fullmatch(sha256)):
        raise error(f"{folder / config_file}: {SHA256_KEY}: expected 64 hexadecimal digits, got {str(sha256)[:80]!r}")
    try:
        data = path.read_bytes()
    except OSError as failure:
        raise error(f"cannot read {path}: {failure.strerror or failure}") from None
    if verify and sha256 is not None and sha256_of(data) != sha256:
        raise error(
            f"{path} is not the file that {config_file} names by its SHA-256: it is damaged, or of another model; copy "
            "both again",
            argument="verify",
        )
    try:
        tensors: dict[str, Tensor] = load(data)
    except (SafetensorError, ValueError, KeyError) as failure:
        raise error(f"{path} is damaged: {str(failure).splitlines()[0]}") from None
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(value.float().isfinite().all()):
            raise error(f"{path}: {name[:80]!r} has values that are NaN or infinite: it is damaged, copy it again")
    return tensors


def check_sizes(build: Callable[[], nn.Module], weights: Mapping[str, Tensor]) -> str | None:
    """Return why weights do not fit a network, or None if they do; the network takes no memory.

    The check comes before the network is built, so that a false configuration costs neither memory nor time.

    Args:
        build: function that makes the network, such as the class with its configuration.
        weights: its state dict.
    """
    with torch.device("meta"):
        expected = build().state_dict()
    missing, unknown = expected.keys() - weights.keys(), weights.keys() - expected.keys()
    if missing or unknown:
        names = ", ".join(sorted(missing or unknown)[:3])
        return f"{'missing' if missing else 'unknown'} {names[:200]}"
    for name, value in expected.items():
        given = weights[name]
        if given.shape != value.shape:
            return f"{name} has the size {tuple(given.shape)}, expected {tuple(value.shape)}"
        if given.is_floating_point() != value.is_floating_point():
            return f"{name} has values of type {given.dtype}, expected {value.dtype}"
    return None


def check_amount(build: Callable[[], nn.Module], tensors: Mapping[str, Tensor]) -> None:
    """Check that a network is not much larger than the tensors that it will hold in another form.

    Args:
        build: function that makes the network.
        tensors: tensors that its parameters will come from, each of about the same size.

    Raises:
        CheckpointError: the network has more than twice as many values as the tensors.
    """
    with torch.device("meta"):
        needed = sum(value.numel() for value in build().state_dict().values())
    given = sum(value.numel() for value in tensors.values())
    if needed > 2 * given + _SLACK:
        raise CheckpointError(
            f"the weights have {given} values where the configuration asks for {needed}: they do not belong together"
        )
