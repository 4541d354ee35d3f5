"""Every number on the wire, frozen: one that changes here makes packets and messages of other versions unreadable.

New numbers are added to these tables; none is changed, removed or used again.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from gosvae import wire
from gosvae.bitstream import Header, pack_slices
from gosvae.packets import Packet, Part, RepairPacket, packetise, protect, read_packet, read_repair
from gosvae.protocol.feedback import COMPACT_FEEDBACK_VERSION, FEEDBACK_FIRST_BYTE, FEEDBACK_VERSION
from gosvae.protocol.messages import METHOD, SERVICE, pb

FIELDS = {
    "FromSender": {"hello": 1, "frame": 2},
    "Hello": {"name": 1, "coding": 2, "codec_fingerprint": 3, "patient": 4, "results": 5},
    "Frame": {"number": 1, "stream": 2, "deadline_ms": 3, "round_trip_ms": 4, "original": 5, "video": 6},
    "FromReceiver": {"welcome": 1, "result": 2, "refusal": 3},
    "Welcome": {
        "codec": 1,
        "codec_fingerprint": 2,
        "expert": 3,
        "class_names": 4,
        "max_frame_bytes": 5,
        "max_pending_frames": 6,
        "policy": 7,
        "deadline_ms": 8,
        "experts": 9,
        "video": 10,
    },
    "Expert": {"name": 1, "task": 2, "class_names": 3},
    "TaskResult": {"expert": 1, "arrays": 2},
    "Array": {"name": 1, "shape": 2, "type": 3, "data": 4},
    "Result": {
        "number": 1,
        "height": 2,
        "width": 3,
        "coding": 4,
        "class_map": 5,
        "class_pixels": 6,
        "stages": 7,
        "stream_bytes": 8,
        "concealed_pixels": 9,
        "results": 10,
    },
    "Stages": {
        "queue_ms": 1,
        "entropy_ms": 2,
        "reconstruct_ms": 3,
        "expert_ms": 4,
        "answer_ms": 5,
        "total_ms": 6,
        "batch": 7,
    },
    "Refusal": {"number": 1, "reason": 2, "text": 3},
}


def test_numbers_of_packets() -> None:
    assert (wire.PACKET_FIRST_BYTE, wire.PACKET_VERSION) == (0xCA, 2)
    assert (wire.PACKET_FLAG_INTERLEAVED, wire.PACKET_FLAG_FRAGMENT, wire.PACKET_FLAG_LAYERED) == (1, 2, 4)
    assert (wire.REPAIR_FIRST_BYTE, wire.REPAIR_VERSION) == (0xCB, 1)
    assert (wire.SEALED_FIRST_BYTE, wire.SEALED_VERSION) == (0xCC, 1)
    assert (wire.COMPACT_FIRST_BYTE, wire.VIDEO_VERSION) == (0xCD, 1)
    assert (FEEDBACK_FIRST_BYTE, FEEDBACK_VERSION, COMPACT_FEEDBACK_VERSION) == (0xFB, 1, 2)


def test_numbers_of_messages() -> None:
    assert dict(wire.CLASS_MAP_CODINGS) == {"zlib": 4, "none": 3}
    assert dict(wire.ARRAY_TYPES) == {"uint8": 1, "uint16": 2, "float16": 3, "float32": 4}
    assert dict(wire.REASONS) == {
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
    assert (METHOD, SERVICE) == ("/gosvae.link.v1.Link/Connect", "gosvae.link.v1.Link")


@pytest.mark.parametrize("message", FIELDS)
def test_fields_of_messages(message: str) -> None:
    assert {field.name: field.number for field in getattr(pb(), message).DESCRIPTOR.fields} == FIELDS[message]


def test_there_are_no_other_messages() -> None:
    assert set(pb().DESCRIPTOR.message_types_by_name) == set(FIELDS)


def test_packets_begin_with_these_numbers() -> None:
    """The first two bytes of every kind of packet: the kind, then the version and the flags."""
    header = Header(b"mark", 12, 13, 3)
    bands = pack_slices(header, [b"a" * 20, b"b" * 20])
    interleaved = pack_slices(header, [b"a" * 20, b"b" * 20], "interleaved")
    long = pack_slices(header, [b"a" * 200, b"b" * 20], "interleaved")
    begins = {
        stream: {data[:2].hex() for data in packetise(stream, stream_id=1, frame=2, mtu_bytes=100)}
        for stream in (bands, interleaved, long)
    }
    assert begins == {bands: {"ca20"}, interleaved: {"ca21"}, long: {"ca21", "ca23"}}
    old = replace(read_packet(packetise(bands, stream_id=1, frame=2)[0]).info, checksum=None)
    assert Packet(1, 2, 0, old, (Part(0, 0, 1, b"a"),)).to_bytes()[:2].hex() == "ca10"
    repair = protect(packetise(bands, stream_id=1, frame=2), overhead=1.0)[-1]
    assert repair[:2].hex() == "cb10"
    assert isinstance(read_repair(repair), RepairPacket)
