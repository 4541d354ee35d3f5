"""Start of a variable-rate network from a finished codec with fewer channels or residual blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from operator import le

import torch
from torch import Tensor

from gosvae.codecs.cards import VariableRateCard
from gosvae.codecs.checkpoint import CodecCheckpoint, load_weights
from gosvae.codecs.variable_model import VariableRateAutoencoder, VariableRateConfig
from gosvae.entropy.latent_network import LEVELS
from gosvae.tensors import ImageArray, image_to_tensor

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
def begin_as(network: VariableRateAutoencoder, source: CodecCheckpoint, images: Iterable[ImageArray] = ()) -> None:
    """Give the network the weights of a codec whose model can grow into its own (see `can_grow`).

    The network then makes the same pictures for the same bits. New residual blocks start as the identity. New channels
    come last, and neither the decoder nor the context model uses them yet. A new layer at full resolution takes away
    what is the same in all squares of the pictures of the images; without images it changes nothing.

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
    finish = network.decoder.finish
    if finish is not None and donor.decoder.finish is None:
        patterns = [_mean_square(network, image) for image in images]
        finish.square_3RR.sub_(torch.stack(patterns).mean(dim=0) if patterns else 0.0)


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


def _mean_square(network: VariableRateAutoencoder, image_uint8_HW3: ImageArray) -> Tensor:
    """Return the mean error (3, R, R) of the squares of an image over a few levels, less its mean over the square."""
    side = network.stride
    rows, columns = (length // side for length in image_uint8_HW3.shape[:2])
    x_13HW = image_to_tensor(image_uint8_HW3)[..., : rows * side, : columns * side]
    levels = torch.arange(1, 4) * LEVELS // 4
    latent_BDhw = network.transform(x_13HW).expand(len(levels), -1, -1, -1)
    error_B3HW = network.picture(network.scaled(latent_BDhw, levels).round(), levels) - x_13HW
    mean_3RR: Tensor = error_B3HW.reshape(len(levels), 3, rows, side, columns, side).mean(dim=(0, 2, 4))
    return mean_3RR - mean_3RR.mean(dim=(1, 2), keepdim=True)
