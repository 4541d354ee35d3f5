"""Experts that `gosvae train-expert` makes: folders with `config.json` and `weights.safetensors`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from torch import nn

from gosvae.config import Config, parse
from gosvae.errors import ExpertError
from gosvae.experts.base import ExpertInfo, NetworkExpert
from gosvae.experts.compact import CompactConfig, CompactSegmenter
from gosvae.experts.dense import DenseConfig, DenseSegmenter
from gosvae.experts.unet import UNetConfig, UNetSegmenter
from gosvae.files import is_lfs_pointer, parse_json
from gosvae.weights import SHA256_KEY, check_sizes, read_weights

NetworkConfig = CompactConfig | UNetConfig | DenseConfig


class ExpertCard(Config):
    """Content of `config.json` in the folder of a trained expert."""

    kind: Literal["expert"] = "expert"
    schema_version: Literal[1] = 1
    name: str
    class_names: tuple[str, ...]
    input_height: int = Field(gt=0)
    input_width: int = Field(gt=0)
    network: Annotated[NetworkConfig, Field(discriminator="kind")]

    @model_validator(mode="before")
    @classmethod
    def _compact_where_no_kind_is_named(cls, tree: Any) -> Any:
        """Add the default kind of network, which files of earlier versions do not name."""
        network = tree.get("network") if isinstance(tree, dict) else None
        if isinstance(network, dict) and "kind" not in network:
            return {**tree, "network": {**network, "kind": "compact"}}
        return tree

    @model_validator(mode="after")
    def _a_name_for_each_class(self) -> ExpertCard:
        if len(self.class_names) != self.network.class_count:
            raise ValueError(f"{len(self.class_names)} class_names, but network.class_count {self.network.class_count}")
        return self


def build_network(config: NetworkConfig) -> nn.Module:
    """Return the network that a configuration describes, initialised from PyTorch's global generator."""
    match config:
        case CompactConfig():
            return CompactSegmenter(config)
        case UNetConfig():
            return UNetSegmenter(config)
        case DenseConfig():
            return DenseSegmenter(config)


def load_trained_expert(folder: Path, *, verify: bool = True) -> NetworkExpert:
    """Load `config.json` and `weights.safetensors` (any float precision, used in float32).

    Args:
        folder: folder of the expert.
        verify: whether the weights must be those that `config.json` names by their SHA-256.

    Raises:
        ExpertError: a file is missing or damaged, or the weights do not fit the configuration.
        ConfigError: `config.json` has unknown keys or impossible values.
    """
    config_path, weights_path = folder / "config.json", folder / "weights.safetensors"
    for path in (config_path, weights_path):
        if not path.is_file():
            raise ExpertError(f"{folder} is not an expert: {path.name} is missing; make one with gosvae train-expert")
        if is_lfs_pointer(path):
            raise ExpertError(f"{path} is a Git LFS pointer, not the file itself: run git lfs pull in {folder}")
    try:
        tree = parse_json(config_path.read_bytes())
    except ValueError as error:
        raise ExpertError(f"{config_path} is not valid JSON: {error}") from None
    sha256 = tree.pop(SHA256_KEY, None) if isinstance(tree, dict) else None
    card = parse(ExpertCard, tree, source=str(config_path))
    weights = read_weights(folder, sha256, verify=verify, error=ExpertError)
    reason = check_sizes(lambda: build_network(card.network), weights)
    if reason is not None:
        raise ExpertError(f"{weights_path} does not fit {config_path.name}: {reason}")
    network = build_network(card.network).float()
    network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
    info = ExpertInfo(card.name, card.class_names, card.input_height, card.input_width)
    return NetworkExpert(info, network)


def card_of(expert: NetworkExpert, name: str) -> ExpertCard:
    """Return the card of a trained expert, under another name.

    Raises:
        ExpertError: a card cannot describe its network.
    """
    network, info = expert.network, expert.info
    if not isinstance(network, CompactSegmenter | UNetSegmenter | DenseSegmenter):
        raise ExpertError(f"expert {info.name!r} has a network of its own kind, {type(network).__name__}")
    return ExpertCard(
        name=name,
        class_names=info.class_names,
        input_height=info.input_height,
        input_width=info.input_width,
        network=network.config,
    )
