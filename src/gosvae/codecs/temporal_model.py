"""The temporal model of a variable-rate codec on disk: `temporal.json` and `temporal.safetensors` beside the codec.

It is not part of the fingerprint of the codec, so that streams of pictures stay as they are; sequences name both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor

from gosvae.codecs.checkpoint import read_json
from gosvae.config import Config, parse, to_tree
from gosvae.entropy.base import MARK_BYTES, weights_digest
from gosvae.entropy.temporal_network import TemporalConfig
from gosvae.errors import CheckpointError
from gosvae.files import json_bytes, write_together
from gosvae.weights import SHA256_KEY, read_weights, sha256_of

COUNTS_KEY = "tables.counts"
"""Name of the counts of `TemporalTables` among the tensors."""
_JSON, _TENSORS = "temporal.json", "temporal.safetensors"


class SharedTemporalCard(Config):
    """Contents of `temporal.json` of a codec that uses the temporal model of another one, whose latents are the same.

    Attributes:
        codec: fingerprint of the codec that the model is used with, in hexadecimal.
        shared: name of a codec of the package, which has a temporal model of its own.
        sha256: SHA-256 of that model, see `TemporalModel.digest`, in hexadecimal.
    """

    schema_version: Literal[1] = 1
    codec: str
    shared: str
    sha256: str


class TemporalCard(Config):
    """Contents of `temporal.json` without the provenance.

    Attributes:
        codec: fingerprint of the codec that the model belongs to, in hexadecimal.
        model: sizes of the network.
    """

    schema_version: Literal[1] = 1
    codec: str
    model: TemporalConfig


@dataclass(frozen=True)
class TemporalModel:
    """A temporal model as it lies on disk.

    Attributes:
        card: codec and sizes.
        tensors: integers of the network by name, see `TemporalContextNetwork.freeze`.
        counts: counts of `TemporalTables`, uint16.
        provenance: revision, versions, data and steps; free form.
    """

    card: TemporalCard
    tensors: Mapping[str, Tensor]
    counts: Tensor
    provenance: Mapping[str, Any]

    @property
    def digest(self) -> bytes:
        """SHA-256 over sizes and integers of the model, 32 bytes."""
        return weights_digest(self.card.model, {**self.tensors, COUNTS_KEY: self.counts})

    @property
    def mark(self) -> bytes:
        """The mark of the model in sequences, 4 bytes: the beginning of its SHA-256."""
        return self.digest[:MARK_BYTES]


def has_temporal_model(folder: Path) -> bool:
    """Return whether a codec's folder holds a temporal model."""
    return (folder / _JSON).is_file()


def save_temporal_model(folder: Path, model: TemporalModel) -> None:
    """Write a temporal model; its files are replaced together, and `temporal.json` names the other by its SHA-256.

    Raises:
        WriteError: there is no space or no permission; existing files are intact.
    """
    tensors = {name: value.cpu().contiguous() for name, value in model.tensors.items()}
    data = save({**tensors, COUNTS_KEY: model.counts})
    tree = {**to_tree(model.card), SHA256_KEY: sha256_of(data), "provenance": dict(model.provenance)}
    write_together({folder / _TENSORS: data, folder / _JSON: json_bytes(tree)})


def load_temporal_model(folder: Path, fingerprint: bytes, *, verify: bool = True) -> TemporalModel:
    """Read the temporal model in a codec's folder.

    Args:
        folder: folder of the codec.
        fingerprint: SHA-256 of the codec.
        verify: whether the tensors must be those that `temporal.json` names by their SHA-256.

    Raises:
        CheckpointError: there is no temporal model, it is damaged, or it belongs to another codec.
        ConfigError: `temporal.json` has unknown keys or impossible values.
    """
    if not has_temporal_model(folder):
        raise CheckpointError(f"{folder} has no temporal model, which sequences need: train one, or take another codec")
    tree = read_json(folder / _JSON)
    if not isinstance(tree, dict):
        raise CheckpointError(f"{folder / _JSON} is damaged: expected keys and values")
    provenance, sha256 = tree.pop("provenance", {}), tree.pop(SHA256_KEY, None)
    if "shared" in tree:
        return _shared(parse(SharedTemporalCard, tree, source=str(folder / _JSON), stored=True), folder, fingerprint)
    card = parse(TemporalCard, tree, source=str(folder / _JSON), stored=True)
    if card.codec != fingerprint.hex():
        raise CheckpointError(f"the temporal model in {folder} belongs to another codec: train it again for this one")
    tensors = read_weights(
        folder, sha256, verify=verify, error=CheckpointError, weights_file=_TENSORS, config_file=_JSON
    )
    counts = tensors.pop(COUNTS_KEY, None)
    if counts is None or counts.dtype != torch.uint16:
        raise CheckpointError(f"{folder / _TENSORS} has no table {COUNTS_KEY!r}: damaged")
    return TemporalModel(card, tensors, counts, provenance)


def _shared(card: SharedTemporalCard, folder: Path, fingerprint: bytes) -> TemporalModel:
    """Return the temporal model of a codec of the package, for another codec.

    Raises:
        CheckpointError: the card belongs to another codec, or the package does not have this model.
    """
    if card.codec != fingerprint.hex():
        raise CheckpointError(f"the temporal model in {folder} belongs to another codec: train it again for this one")
    models = Path(str(resources.files("gosvae"))) / "models"
    source = models / card.shared
    if source.parent != models or not has_temporal_model(source) or "shared" in read_json(source / _JSON):
        raise CheckpointError(
            f"{folder / _JSON} refers to {card.shared!r}, which has no temporal model in this package"
        )
    model = load_temporal_model(source, bytes.fromhex(read_json(source / _JSON)["codec"]))
    if model.digest.hex() != card.sha256:
        raise CheckpointError(f"{folder / _JSON} refers to another temporal model than that of {card.shared!r}")
    return replace(model, card=model.card.model_copy(update={"codec": card.codec}))
