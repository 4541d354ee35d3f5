"""Names of the channels: a specification `NAME KEY=VALUE ...` becomes a `Channel`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gosvae.channels.base import Channel
from gosvae.channels.bits import BinarySymmetric, BitErasure
from gosvae.channels.loss import GilbertElliott, PacketLoss
from gosvae.channels.radio import Awgn, Rayleigh
from gosvae.config import parse
from gosvae.errors import ConfigError, unknown_name

_MEMBERS: tuple[type[Channel], ...] = (BinarySymmetric, BitErasure, PacketLoss, GilbertElliott, Awgn, Rayleigh)

CHANNELS: Mapping[str, type[Channel]] = MappingProxyType({member.name: member for member in _MEMBERS})
"""Channels, by the name that their specification begins with."""


def load_channel(spec: str) -> Channel:
    """Return the channel that a specification describes.

    Args:
        spec: a name of `CHANNELS` and its values, for example `packet-loss p=0.1`, `gilbert-elliott loss=0.1 burst=4`,
            `awgn snr_db=8 modulation=qpsk`.

    Raises:
        ConfigError: a name or key is unknown, or a value is missing or impossible; the message lists the known ones.
    """
    name, *words = spec.split() or [""]
    if name not in CHANNELS:
        raise ConfigError(unknown_name("channel", name, CHANNELS))
    member = CHANNELS[name]
    values: dict[str, str] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not (key and separator and value) or key in values:
            why = "is given twice" if key in values else "is no KEY=VALUE"
            raise ConfigError(f"channel {name!r}: {word!r} {why}; expected {member.usage}")
        values[key] = value
    try:
        return parse(member, values, source=f"channel {name!r}")
    except ConfigError as error:
        raise ConfigError(f"{error}; expected {member.usage}") from None
