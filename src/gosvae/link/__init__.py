"""The link: streams to packets that may be lost, and back to what is left of the streams."""

from gosvae.link.packets import DEFAULT_MTU_BYTES, FrameInfo, Packet, Part, packetise, read_packet
from gosvae.link.protection import REPAIR_OVERHEAD_BYTES, RepairPacket, protect, read_repair
from gosvae.link.reassembly import Counters, Reassembler, ReceivedFrame
from gosvae.link.recovery import Recovery, RecoveryCounters

__all__ = [
    "DEFAULT_MTU_BYTES",
    "REPAIR_OVERHEAD_BYTES",
    "Counters",
    "FrameInfo",
    "Packet",
    "Part",
    "Reassembler",
    "ReceivedFrame",
    "Recovery",
    "RecoveryCounters",
    "RepairPacket",
    "packetise",
    "protect",
    "read_packet",
    "read_repair",
]
