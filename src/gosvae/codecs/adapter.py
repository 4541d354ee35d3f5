"""Adapters: a small change of a codec's decoder for another expert, stored beside the codec in a few hundred kB.

Every kernel of the decoder gets a gain for each of its output channels and a change of low rank (Hu et al. 2021,
"LoRA"), every other parameter a change of its own; without a rank, every parameter has a change of its own. Encoder,
latent and context model stay as they are, so that streams are those of the base codec: it decodes them, too, and an
adapted decoder reads streams that were written before it.

Axis legend: O output channels, I all other axes of a kernel as one, R the rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from gosvae.codecs.changes import CHANGE, DOWN, GAIN, UP, changed_weights
from gosvae.codecs.checkpoint import CodecCheckpoint, half_weights, read_json
from gosvae.config import Config, parse, to_tree
from gosvae.errors import CheckpointError
from gosvae.files import write_together
from gosvae.weights import CONFIG_FILE, model_files, read_weights

ADAPTER = "adapter"
"""The `kind` in `config.json` of an adapter's folder."""
CHANGES_FILE = "adapter.safetensors"
DECODER = "decoder."


class AdapterCard(Config):
    """Content of `config.json` in the folder of an adapter.

    Attributes:
        name: name of the adapted codec.
        base: name or folder of the codec that is adapted.
        fingerprint: SHA-256 of that codec, in hexadecimal.
        rank: rank R of the changes of kernels; None where every parameter has a change of its own.
        weights_sha256: SHA-256 of `adapter.safetensors`, in hexadecimal, which `save_adapter` writes; None in adapters
            that were written before the field existed.
    """

    kind: Literal["adapter"] = "adapter"
    schema_version: Literal[1] = 1
    name: str
    base: str
    fingerprint: str
    rank: int | None = Field(ge=0, le=64)
    weights_sha256: str | None = None


class Adapter(nn.Module):
    """Trainable change of a decoder's weights; a new one changes nothing.

    Args:
        weights: weights of the codec, of which those of the decoder are changed.
        rank: rank R of the changes of kernels; 0 leaves them gains only, and None changes every parameter freely, which
            is a full fine-tuning of the decoder.
    """

    def __init__(self, weights: Mapping[str, Tensor], rank: int | None) -> None:
        super().__init__()
        self.parts = nn.ParameterDict()
        for name, value in weights.items():
            if not name.startswith(DECODER) or not value.is_floating_point():
                continue
            key = name.replace(".", "/")
            if value.ndim < 2 or rank is None:
                self.parts[f"{key}:{CHANGE}"] = nn.Parameter(torch.zeros(value.shape))
                continue
            rows, columns = value.shape[0], value[0].numel()
            self.parts[f"{key}:{GAIN}"] = nn.Parameter(torch.zeros(rows))
            if 0 < rank < min(rows, columns):
                self.parts[f"{key}:{UP}"] = nn.Parameter(torch.zeros(rows, rank))
                self.parts[f"{key}:{DOWN}"] = nn.Parameter(torch.randn(rank, columns) / columns**0.5)

    def changed(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the decoder's weights with their changes, by name; float32, differentiable."""
        return changed_weights(weights, {key.replace("/", "."): value for key, value in self.parts.items()})


def save_adapter(folder: Path, card: AdapterCard, adapter: Adapter, provenance: dict[str, Any]) -> None:
    """Write an adapter's folder: `config.json`, `adapter.safetensors` in float16, and `provenance.json`.

    Raises:
        WriteError: there is no space or no permission; existing files are intact.
    """
    changes = half_weights({key.replace("/", "."): value for key, value in adapter.parts.items()})
    write_together(model_files(folder, to_tree(card), changes, provenance, weights_file=CHANGES_FILE))


def adapter_card(folder: Path) -> AdapterCard | None:
    """Return the card of an adapter's folder; None if the folder holds something else.

    Raises:
        ConfigError: its `config.json` has unknown keys or impossible values.
    """
    path = folder / CONFIG_FILE
    tree = read_json(path) if path.is_file() else None
    return (
        parse(AdapterCard, tree, source=str(path)) if isinstance(tree, dict) and tree.get("kind") == ADAPTER else None
    )


def with_adapter(base: CodecCheckpoint, folder: Path, card: AdapterCard, *, verify: bool = True) -> CodecCheckpoint:
    """Return a codec with the changes of an adapter; its streams are those of the base.

    Args:
        base: codec that the adapter changes.
        folder: folder of the adapter.
        card: card of the adapter.
        verify: whether the changes must be those that the card names by their SHA-256.

    Raises:
        CheckpointError: the adapter is that of another codec, or is damaged.
    """
    if base.fingerprint().hex() != card.fingerprint:
        raise CheckpointError(
            f"{folder} adapts a codec of fingerprint {card.fingerprint[:16]}, {card.base!r} has "
            f"{base.fingerprint().hex()[:16]}: use the codec that was adapted"
        )
    changes = read_weights(folder, card.weights_sha256, verify=verify, error=CheckpointError, weights_file=CHANGES_FILE)
    return replace(base, card=base.card.model_copy(update={"name": card.name}), changes=changes)
