"""A compact segmentation network of dense 3x3 convolutions: the expert that ships in the package.

Depthwise convolutions are slow to train through on CPUs, so all convolutions are dense. Features at strides 4, 8 and
16 are merged before the classes are predicted at stride 4.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, model_validator
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from gosvae.config import Config, parse
from gosvae.errors import ExpertError
from gosvae.experts.base import Expert, ExpertInfo
from gosvae.nn.blocks import NormalisedResidual
from gosvae.tensors import pad_to_multiple


class CompactConfig(Config):
    """Size of a compact segmentation network; the default has 1.9 M parameters."""

    widths: tuple[int, int, int, int] = (32, 64, 96, 128)
    """Channels at strides 2, 4, 8 and 16."""
    blocks: tuple[int, int, int] = (2, 2, 3)
    """Residual blocks at strides 4, 8 and 16."""
    class_count: int = Field(gt=1, le=255)


class ExpertCard(Config):
    """What `config.json` in the folder of a compact expert holds."""

    kind: Literal["expert"] = "expert"
    schema_version: Literal[1] = 1
    name: str
    class_names: tuple[str, ...]
    input_height: int = Field(gt=0)
    input_width: int = Field(gt=0)
    network: CompactConfig

    @model_validator(mode="after")
    def _a_name_for_each_class(self) -> ExpertCard:
        if len(self.class_names) != self.network.class_count:
            raise ValueError(f"{len(self.class_names)} class_names, but network.class_count {self.network.class_count}")
        return self


def _down(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


class CompactSegmenter(nn.Module):
    """RGB (B, 3, H, W) in [0, 1] to class logits (B, m, H, W); trainable, the expert wraps it frozen."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        w2, w4, w8, w16 = config.widths
        n4, n8, n16 = config.blocks
        self.stem = _down(3, w2)
        self.stage4 = nn.Sequential(_down(w2, w4), *(NormalisedResidual(w4) for _ in range(n4)))
        self.stage8 = nn.Sequential(_down(w4, w8), *(NormalisedResidual(w8) for _ in range(n8)))
        # Growing dilation at stride 16 widens the view to most of a 256x512 picture.
        self.stage16 = nn.Sequential(_down(w8, w16), *(NormalisedResidual(w16, dilation=1 + i) for i in range(n16)))
        self.from16 = nn.Sequential(nn.Conv2d(w16, w8, 3, padding=1, bias=False), nn.BatchNorm2d(w8), nn.ReLU())
        self.merge8 = NormalisedResidual(w8)
        self.from8 = nn.Sequential(nn.Conv2d(w8, w4, 3, padding=1, bias=False), nn.BatchNorm2d(w4), nn.ReLU())
        self.merge4 = NormalisedResidual(w4)
        self.head = nn.Conv2d(w4, config.class_count, 1)

    def forward(self, x_B3HW: Tensor) -> Tensor:
        height, width = x_B3HW.shape[-2:]
        x = pad_to_multiple(x_B3HW, 16)
        f4 = self.stage4(self.stem(x * 4.0 - 2.0))
        f8 = self.stage8(f4)
        f16 = self.stage16(f8)
        f8 = self.merge8(f8 + _up2(self.from16(f16)))
        f4 = self.merge4(f4 + _up2(self.from8(f8)))
        logits = F.interpolate(self.head(f4).float(), scale_factor=4.0, mode="bilinear", align_corners=False)
        return logits[..., :height, :width]


def _up2(x_BCHW: Tensor) -> Tensor:
    return F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest")


class CompactExpert(Expert):
    """A trained `CompactSegmenter`, frozen."""

    def __init__(self, info: ExpertInfo, network: CompactSegmenter) -> None:
        super().__init__(info)
        self.network = network
        self.freeze()

    def class_logits(self, x_B3HW: Tensor) -> Tensor:
        """Logits (B, m, H, W)."""
        logits: Tensor = self.network(x_B3HW)
        return logits


def load_compact_expert(folder: Path) -> CompactExpert:
    """Load `config.json` and `weights.safetensors` (any float precision, used in float32).

    Raises:
        ExpertError: a file is missing or the weights do not fit the configuration.
        ConfigError: `config.json` has unknown keys or impossible values.
    """
    config_path, weights_path = folder / "config.json", folder / "weights.safetensors"
    for path in (config_path, weights_path):
        if not path.is_file():
            raise ExpertError(f"{folder} is not an expert: {path.name} is missing; make one with gosvae train-expert")
    try:
        tree = json.loads(config_path.read_text(encoding="utf-8"))
    except ValueError:
        raise ExpertError(f"{config_path} is not valid JSON") from None
    card = parse(ExpertCard, tree, source=str(config_path))
    network = CompactSegmenter(card.network)
    try:
        network.load_state_dict({k: v.float() for k, v in load_file(weights_path).items()})
    except Exception as error:
        raise ExpertError(f"{weights_path} does not fit {config_path.name}: {str(error).splitlines()[0]}") from None
    info = ExpertInfo(card.name, card.class_names, card.input_height, card.input_width)
    return CompactExpert(info, network)


def random_compact_expert(class_names: tuple[str, ...], *, height: int = 256, width: int = 512) -> CompactExpert:
    """An untrained expert with random weights, for tests and dry runs."""
    config = CompactConfig(widths=(8, 8, 8, 8), blocks=(1, 1, 1), class_count=len(class_names))
    return CompactExpert(ExpertInfo("random", class_names, height, width), CompactSegmenter(config))


def count_parameters(network: nn.Module) -> int:
    """Number of parameters, trainable or not."""
    return sum(p.numel() for p in network.parameters())


def balanced_class_weights(counts_m: Tensor, *, floor: float = 1.02) -> Tensor:
    """Class weights 1 / log(floor + share) (Paszke et al. 2016, ENet), for label counts of shape (m,)."""
    share_m = counts_m.double() / counts_m.sum().clamp_min(1)
    weights_m = 1.0 / torch.log(floor + share_m)
    return (weights_m / weights_m.mean()).float()
