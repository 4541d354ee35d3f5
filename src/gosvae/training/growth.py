"""A variable-rate network that begins as a smaller one that is finished, and does the same until it is trained.

Axis legend: D latent channels, V values of a channel, E values of an embedding.
"""

from __future__ import annotations

from dataclasses import replace
from operator import le

import torch
from torch import Tensor

from gosvae.checkpoint import CodecCheckpoint, VariableRateCard, load_weights
from gosvae.codecs.variable_model import VariableRateAutoencoder, VariableRateConfig

_MAY_BE_NEW = ("context.", "decoder.from_lost.")
"""Not in the weights of every checkpoint: the context model is kept apart, and older decoders knew no losses."""
_SILENT = ("decoder.from_latent.weight", "context.embedding")
"""What takes in the latent: new channels begin without influence."""


def can_grow(model: VariableRateConfig, into: VariableRateConfig) -> bool:
    """Whether `into` is `model`, but for more residual blocks in the decoder or more latent channels."""
    blocks = into.pyramid.decoder_blocks
    pyramid = model.pyramid.model_copy(update={"decoder_blocks": blocks})
    context = model.context.model_copy(update={"channels": into.context.channels})
    same = model.model_copy(update={"pyramid": pyramid, "context": context}) == into
    deep_enough = all(map(le, model.pyramid.decoder_blocks, blocks))
    return same and deep_enough and model.context.channels <= into.context.channels


@torch.no_grad()
def begin_as(network: VariableRateAutoencoder, source: CodecCheckpoint) -> None:
    """Give the network what a codec of a model that `can_grow` into its own has learned.

    New residual blocks begin as the identity. New channels of the latent are what the encoder happens to make of the
    image; the decoder and the context model of the old ones do not see them yet.

    Raises:
        CheckpointError: the weights are not those of their configuration.
    """
    assert isinstance(source.card, VariableRateCard)
    donor = VariableRateAutoencoder(source.card.model)
    own = {name: value for name, value in donor.state_dict().items() if name.startswith(_MAY_BE_NEW)}
    load_weights(donor, replace(source, weights=own | source.weights))
    donor.context.thaw(source.context)
    given = donor.state_dict()
    for name, value in network.state_dict().items():
        if name in given:
            if name in _SILENT and value.shape != given[name].shape:
                value.zero_()
            _put_into_corner(value, given[name])
    # The row of unknown positions is behind those of all channels.
    unknown_E = given["context.embedding"][-1]
    network.context.embedding[len(given["context.embedding"]) - 1 :] = 0.0
    network.context.embedding[-1] = unknown_E


def _put_into_corner(larger: Tensor, smaller: Tensor) -> None:
    """Copy a tensor over the first entries of another along every axis."""
    larger[tuple(slice(n) for n in smaller.shape)] = smaller
