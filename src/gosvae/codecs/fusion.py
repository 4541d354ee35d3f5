"""Fusion: one picture from those of the two layers of a stream, at the receiver.

Fusion is no part of the bitstream: senders and relays do not know of it, and every receiver may have its own.

Axis legend: P conditions, H and W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gosvae.codecs.checkpoint import half_weights, read_json
from gosvae.codecs.detail import Detail
from gosvae.codecs.tiling import decode_in_tiles, without_margins
from gosvae.config import Config, parse, to_tree
from gosvae.errors import CheckpointError
from gosvae.files import write_together
from gosvae.nn.fusion import UNSHUFFLE, FusionConfig, FusionNetwork, conditions
from gosvae.nn.pyramid import Margins
from gosvae.tensors import ImageArray, image_to_tensor, tensor_to_image
from gosvae.weights import CONFIG_FILE, SHA256_KEY, check_sizes, model_files, read_weights


class Fusion(ABC):
    """Rule by which a receiver makes one picture of two."""

    needs_base: bool
    """Whether the picture of the task layer is needed; its decoder does not run otherwise."""

    @abstractmethod
    def __call__(self, base_uint8_HW3: ImageArray | None, detail: Detail) -> ImageArray:
        """Return the picture, uint8 (H, W, 3).

        Args:
            base_uint8_HW3: picture of the task layer; None if it is not needed or did not arrive.
            detail: picture of the detail layer.
        """


class Selection(Fusion):
    """Use this without a trained fusion: the picture of the detail layer replaces that of the task layer."""

    needs_base = False

    def __call__(self, base_uint8_HW3: ImageArray | None, detail: Detail) -> ImageArray:
        del base_uint8_HW3
        return detail.image_uint8_HW3


class LearnedFusion(Fusion):
    """Use this for perception models: a network that was trained by imitation puts the two pictures together.

    Compared with `Selection`, it keeps what the task layer shows and the detail layer blurs, and restores the picture
    of the detail layer, also where the task layer did not arrive.

    Args:
        network: trained network.
        device: device of the network.
    """

    needs_base = True

    def __init__(self, network: FusionNetwork, *, device: str | torch.device = "cpu") -> None:
        self.network, self.device = network.eval().requires_grad_(False).to(device), torch.device(device)

    def __call__(self, base_uint8_HW3: ImageArray | None, detail: Detail) -> ImageArray:
        network, (height, width) = self.network, detail.image_uint8_HW3.shape[:2]
        detail_13HW = image_to_tensor(detail.image_uint8_HW3)
        base_13HW = detail_13HW if base_uint8_HW3 is None else image_to_tensor(base_uint8_HW3)
        with_base = base_uint8_HW3 is not None
        conditions_P = conditions_of(detail, with_base=with_base)
        condition_1P = torch.tensor([conditions_P], dtype=torch.float32, device=self.device)

        def fuse(part_1Chw: Tensor, margins: Margins) -> Tensor:
            return without_margins(network.fuse(part_1Chw, condition_1P), margins, UNSHUFFLE)

        with torch.inference_mode():
            both_1Chw = network.gathered(base_13HW, detail_13HW).to(self.device)
            fused_13HW = decode_in_tiles(fuse, both_1Chw, UNSHUFFLE, network.config.halo)
        return tensor_to_image(fused_13HW[..., :height, :width])


def conditions_of(detail: Detail, *, with_base: bool) -> list[float]:
    """Return the description of the layers for a fusion network (`gosvae.nn.fusion.conditions`)."""
    height, width = detail.image_uint8_HW3.shape[:2]
    rate_bpp = 8 * detail.payload_bytes / (height * width)
    return conditions(rate_bpp, detail.quality, detail.reduction, with_base=with_base)


class FusionCard(Config):
    """Contents of the `config.json` of a fusion network."""

    kind: Literal["fusion"] = "fusion"
    schema_version: Literal[1] = 1
    name: str
    model: FusionConfig


def save_fusion(folder: Path, card: FusionCard, network: FusionNetwork, provenance: dict[str, Any]) -> None:
    """Write a fusion network; its files are replaced together.

    Raises:
        WriteError: there is no space or no permission; existing files are intact.
    """
    write_together(model_files(folder, to_tree(card), half_weights(network.state_dict()), provenance))


def load_fusion(folder: Path, *, device: str | torch.device = "cpu", verify: bool = True) -> LearnedFusion:
    """Read a fusion network.

    Args:
        folder: folder of the network.
        device: device of the network.
        verify: whether the weights must be those that `config.json` names by their SHA-256.

    Raises:
        CheckpointError: a file is missing or damaged, the weights are not those of the configuration, or the folder
            holds something else.
        ConfigError: `config.json` has unknown keys or impossible values.
    """
    tree = read_json(folder / CONFIG_FILE)
    if not isinstance(tree, dict) or tree.get("kind") != "fusion":
        raise CheckpointError(f"{folder} does not hold a fusion network: name the folder of one")
    sha256 = tree.pop(SHA256_KEY, None)
    card = parse(FusionCard, tree, source=str(folder / CONFIG_FILE), stored=True)
    weights = read_weights(folder, sha256, verify=verify, error=CheckpointError)
    reason = check_sizes(lambda: FusionNetwork(card.model), weights)
    if reason is not None:
        raise CheckpointError(f"the weights of {card.name!r} do not fit its configuration: {reason}")
    network = FusionNetwork(card.model).float()
    network.load_state_dict({name: value.float() for name, value in weights.items()})
    return LearnedFusion(network, device=device)
