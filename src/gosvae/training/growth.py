"""A variable-rate network that begins with what a finished one of another size has learned.

Axis legend: D latent channels, K of them that are taken over, A anchors, G of a group, V values,
C features, O outputs, I inputs, P passes, N positions of all images.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import replace
from operator import le

import torch
from torch import Tensor
from torch.nn import functional as F

from gosvae.checkpoint import CodecCheckpoint, VariableRateCard, load_weights
from gosvae.codecs.variable_model import VariableRateAutoencoder, VariableRateConfig
from gosvae.entropy.latent_network import LEVELS, LatentContextNetwork
from gosvae.nn.pyramid import PyramidConfig
from gosvae.tensors import ImageArray, image_to_tensor, pad_to_multiple

_MAY_BE_NEW = ("context.", "decoder.from_lost.")
"""Not in the weights of every checkpoint: the context model is kept apart, and older decoders knew no losses."""
_BY_CHANNEL = (
    "encoder.to_latent.", "log_gains_DA", "log_inverse_gains_DA", "decoder.from_latent.weight",
    "context.embedding", "context.heads.", "context.known.",
)  # fmt: skip
"""Weights that belong to single channels of the latent."""
_SURELY = 0.995
"""Probability of one value above which the context model takes a channel for silent."""
_ROOM = 2 / 7
"""Standard deviation of a channel's integers, as a share of their bound, up to which steps are made finer."""
_DEAD = 1e-3
"""Standard deviation behind the rectifier below which a feature of the encoder is dead: no gradient reaches it."""
_NEW_LATENT = 0.1
"""Standard deviation of a new channel that the encoder already fills, before `LATENT_GAIN`."""
_OF_GRID = re.compile(r"^(decoder\.(?:grids|modulations|ups)\.)(\d+)(\..*)$")


def can_grow(model: VariableRateConfig, into: VariableRateConfig) -> bool:
    """Whether a network of `into` can begin as one of `model`.

    Either they are equal but for more residual blocks in the decoder or more latent channels and their first levels,
    or `into` has only the finer grids of `model`, and a latent of its own.
    """
    coarser = len(model.pyramid.decoder_widths) - len(into.pyramid.decoder_widths)
    if coarser > 0:
        return _finer_grids(model.pyramid, -coarser) == into.pyramid.model_copy(
            update={"encoder_blocks": model.pyramid.encoder_blocks[:-coarser]}
        )
    blocks = into.pyramid.decoder_blocks
    finish = into.pyramid.finish_channels if model.pyramid.finish_channels == 0 else model.pyramid.finish_channels
    pyramid = model.pyramid.model_copy(update={"decoder_blocks": blocks, "finish_channels": finish})
    context = model.context.model_copy(
        update={"channels": into.context.channels, "first_levels": into.context.first_levels}
    )
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
def begin_as(network: VariableRateAutoencoder, source: CodecCheckpoint, *, below: int = LEVELS) -> int:
    """Give the network what a codec of a model that `can_grow` into its own has learned.

    New residual blocks begin as the identity. Where the network has more channels, or other first levels, those of the
    codec that fell silent are left out; the others keep their order, and behind them are new ones, of which decoder and
    context model know nothing yet. Those that begin at the level `below` or later are new too. A network of fewer grids
    takes over the weights of its own grids; its latent and its context model are new.

    Returns:
        How many channels were taken over.

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
        return 0
    same = network.config.context == donor.config.context and below == LEVELS
    channels_K = torch.arange(donor.config.context.channels) if same else heard_channels(donor)
    channels_K = channels_K[donor.config.context.first_level_of_each_channel()[channels_K] < below]
    given = donor.state_dict()
    for name, value in network.state_dict().items():
        if name in given and value.shape == given[name].shape and not name.startswith(_BY_CHANNEL):
            value.copy_(given[name])
    _take_channels(network, donor, channels_K)
    _take_symbols(network.context, donor.context, channels_K)
    return len(channels_K)


def heard_channels(donor: VariableRateAutoencoder) -> Tensor:
    """Channels (K,) of the latent that differ from place to place at the highest level, as the context model knows."""
    return (_highest_level(donor.context).amax(dim=1) < _SURELY).nonzero().flatten()


def _highest_level(network: LatentContextNetwork) -> Tensor:
    """Probabilities (D, V) at the highest level that the context model gives where it knows nothing of the image."""
    zeros_1G = torch.full((1, network.config.group), network.config.bound)
    h_1C = network.features(network.look(network.level_table()[-1:], None, 0))
    p_GV = []
    for g in range(network.config.groups):
        p_GV.append((network.logits(h_1C, g)[0] * math.log(2.0)).softmax(dim=1))
        if g + 1 < network.config.groups:
            h_1C = network.with_group(h_1C, g, zeros_1G)
    return torch.cat(p_GV)


@torch.no_grad()
def make_finer(network: VariableRateAutoencoder, factor: float) -> None:
    """Give high levels finer quantizer steps, where the integers have room; what the decoder gets stays as large.

    At the highest level steps become up to `factor` times finer, as long as the standard deviation of a channel's
    integers, as the context model knows it, stays within 2/7 of their bound. Below it the factor falls geometrically
    to 1 at the middle level.
    """
    config = network.config.context
    p_DV = _highest_level(network.context)
    values_V = torch.arange(config.values) - float(config.bound)
    mean_D1 = (p_DV @ values_V)[:, None]
    deviation_D = (p_DV * (values_V - mean_D1).square()).sum(dim=1).sqrt()
    factor_D = (_ROOM * config.bound / deviation_D.clamp_min(1e-6)).clamp(1.0, factor)
    share_A = (2.0 * torch.linspace(0.0, 1.0, config.anchors) - 1.0).clamp_min(0.0)
    finer_DA = factor_D.log()[:, None] * share_A
    network.log_gains_DA.add_(finer_DA)
    network.log_inverse_gains_DA.sub_(finer_DA)


@torch.no_grad()
def wake_features(network: VariableRateAutoencoder, images: Iterable[ImageArray], old: int) -> int:
    """Give life to features of the encoder that are 0 on all images, so that gradients reach them again.

    Their bias becomes one with which they are above 0 at half of the positions. The first `old` channels of the latent
    do not hear them yet; those behind carry what the woken features have that the others do not: the principal
    components of what a linear prediction from the others leaves, the largest first, all made equally large.

    Returns:
        How many features were woken.
    """
    encoder, stride = network.encoder, network.stride
    before_CN = torch.cat(
        [encoder.body(pad_to_multiple(image_to_tensor(image), stride) - 0.5)[0].flatten(1) for image in images], dim=1
    )
    dead_C = F.relu(before_CN).std(dim=1) < _DEAD
    medians_C = before_CN.median(dim=1).values
    last_bias_C = list(encoder.body.parameters())[-1]
    last_bias_C[dead_C] -= medians_C[dead_C]
    encoder.to_latent.weight[:, dead_C] = 0.0
    new = len(encoder.to_latent.weight) - old
    if new == 0 or not dead_C.any():
        return int(dead_C.sum())
    woken_NC = F.relu(before_CN[dead_C] - medians_C[dead_C, None]).T
    alive_NC = F.relu(before_CN[~dead_C]).T
    known_NC = torch.cat([alive_NC, torch.ones(len(alive_NC), 1)], dim=1)
    predictor_CC = torch.linalg.lstsq(known_NC, woken_NC, driver="gelsd").solution
    rest_NC = woken_NC - known_NC @ predictor_CC
    _, spreads_C, directions_CC = torch.linalg.svd(rest_NC, full_matrices=False)
    new = min(new, len(spreads_C))
    scale_C1 = _NEW_LATENT * len(rest_NC) ** 0.5 / spreads_C[:new, None]
    assert encoder.to_latent.bias is not None
    rows_CC = scale_C1 * directions_CC[:new]
    own = slice(old, old + new)
    encoder.to_latent.weight[own, dead_C, 0, 0] = rows_CC
    encoder.to_latent.weight[own, ~dead_C, 0, 0] = -rows_CC @ predictor_CC[:-1].T
    encoder.to_latent.bias[own] = -rows_CC @ predictor_CC[-1]
    return int(dead_C.sum())


def _take_channels(network: VariableRateAutoencoder, donor: VariableRateAutoencoder, channels_K: Tensor) -> None:
    """Encoder, gains and decoder: first the donor's channels, then new ones that the decoder does not hear yet."""
    n = len(channels_K)
    ours, theirs = network.encoder.to_latent, donor.encoder.to_latent
    assert ours.bias is not None
    assert theirs.bias is not None
    ours.weight[:n], ours.bias[:n] = theirs.weight[channels_K], theirs.bias[channels_K]
    if n < len(ours.weight):
        ours.weight[n:] *= ours.weight[:n].norm() / ours.weight[n:].norm() * ((len(ours.weight) - n) / n) ** 0.5
    network.log_gains_DA[:n] = donor.log_gains_DA[channels_K]
    network.log_inverse_gains_DA[:n] = donor.log_inverse_gains_DA[channels_K]
    network.decoder.from_latent.weight[:, n:] = 0.0
    network.decoder.from_latent.weight[:, :n] = donor.decoder.from_latent.weight[:, channels_K]


def _take_symbols(network: LatentContextNetwork, donor: LatentContextNetwork, channels_K: Tensor) -> None:
    """The context model's rows of each channel's values; rows of new channels begin without influence."""
    n, values, group = len(channels_K), donor.config.values, donor.config.group

    def rows(channels: Tensor) -> Tensor:
        return (channels[:, None] * values + torch.arange(values)).flatten()

    network.embedding[:-1] = 0.0
    network.embedding[: n * values] = donor.embedding[rows(channels_K)]
    network.embedding[-1] = donor.embedding[-1]  # of unknown positions
    for i, channel in enumerate(channels_K.tolist()):
        (g, place), (old_g, old_place) = divmod(i, group), divmod(channel, group)
        here, there = rows(torch.tensor([place])), rows(torch.tensor([old_place]))
        own, other = network.heads[g].state_dict(), donor.heads[old_g].state_dict()
        own["weight_OI"][here], own["bias_PO"][:, here] = other["weight_OI"][there], other["bias_PO"][:, there]
        if g < len(network.known) and old_g < len(donor.known):
            network.known[g][here] = donor.known[old_g][there]


def _take_finer_grids(own: dict[str, Tensor], given: dict[str, Tensor], coarser: int) -> None:
    """Copy what belongs to both; a decoder counts its grids from the coarsest."""
    for name, value in own.items():
        found = _OF_GRID.match(name)
        theirs = f"{found[1]}{int(found[2]) + coarser}{found[3]}" if found else name
        shared = found or name.startswith(("encoder.body.", "decoder.to_image."))
        if shared and theirs in given and given[theirs].shape == value.shape:
            value.copy_(given[theirs])
