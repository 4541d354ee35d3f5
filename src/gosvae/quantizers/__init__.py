"""Quantizers, from latents to indices and back. `build_quantizer` builds any of them from its configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from gosvae.config import Config
from gosvae.quantizers.base import CodebookUsage, Quantized, Quantizer, codebook_usage
from gosvae.quantizers.ema import EmaVectorQuantizer
from gosvae.quantizers.fsq import FiniteScalarQuantizer
from gosvae.quantizers.plugin import PluginConfig, build_plugin
from gosvae.quantizers.vq import VectorQuantizer

MAX_CODEBOOK_SIZE = 2**16

CodebookSize = Annotated[int, Field(ge=2, le=MAX_CODEBOOK_SIZE)]
CodeDim = Annotated[int, Field(ge=1, le=1024)]


class VqConfig(Config):
    """Configuration of `VectorQuantizer`: K codes of D channels, trained by gradients.

    Attributes:
        codebook_size: number of codes, K.
        code_dim: number of channels, D.
        cosine: whether latents and codes have unit length.
        revive_below: share of the mean usage below which a code is moved; 0 never moves one.
        usage_decay: decay of the moving usage of the codes.
        seed: seed of the random vectors to which codes are moved.
    """

    neutral: ClassVar[Mapping[str, Any]] = {
        "kind": "vq",
        "codebook_size": 512,
        "code_dim": 64,
        "cosine": False,
        "revive_below": 0.0,
        "usage_decay": 0.98,
        "seed": 0,
    }

    kind: Literal["vq"] = "vq"
    codebook_size: CodebookSize = 512
    code_dim: CodeDim = 64
    cosine: bool = False
    revive_below: float = Field(0.0, ge=0, lt=1)
    usage_decay: float = Field(0.98, gt=0, lt=1)
    seed: int = Field(0, ge=0)


class VqEmaConfig(Config):
    """Configuration of `EmaVectorQuantizer`: K codes of D channels that follow moving averages.

    Attributes:
        codebook_size: number of codes, K.
        code_dim: number of channels, D.
        decay: decay of the moving averages.
        epsilon: constant of the Laplace smoothing of the counts.
        revive_below: share of the mean count below which a code is replaced; 0 never replaces one.
        kmeans_iterations: number of iterations of the k-means that starts the codebook.
        seed: seed of the random draws.
    """

    neutral: ClassVar[Mapping[str, Any]] = {
        "kind": "vq-ema",
        "codebook_size": 512,
        "code_dim": 64,
        "decay": 0.99,
        "epsilon": 1e-05,
        "kmeans_iterations": 5,
        "revive_below": 0.03,
        "seed": 0,
    }

    kind: Literal["vq-ema"] = "vq-ema"
    codebook_size: CodebookSize = 512
    code_dim: CodeDim = 64
    decay: float = Field(0.99, gt=0, lt=1)
    epsilon: float = Field(1e-5, gt=0, le=1e-2)
    kmeans_iterations: int = Field(5, ge=0, le=100)
    revive_below: float = Field(0.03, ge=0, lt=1)
    seed: int = Field(0, ge=0)


class FsqConfig(Config):
    """Configuration of `FiniteScalarQuantizer`.

    Attributes:
        levels: number of levels of each channel; K is their product.
    """

    neutral: ClassVar[Mapping[str, Any]] = {
        "kind": "fsq",
        "levels": [8, 8, 8],
    }

    kind: Literal["fsq"] = "fsq"
    levels: tuple[Annotated[int, Field(ge=3, le=256)], ...] = Field((8, 8, 8), min_length=1, max_length=16)

    @field_validator("levels")
    @classmethod
    def _bounded(cls, levels: tuple[int, ...]) -> tuple[int, ...]:
        if math.prod(levels) > MAX_CODEBOOK_SIZE:
            raise ValueError(
                f"the product of the levels is {math.prod(levels)}, at most {MAX_CODEBOOK_SIZE} is possible"
            )
        return levels


QuantizerConfig = Annotated[VqConfig | VqEmaConfig | FsqConfig | PluginConfig, Field(discriminator="kind")]


def build_quantizer(config: VqConfig | VqEmaConfig | FsqConfig | PluginConfig) -> Quantizer:
    """Return the quantizer of a configuration, newly initialised from PyTorch's global generator.

    Raises:
        ConfigError: a plugin is not there or makes no usable quantizer.
    """
    arguments = config.model_dump(exclude={"kind"})
    match config:
        case VqConfig():
            return VectorQuantizer(**arguments)
        case VqEmaConfig():
            return EmaVectorQuantizer(**arguments)
        case FsqConfig():
            return FiniteScalarQuantizer(**arguments)
        case PluginConfig():
            return build_plugin(config, MAX_CODEBOOK_SIZE)


__all__ = [
    "CodebookUsage",
    "EmaVectorQuantizer",
    "FiniteScalarQuantizer",
    "FsqConfig",
    "PluginConfig",
    "Quantized",
    "Quantizer",
    "QuantizerConfig",
    "VectorQuantizer",
    "VqConfig",
    "VqEmaConfig",
    "build_quantizer",
    "codebook_usage",
]
