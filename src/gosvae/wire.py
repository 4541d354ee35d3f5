"""Numbers in packets and messages. A number is never changed and never used again for something else.

`tests/golden/test_wire_numbers.py` freezes them. `docs/link.md` has the layout of packets, `protocol/proto/link.proto`
that of messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

PACKET_FIRST_BYTE = 0xCA
"""First byte of a packet; a stream begins with C7."""
PACKET_VERSION = 2
"""Version of the packet format that is written, in the upper half of the second byte. Version 1 is read for ever."""
PACKET_FLAG_INTERLEAVED = 1
"""Flag, in the lower half of the second byte: the slices of the stream are interleaved."""
PACKET_FLAG_FRAGMENT = 2
"""Flag, in the lower half of the second byte: the packet holds a part of one slice."""
PACKET_FLAG_LAYERED = 4
"""Flag, in the lower half of the second byte: the body begins with the number of slices of the detail layer, less 1."""

REPAIR_FIRST_BYTE = 0xCB
"""First byte of a repair packet."""
REPAIR_VERSION = 1
"""Version of the repair packet format, in the upper half of the second byte."""

SEALED_FIRST_BYTE = 0xCC
"""First byte of a sealed datagram."""
SEALED_VERSION = 1
"""Version of the format of sealed datagrams, in the upper half of the second byte."""

COMPACT_FIRST_BYTE = 0xCD
"""First byte of a compact packet of a video."""

VIDEO_VERSION = 1
"""Version of the frames of videos without a container in messages, which a receiver announces in its `Welcome`."""

CLASS_MAP_CODINGS: Mapping[str, int] = MappingProxyType({"zlib": 4, "none": 3})
"""Numbers of the codings of class maps, as in `ClassMapCoding` of link.proto; 0 stands for `zlib`.

1 (PNG) and 2 (run lengths) are reserved: version 0.1 wrote them.
"""

ARRAY_TYPES: Mapping[str, int] = MappingProxyType({"uint8": 1, "uint16": 2, "float16": 3, "float32": 4})
"""Numbers of the types of values in arrays, as in `ArrayType` of link.proto."""

REASONS: Mapping[str, int] = MappingProxyType(
    {
        "malformed": 1,
        "damaged": 2,
        "foreign": 3,
        "too-large": 4,
        "queue-full": 5,
        "superseded": 6,
        "stale": 7,
        "failed": 8,
        "shutdown": 9,
        "incomplete": 10,
        "gone": 11,
    }
)
"""Numbers of the reasons for which a frame is dropped, as in `RefusalReason` of link.proto."""
