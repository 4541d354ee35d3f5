"""Wire format for links that lose packets: streams are cut into packets and put together from those that arrive."""

from gosvae.packets.inlet import Inlet
from gosvae.packets.packet import DEFAULT_MTU_BYTES, FrameInfo, Packet, Part, packetise, read_packet
from gosvae.packets.protection import REPAIR_OVERHEAD_BYTES, RepairPacket, protect, read_repair
from gosvae.packets.reassembly import Counters, Reassembler, ReceivedFrame
from gosvae.packets.recovery import Recovery, RecoveryCounters

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
    "packetise",
    "protect",
    "read_packet",
    "read_repair",
]
