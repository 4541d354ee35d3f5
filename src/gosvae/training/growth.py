"""A variable-rate network that begins with what a finished one of another size has learned.

Axis legend: D latent channels, V values of a channel, E values of an embedding.
"""

from __future__ import annotations

import re
from dataclasses import replace
from operator import le

import torch
from torch import Tensor

from gosvae.checkpoint import CodecCheckpoint, VariableRateCard, load_weights
from gosvae.codecs.variable_model import VariableRateAutoencoder, VariableRateConfig
from gosvae.nn.pyramid import PyramidConfig

_MAY_BE_NEW = ("context.", "decoder.from_lost.")
"""Not in the weights of every checkpoint: the context model is kept apart, and older decoders knew no losses."""
_SILENT = ("decoder.from_latent.weight", "context.embedding")
"""What takes in the latent: new channels begin without influence."""
_OF_GRID = re.compile(r"^(decoder\.(?:grids|modulations|ups)\.)(\d+)(\..*)$")


def can_grow(model: VariableRateConfig, into: VariableRateConfig) -> bool:
    """Whether a network of `into` can begin as one of `model`.

    Either they are equal but for more residual blocks in the decoder or more latent channels, or `into` has only the
    finer grids of `model`, and a latent of its own.
    """
    coarser = len(model.pyramid.decoder_widths) - len(into.pyramid.decoder_widths)
    if coarser > 0:
        return _finer_grids(model.pyramid, -coarser) == into.pyramid.model_copy(
            update={"encoder_blocks": model.pyramid.encoder_blocks[:-coarser]}
        )
    blocks = into.pyramid.decoder_blocks
    pyramid = model.pyramid.model_copy(update={"decoder_blocks": blocks})
    context = model.context.model_copy(update={"channels": into.context.channels})
    same = model.model_copy(update={"pyramid": pyramid, "context": context}) == into
    deep_enough = all(map(le, model.pyramid.decoder_blocks, blocks))
    return same and deep_enough and model.context.channels <= into.context.channels


def _finer_grids(pyramid: PyramidConfig, end: int) -> PyramidConfig:
    return PyramidConfig(
        encoder_widths=pyramid.encoder_widths[:end],
        encoder_blocks=pyramid.encoder_blocks[:end],
        decoder_widths=pyramid.decoder_widths[:end],
        decoder_blocks=pyramid.decoder_blocks[:end],
    )


@torch.no_grad()
def begin_as(network: VariableRateAutoencoder, source: CodecCheckpoint) -> None:
    """Give the network what a codec of a model that `can_grow` into its own has learned.

    New residual blocks begin as the identity. New channels of the latent are what the encoder happens to make of the
    image; the decoder and the context model of the old ones do not see them yet. A network of fewer grids takes over
    the weights of its own grids; its latent and its context model are new.

    Raises:
        CheckpointError: the weights are not those of their configuration.
    """
    assert isinstance(source.card, VariableRateCard)
    donor = VariableRateAutoencoder(source.card.model)
    own = {name: value for name, value in donor.state_dict().items() if name.startswith(_MAY_BE_NEW)}
    load_weights(donor, replace(source, weights=own | source.weights))
    donor.context.thaw(source.context)
    coarser = len(donor.config.pyramid.decoder_widths) - len(network.config.pyramid.decoder_widths)
    if coarser > 0:
        _take_finer_grids(network.state_dict(), donor.state_dict(), coarser)
        return
    given = donor.state_dict()
    for name, value in network.state_dict().items():
        if name in given:
            if name in _SILENT and value.shape != given[name].shape:
                value.zero_()
            value[tuple(slice(n) for n in given[name].shape)] = given[name]
    # The row of unknown positions is behind those of all channels.
    unknown_E = given["context.embedding"][-1]
    network.context.embedding[len(given["context.embedding"]) - 1 :] = 0.0
    network.context.embedding[-1] = unknown_E


def _take_finer_grids(own: dict[str, Tensor], given: dict[str, Tensor], coarser: int) -> None:
    """Copy what belongs to both; a decoder counts its grids from the coarsest."""
    for name, value in own.items():
        found = _OF_GRID.match(name)
        theirs = f"{found[1]}{int(found[2]) + coarser}{found[3]}" if found else name
        shared = found or name.startswith(("encoder.body.", "decoder.to_image."))
        if shared and theirs in given and given[theirs].shape == value.shape:
            value.copy_(given[theirs])
