"""The link: streams to packets that may be lost, and back to what is left of the streams."""

from gosvae.link.inlet import Inlet
from gosvae.link.packets import DEFAULT_MTU_BYTES, FrameInfo, Packet, Part, packetise, read_packet
from gosvae.link.protection import REPAIR_OVERHEAD_BYTES, RepairPacket, protect, read_repair
from gosvae.link.reassembly import Counters, Reassembler, ReceivedFrame
from gosvae.link.recovery import Recovery, RecoveryCounters
from gosvae.link.udp import UdpCounters, UdpReceiver, UdpSender, serve_udp

__all__ = [
    "DEFAULT_MTU_BYTES",
    "REPAIR_OVERHEAD_BYTES",
    "Counters",
    "FrameInfo",
    "Inlet",
    "Packet",
    "Part",
    "Reassembler",
    "ReceivedFrame",
    "Recovery",
    "RecoveryCounters",
    "RepairPacket",
    "UdpCounters",
    "UdpReceiver",
    "UdpSender",
    "packetise",
    "protect",
    "read_packet",
    "read_repair",
    "serve_udp",
]
