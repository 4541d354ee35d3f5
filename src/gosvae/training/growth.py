"""Start of a variable-rate network from a finished codec with fewer channels or residual blocks."""

from __future__ import annotations

from dataclasses import replace
from operator import le

import torch

from gosvae.codecs.cards import VariableRateCard
from gosvae.codecs.checkpoint import CodecCheckpoint, load_weights
from gosvae.codecs.variable_model import VariableRateAutoencoder, VariableRateConfig

_MAY_BE_NEW = ("context.", "decoder.from_lost.")
"""Prefixes of weights that may be missing: of the context model, which is stored apart, and of older decoders."""


def can_grow(model: VariableRateConfig, into: VariableRateConfig) -> bool:
    """Return whether a network of `into` can start from the weights of one of `model`.

    The two must be equal, but `into` may have more residual blocks in the decoder, more latent channels, and other
    first levels of the channels.
    """
    blocks, context = into.pyramid.decoder_blocks, into.context
    finish_channels = model.pyramid.finish_channels or into.pyramid.finish_channels
    pyramid = model.pyramid.model_copy(update={"decoder_blocks": blocks, "finish_channels": finish_channels})
    widened = model.context.model_copy(update={"channels": context.channels, "first_levels": context.first_levels})
    return (
        model.model_copy(update={"pyramid": pyramid, "context": widened}) == into
        and len(model.pyramid.decoder_blocks) == len(blocks)
        and all(map(le, model.pyramid.decoder_blocks, blocks))
        and model.context.channels <= context.channels
    )


@torch.no_grad()
def begin_as(network: VariableRateAutoencoder, source: CodecCheckpoint) -> None:
    """Give the network the weights of a codec whose model can grow into its own (see `can_grow`).

    The network then makes the same pictures for the same bits. New residual blocks start as the identity. New channels
    come last, and neither the decoder nor the context model uses them yet.

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
        if name in given and value.shape == given[name].shape:
            value.copy_(given[name])
    if donor.config.context.channels < network.config.context.channels:
        _widen(network, donor)


def _widen(network: VariableRateAutoencoder, donor: VariableRateAutoencoder) -> None:
    """Copy the weights of the donor's channels into tensors that have more channels."""
    old, new = donor.config.context.channels, network.config.context.channels
    ours, theirs = network.encoder.to_latent, donor.encoder.to_latent
    assert ours.bias is not None
    assert theirs.bias is not None
    ours.weight[:old], ours.bias[:old] = theirs.weight, theirs.bias
    ours.weight[old:] *= ours.weight[:old].norm() / ours.weight[old:].norm() * ((new - old) / old) ** 0.5
    network.log_gains_DA[:old] = donor.log_gains_DA
    network.log_inverse_gains_DA[:old] = donor.log_inverse_gains_DA
    network.decoder.from_latent.weight[:, old:] = 0.0
    network.decoder.from_latent.weight[:, :old] = donor.decoder.from_latent.weight
    # One row for each value of each channel; the last row stands for positions that are not known.
    network.context.embedding[:-1] = 0.0
    network.context.embedding[: old * donor.config.context.values] = donor.context.embedding[:-1]
    network.context.embedding[-1] = donor.context.embedding[-1]
