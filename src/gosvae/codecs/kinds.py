"""Kinds of trained codecs, with one record for each; no other module distinguishes kinds.

A new kind needs a card in `cards.py`, a class with a transform and a latent coder, and a record here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch

from gosvae.codecs.autoencoder import AutoencoderCodec, AutoencoderOptions
from gosvae.codecs.cards import AutoencoderCard, Card, GescoCard, VariableRateCard, VqCard
from gosvae.codecs.checkpoint import CodecCheckpoint
from gosvae.codecs.gesco import GescoCodec, GescoOptions
from gosvae.codecs.slices import StreamOptions
from gosvae.codecs.trained import TrainedCodec
from gosvae.codecs.variable import VariableRateCodec, VariableRateOptions
from gosvae.codecs.vq import VqCodec, VqOptions
from gosvae.entropy.ids import EntropyModelId
from gosvae.errors import ConfigError
from gosvae.precision import Precision


class Builder(Protocol):
    """Function that makes the codec of a checkpoint, such as the class of a kind."""

    def __call__(self, checkpoint: CodecCheckpoint, *, options: Any, device: str | torch.device) -> TrainedCodec: ...


@dataclass(frozen=True)
class CodecKind:
    """A kind of trained codec.

    Attributes:
        card: type of the contents of `config.json`.
        options: type of the options, a dataclass; options that are not a field of it are refused.
        build: function that makes the codec.
        context_id: id of the entropy model whose weights a checkpoint of this kind may hold beside the codec.
    """

    card: type[Card]
    options: type[Any]
    build: Builder
    context_id: EntropyModelId | None = None

    @property
    def option_names(self) -> tuple[str, ...]:
        """Names of the options."""
        return tuple(field.name for field in fields(self.options))


KINDS: Mapping[str, CodecKind] = {
    "codec": CodecKind(VqCard, VqOptions, VqCodec, EntropyModelId.CONTEXT),
    "autoencoder": CodecKind(AutoencoderCard, AutoencoderOptions, AutoencoderCodec),
    "gesco": CodecKind(GescoCard, GescoOptions, GescoCodec),
    "variable-rate": CodecKind(VariableRateCard, VariableRateOptions, VariableRateCodec, EntropyModelId.LATENT_CONTEXT),
}
"""Record of every kind, by the `kind` in `config.json`."""


def chosen_options(options: StreamOptions, precision: Precision) -> dict[str, Any]:
    """Return the options that differ from their defaults, by name."""
    values = {field.name: (getattr(options, field.name), field.default) for field in fields(options)}
    chosen = {name: value for name, (value, default) in values.items() if value != default}
    return chosen if precision == "32" else {**chosen, "precision": precision}


def check_options(name: str, chosen: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Raise `ConfigError` if a codec does not have an option that was chosen."""
    unknown = [option for option in chosen if option not in known]
    if unknown:
        there = f"it has {', '.join(known)}" if known else "leave it out"
        raise ConfigError(f"{name!r} has no option {' or '.join(unknown)}: {there}", argument=unknown[0])
