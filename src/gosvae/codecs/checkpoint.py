"""Finished models on disk: a folder with `config.json`, `weights.safetensors` and `provenance.json`.

`config.json` names the weights by their SHA-256, so that damaged weights, or those of another model, are refused. The
fingerprint (SHA-256 over configuration and weights) names a model; its first 8 bytes stand in every stream.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gosvae.codecs.cards import CARDS, Card
from gosvae.codecs.changes import changed_weights
from gosvae.config import identity, parse, to_tree
from gosvae.entropy.base import MARK_BYTES, weights_digest
from gosvae.errors import CheckpointError
from gosvae.files import is_lfs_pointer, parse_json, write_together
from gosvae.weights import CONFIG_FILE, NOTES_FILE, SHA256_KEY, check_sizes, model_files, read_weights

Network = TypeVar("Network", bound=nn.Module)

SCHEMA_VERSION = 1
SCALE_SUFFIX = ".scale"
"""Suffix of the names of kernel scales, for kernels that are stored in 8 bits."""
HALF_LIMIT = 6e4
"""Largest value that is stored in float16, whose own limit is 65504."""
COUNTS_KEY = "entropy.counts"
"""Name of the static frequency table among the weights; the networks' weights begin with `model.`."""
CONTEXT_PREFIX = "entropy.context."
"""Prefix of the names of the context model's integers among the weights."""


@dataclass(frozen=True)
class CodecCheckpoint:
    """A codec as it lies on disk.

    Attributes:
        card: configuration.
        weights: state dict of the network, in the precision of the file.
        counts: int64 symbol counts of the training images, for the codec's entropy model: (K,) for a VQ codec,
            (D, F) for an autoencoder.
        provenance: revision, versions, data, steps and minutes; free form.
        context: integers of the context model by name, see `ContextModel`; empty where there is none. They are not
            part of the fingerprint: streams that were made without them stay readable.
        changes: changes of the decoder by an adapter, see `changed_weights`; empty where there is none. They are not
            part of the fingerprint: streams are those of the codec without them.
    """

    card: Card
    weights: dict[str, Tensor]
    counts: Tensor
    provenance: dict[str, Any]
    context: dict[str, Tensor] = field(default_factory=dict)
    changes: dict[str, Tensor] = field(default_factory=dict)

    def fingerprint(self) -> bytes:
        """Return the SHA-256 over the identity of the model's configuration, its weights and its table: 32 bytes."""
        model = identity(self.card.model)
        if self.card.kind != "codec":  # left out for VQ codecs, whose streams must stay readable
            model = {"kind": self.card.kind, **model}
        digest = hashlib.sha256(json.dumps(model, sort_keys=True).encode())
        for name, value in sorted({**self.weights, COUNTS_KEY: self.counts}.items()):
            flat = value.detach().cpu().contiguous().view(-1)
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(flat.view(torch.uint8).numpy().tobytes())
        return digest.digest()

    def context_mark(self) -> bytes:
        """Return the mark of the context model in streams (`EntropyModel.mark`); empty where there is no such model."""
        config = self.card.context_config
        return b"" if config is None else weights_digest(config, self.context)[:MARK_BYTES]


def load_weights(network: nn.Module, checkpoint: CodecCheckpoint) -> None:
    """Put a checkpoint's weights, with the changes of an adapter, into its network, in float32.

    Raises:
        CheckpointError: they do not fit.
    """
    weights = {**checkpoint.weights, **changed_weights(checkpoint.weights, checkpoint.changes)}
    try:
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
    except RuntimeError as error:
        raise _misfit(checkpoint, str(error).splitlines()[-1].strip()) from None


def _misfit(checkpoint: CodecCheckpoint, reason: str) -> CheckpointError:
    return CheckpointError(f"the weights of {checkpoint.card.name!r} do not fit its configuration: {reason}")


def network_of(build: Callable[[], Network], checkpoint: CodecCheckpoint) -> Network:
    """Return the network of a checkpoint with its weights, in float32 whatever PyTorch's default type is.

    Args:
        build: function that makes the network, such as its class with the configuration. It is called without memory
            first, so that sizes that are not those of the weights cost nothing.
        checkpoint: configuration and weights.

    Raises:
        CheckpointError: the weights do not fit.
    """
    reason = check_sizes(build, checkpoint.weights)
    if reason is not None:
        raise _misfit(checkpoint, reason)
    network = build().float()
    load_weights(network, checkpoint)
    return network


def half_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights on the CPU, in float16 if it covers their range (about 3 decimal digits, half the size)."""

    def half(value: Tensor) -> Tensor:
        fits = value.is_floating_point() and bool(value.abs().max() < HALF_LIMIT)
        return (value.half() if fits else value).cpu().contiguous()

    return {name: half(value.detach()) for name, value in weights.items()}


def _in_eight_bits(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the decoder's kernels as int8 with one scale for each slice of axis 0, and everything else unchanged."""
    result = dict(tensors)
    for name, value in tensors.items():
        if name.startswith("model.decoder.") and value.ndim == 4:
            scale = value.float().abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12) / 127.0
            result[name] = (value.float() / scale).round().to(torch.int8)
            result[name + SCALE_SUFFIX] = scale
    return result


def _from_eight_bits(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Undo `_in_eight_bits`, in float16: one product and one rounding, the same on every machine.

    Raises:
        CheckpointError: a kernel has no scale, or a scale has no kernel.
    """
    scales = {name.removesuffix(SCALE_SUFFIX): value for name, value in tensors.items() if name.endswith(SCALE_SUFFIX)}
    plain = {name: value for name, value in tensors.items() if not name.endswith(SCALE_SUFFIX)}
    stored = {name for name, value in plain.items() if name.startswith("model.decoder.") and value.dtype == torch.int8}
    if wrong := sorted(stored ^ scales.keys()):
        raise CheckpointError(f"the weights have {wrong[0][:80]!r} without its scale, or the scale alone: damaged")
    for name, scale in scales.items():
        if scale.shape != (len(plain[name]), 1, 1, 1) or plain[name].ndim != 4:
            raise CheckpointError(f"the scale of {name[:80]!r} has the size {tuple(scale.shape)}: damaged")
    return plain | {name: (plain[name].float() * scale).half() for name, scale in scales.items()}


def save_codec(folder: Path, checkpoint: CodecCheckpoint, *, eight_bit_decoder: bool = False) -> None:
    """Write a checkpoint; its files are replaced together, when all of them are on the disk.

    With `eight_bit_decoder` the decoder's kernels take half the space. The encoder stays as it is, so images become
    the same indices; the reconstruction and the fingerprint change.

    Raises:
        WriteError: there is no space or no permission; existing files are intact.
    """
    tensors = {f"model.{k}": v.detach().cpu().contiguous() for k, v in checkpoint.weights.items()}
    if eight_bit_decoder:
        tensors = _in_eight_bits(tensors)
    small = checkpoint.counts.numel() == 0 or int(checkpoint.counts.max()) < 2**31
    tensors[COUNTS_KEY] = checkpoint.counts.to(torch.int32 if small else torch.int64)
    tensors |= {CONTEXT_PREFIX + name: value.cpu().contiguous() for name, value in checkpoint.context.items()}
    write_together(model_files(folder, to_tree(checkpoint.card), tensors, checkpoint.provenance))


def read_json(path: Path) -> Any:
    """Read a JSON file of a checkpoint.

    Raises:
        CheckpointError: the file is missing, too large, nested too deeply, or not JSON.
    """
    try:
        return parse_json(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}; is {path.parent} a checkpoint folder?") from None
    except ValueError:
        _refuse_lfs_pointer(path)
        raise CheckpointError(f"{path} is not valid JSON: the checkpoint is damaged") from None


def _refuse_lfs_pointer(path: Path) -> None:
    if is_lfs_pointer(path):
        raise CheckpointError(f"{path} is a Git LFS pointer, not the file itself: run git lfs pull in {path.parent}")


def kind_of(tree: object) -> str:
    """Return the kind of codec that a `config.json` names; files of the first versions name none."""
    kind = tree.get("kind", "codec") if isinstance(tree, dict) else "codec"
    return kind if isinstance(kind, str) else str(kind)[:80]


def _card(folder: Path) -> tuple[Card, object]:
    """Return the card in a folder, and the SHA-256 of the weights as its file names it; errors as those of the load."""
    tree = read_json(folder / CONFIG_FILE)
    if not isinstance(tree, dict):
        raise CheckpointError(f"{folder / CONFIG_FILE} is damaged: expected keys and values")
    if tree.get("kind") == "expert":
        raise CheckpointError(
            f"{folder} holds an expert, a codec was expected: pass it as the expert", argument="expert"
        )
    if tree.get("kind") == "adapter":
        raise CheckpointError(f"{folder} holds an adapter of {tree.get('base')!r}: name the codec itself here")
    if isinstance(tree.get("schema_version"), int) and tree["schema_version"] > SCHEMA_VERSION:
        raise CheckpointError(
            f"{folder} has schema {tree['schema_version']}, this gosvae reads {SCHEMA_VERSION}: upgrade"
        )
    kind = kind_of(tree)
    if kind not in CARDS:
        raise CheckpointError(
            f"{folder} holds a {kind!r}, this gosvae reads {', '.join(map(repr, CARDS))}: upgrade, or name a codec"
        )
    sha256 = tree.pop(SHA256_KEY, None)
    return parse(CARDS[kind], tree, source=str(folder / CONFIG_FILE), stored=True), sha256


def load_codec_checkpoint(folder: Path, *, verify: bool = True) -> CodecCheckpoint:
    """Read a codec's folder, whatever its kind.

    Args:
        folder: folder of the codec.
        verify: whether the weights must be those that `config.json` names by their SHA-256.

    Raises:
        CheckpointError: a file is missing or damaged, was written by a newer gosvae, or the weights are not those of
            the configuration.
        ConfigError: `config.json` has unknown keys or impossible values.
    """
    card, sha256 = _card(folder)
    tensors = read_weights(folder, sha256, verify=verify, error=CheckpointError)
    if COUNTS_KEY not in tensors:
        raise CheckpointError(f"{folder}: the weights have no frequency table {COUNTS_KEY!r}: it is no finished codec")
    counts = tensors.pop(COUNTS_KEY).to(torch.int64)
    context = {k.removeprefix(CONTEXT_PREFIX): tensors.pop(k) for k in list(tensors) if k.startswith(CONTEXT_PREFIX)}
    if bool(context) != (card.context_config is not None):
        raise CheckpointError(f"{folder} has half a context model: config.json and the weights do not belong together")
    weights = {k.removeprefix("model."): v for k, v in _from_eight_bits(tensors).items()}
    provenance = read_json(folder / NOTES_FILE)
    if not isinstance(provenance, dict):
        raise CheckpointError(f"{folder / NOTES_FILE} is damaged: expected keys and values")
    return CodecCheckpoint(card, weights, counts, provenance, context)
