"""The link: streams to packets that may be lost, and back to what is left of the streams."""

from gosvae.link.packets import DEFAULT_MTU_BYTES, FrameInfo, Packet, Part, packetise, read_packet
from gosvae.link.reassembly import Counters, Reassembler, ReceivedFrame

__all__ = [
    "DEFAULT_MTU_BYTES",
    "Counters",
    "FrameInfo",
    "Packet",
    "Part",
    "Reassembler",
    "ReceivedFrame",
    "packetise",
    "read_packet",
]
