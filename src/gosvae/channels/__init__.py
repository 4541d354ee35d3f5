"""Channels that lose, damage or erase packets. `load_channel("packet-loss p=0.1")` makes any of them by its name."""

from gosvae.channels.base import Channel, Delivery
from gosvae.channels.bits import BinarySymmetric, BitErasure
from gosvae.channels.loss import GilbertElliott, PacketLoss
from gosvae.channels.radio import Awgn, Rayleigh
from gosvae.channels.registry import CHANNELS, load_channel

__all__ = [
    "CHANNELS",
    "Awgn",
    "BinarySymmetric",
    "BitErasure",
    "Channel",
    "Delivery",
    "GilbertElliott",
    "PacketLoss",
    "Rayleigh",
    "load_channel",
]
