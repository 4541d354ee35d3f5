"""A semantic diffusion model that draws in milliseconds, with random weights."""

from __future__ import annotations

from typing import Any

import torch

from gosvae.codecs.cards import GescoCard
from gosvae.codecs.checkpoint import CodecCheckpoint, half_weights
from gosvae.config import parse
from gosvae.diffusion import DiffusionConfig
from gosvae.experts.base import Expert
from gosvae.nn.semantic_unet import SemanticUNet
from gosvae.seeding import seed_everything
from tiny import expert


def gesco_model(**more: Any) -> dict[str, Any]:
    """Settings of a small model, as they stand in a recipe's file."""
    return {
        "patch": 2,
        "width": 8,
        "multipliers": [1, 2],
        "blocks": 1,
        "attention_strides": [2],
        "head_width": 8,
        "spade_width": 8,
        "prediction": "image",
        "sampler": "ddim",
        "sampling_steps": 3,
        **more,
    }


def gesco_checkpoint(trained_with: Expert | None = None, *, seed: int = 0) -> CodecCheckpoint:
    """A codec with random weights everywhere: also where training starts at zero."""
    made = trained_with or expert()
    model = parse(DiffusionConfig, gesco_model(class_count=len(made.info.class_names)))
    seed_everything(seed)
    network = SemanticUNet(model, model.label_channels(model.class_count))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 4 and not parameter.any():
                parameter.normal_(std=0.05)
    card = GescoCard(name="tiny-gesco", recipe="none", model=model, expert=made.reference())
    weights = half_weights(network.state_dict())
    return CodecCheckpoint(card, weights, torch.empty(0, dtype=torch.int64), {"dataset": "none"})
