"""Runs mutated datagrams through the receiver's way in: recovery, reassembly, deadlines, and a codec behind them.

Two inlets see the same genuine datagrams in any order, some of them late, twice or never. The first also gets those
that a line damaged: every frame that it gives back must hold what was sent or miss it. The second gets forgeries too,
whose checksums agree: it may give back frames that nobody sent, and must neither crash nor take memory. The senders of
some sessions have a key: then the first inlet gets forgeries too, and takes none of them. Findings are as in `fuzzing`.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

import numpy as np
from fuzz_targets import targets, with_context
from fuzzing import Report, memory_limit, time_limit
from mutations import DAMAGE, Mutant

from gosvae.bitstream import Header, Stream, salvage, unpack_slices
from gosvae.codecs.base import LossTolerantCodec
from gosvae.codecs.variable import VariableRateCodec
from gosvae.codecs.vq import VqCodec
from gosvae.errors import BitstreamError, PacketError
from gosvae.packets import Inlet, Reassembler, ReceivedFrame, Recovery, packetise, protect, read_packet, read_repair
from gosvae.packets.protection import is_repair
from gosvae.packets.sealed import Opener, Sealer
from gosvae.receiver.udp import UdpReceiver
from tiny import checkpoint, variable_checkpoint

MOST_BYTES = 200_000
"""That each half of an inlet may keep: little, so that the limits are reached."""
MOST_PIXELS = 2**16
"""Of a frame that is decoded as a picture."""
SESSION = 400
"""Datagrams to one pair of inlets."""
SEALED_SHARE = 0.3
"""Share of the sessions whose senders have a key."""
HEADER_BYTES = 32


KEY = bytes(range(32))
"""Key of the senders of a session with a key."""


@dataclass(frozen=True)
class Sent:
    """What the senders of a session send; with a key, also the datagram in each sealed one."""

    frames: dict[tuple[int, int], Stream]
    datagrams: list[bytes]
    sealed: dict[bytes, bytes] = field(default_factory=dict)


def senders(random: Random) -> Sent:
    """A few frames of a few streams, each with settings of its own."""
    frames: dict[tuple[int, int], Stream] = {}
    datagrams: list[bytes] = []
    streams = [data for target in targets() for data in target.streams]
    for stream_id in random.sample(range(2**32), 3):
        first = random.choice((0, 65530, random.randrange(2**16)))
        for number in range(first, first + 10):
            data = random.choice(streams)
            packets = packetise(
                data,
                stream_id=stream_id,
                frame=number,
                mtu_bytes=random.choice((64, 100, 300, 1150)),
                slices_per_packet=random.choice((1, 2, 256)),
            )
            frames[stream_id, number % 2**16] = unpack_slices(data)
            classes = [(1, 1.0)] if random.random() < 0.3 else []
            datagrams += protect(packets, overhead=random.choice((0.0, 0.25, 1.0)), classes=classes)
    return Sent(frames, datagrams)


def sealed(sent: Sent) -> Sent:
    """What the senders of a session send if they have a key."""
    sealers = {stream_id: Sealer(KEY, stream_id, now_ms=lambda: 10**12) for stream_id, _ in sent.frames}
    found = {sealers[int.from_bytes(data[2:6], "big")].seal(data): data for data in sent.datagrams}
    return Sent(sent.frames, list(found), found)


def _forge_sealed(random: Random, data: bytes) -> Mutant:
    """Another header of a sealed datagram, or a datagram that is sealed with another key."""
    if random.random() < 0.1:
        return Mutant("forged", Sealer(bytes(32), random.randrange(2**32)).seal(data), forged=True)
    where, length = random.randrange(16), random.choice((1, 2, 4))
    values = (bytes(length), b"\xff" * length, random.randbytes(length), bytes(length - 1) + b"\x01")
    return Mutant("forged", data[:where] + random.choice(values) + data[where + length :], forged=True)


def _forge(random: Random, data: bytes, others: list[bytes]) -> Mutant:
    """Another body, mostly with one of the fields at the beginning changed, and a checksum that agrees."""
    body = bytearray(data[:-4])
    if random.random() < 0.6:
        for _ in range(random.choice((1, 1, 2, 4))):
            where, length = random.randrange(min(HEADER_BYTES, len(body))), random.choice((1, 2, 4))
            values = (bytes(length), b"\xff" * length, random.randbytes(length), bytes(length - 1) + b"\x01")
            body[where : where + length] = random.choice(values)
    else:
        body = bytearray(DAMAGE[random.choice(list(DAMAGE))](random, bytes(body), others))
    if random.random() < 0.3 and len(body) > 1:  # a packet for a repair packet, and the other way round
        body[:2] = random.choice((b"\xca\x10", b"\xca\x11", b"\xca\x12", b"\xcb\x10"))
    return Mutant("forged", bytes(body) + zlib.crc32(body).to_bytes(4, "big"), forged=True)


def mutate_datagram(random: Random, sent: Sent) -> Mutant:
    """A datagram of the session: as it was sent, damaged, or forged."""
    data = random.choice(sent.datagrams)
    chance = random.random()
    if chance < 0.4:
        return Mutant("genuine", data, forged=False)
    if chance < 0.7:
        kind = random.choice(list(DAMAGE))
        return Mutant(kind, DAMAGE[kind](random, data, sent.datagrams), forged=False)
    return _forge_sealed(random, data) if sent.sealed else _forge(random, data, sent.datagrams)


def inlet() -> Inlet:
    """With limits that are soon reached."""
    return Inlet(
        50.0,
        reassembler=Reassembler(max_frames=20, max_bytes=MOST_BYTES, max_streams=50, window=6),
        recovery=Recovery(max_frames=30, max_groups=20, max_bytes=MOST_BYTES),
    )


def _check_parsing(mutant: Mutant, sent: Sent) -> str:
    """A datagram is refused, or it writes the very same bytes."""
    try:
        packet = read_repair(mutant.data) if is_repair(mutant.data) else read_packet(mutant.data)
    except PacketError:
        if mutant.data in sent.datagrams:
            raise AssertionError("a genuine datagram was refused") from None
        return "refused"
    if packet.to_bytes() != mutant.data:
        raise AssertionError("reads as what writes other bytes")
    if mutant.data in sent.datagrams:
        return "genuine"
    if not mutant.forged:
        raise AssertionError("damage passed for a datagram")
    return "accepted forgery"


def _check_opening(opener: Opener, mutant: Mutant, sent: Sent, opened: set[bytes]) -> bytes | None:
    """A sealed datagram opens once, and nothing else does."""
    datagram = opener.open(mutant.data)
    if datagram is None:
        return None
    if sent.sealed.get(mutant.data) != datagram:
        raise AssertionError("a datagram opens that nobody sealed")
    if mutant.data in opened:
        raise AssertionError("a datagram opens twice")
    opened.add(mutant.data)
    return datagram


def _check_limits(way_in: Inlet) -> None:
    kept = way_in.recovery.bytes_kept, way_in.reassembler.bytes_in_flight
    if max(kept) > MOST_BYTES or min(kept) < 0:
        raise AssertionError(f"{kept} bytes kept, at most {MOST_BYTES} are allowed")
    if len(way_in.reassembler.in_flight) > 20 or len(way_in._began_s) > 41:
        raise AssertionError("more frames in flight than allowed")


def _check_genuine(frame: ReceivedFrame, sent: Sent) -> None:
    """Every slice is the one that was sent, or missing."""
    whole, left = sent.frames[frame.stream_id, frame.frame], salvage(frame.stream)
    short = Header(whole.header.fingerprint[:4], whole.header.height, whole.header.width, whole.header.entropy_model_id)
    same = left.header == short and left.damaged == frame.missing and len(left.slices) == len(whole.slices)
    if not same or any(a not in (None, b) for a, b in zip(left.slices, whole.slices, strict=True)):
        raise AssertionError("silently wrong: a frame holds what was not sent")


def _check_any(frame: ReceivedFrame, codecs: list[LossTolerantCodec]) -> str:
    """What a receiver does with a frame that may be forged."""
    left = salvage(frame.stream)
    if left.damaged != frame.missing:
        raise AssertionError("a frame that misses other slices than it says")
    if left.header.height * left.header.width > MOST_PIXELS:
        return "frame, not drawn"
    for codec in codecs:
        try:
            shown = codec.decompress_damaged(frame.stream)
        except BitstreamError:
            continue
        size_hw = (left.header.height, left.header.width)
        if shown.image_uint8_HW3.shape != (*size_hw, 3) or shown.concealed_HW.shape != size_hw:
            raise AssertionError(f"a picture of {shown.image_uint8_HW3.shape}")
        task_count = len(left.slices) - left.detail_count  # a lost detail layer leaves nothing to conceal
        if np.any(shown.concealed_HW) != any(number < task_count for number in left.damaged):
            raise AssertionError("marks that do not fit what is missing")
        return "frame, drawn"
    return "frame, refused"


def tolerant_codecs() -> list[LossTolerantCodec]:
    """Those of the targets whose streams travel, warmed up: what is set up at the first use is no datagram's fault."""
    codecs: list[LossTolerantCodec] = [
        VqCodec(with_context(checkpoint(), 16, (16,))),
        VariableRateCodec(variable_checkpoint()),
    ]
    for codec in codecs:
        for target in targets():
            for data in target.streams:
                with suppress(BitstreamError):
                    codec.decompress_damaged(data)
    return codecs


def run_datagram_fuzz(
    count: int, *, seed: int = 0, progress: Callable[[int], None] | None = None
) -> tuple[Report, dict[str, int]]:
    """Try `count` datagrams; returns the report and what the inlets that saw forgeries counted in all."""
    codecs = tolerant_codecs()
    report, counters = Report(), {}
    for start in range(0, count, SESSION):
        if progress is not None:
            progress(start)
        random = Random(f"datagrams {seed} {start}")
        sent = senders(random)
        sent = sealed(sent) if random.random() < SEALED_SHARE else sent
        with memory_limit(report):
            counted = _session(random, sent, start, min(SESSION, count - start), codecs, report)
        for name, number in counted.items():
            counters[name] = counters.get(name, 0) + number
    return report, counters


def _session(
    random: Random, sent: Sent, start: int, count: int, codecs: list[LossTolerantCodec], report: Report
) -> dict[str, int]:
    clean, open_to_all, now_s = inlet(), inlet(), 0.0
    opener, opened = Opener(KEY), set[bytes]()
    for number in range(start, start + count):
        mutant = mutate_datagram(random, sent)
        now_s += random.choice((0.0, 0.001, 0.02))
        began = time.process_time()
        try:
            with time_limit():
                if sent.sealed:
                    datagram = _check_opening(opener, mutant, sent, opened)
                    outcome = "not opened" if datagram is None else "opened"
                    for frame in clean.expire(now_s) + ([] if datagram is None else clean.add(datagram, now_s)):
                        _check_genuine(frame, sent)
                else:
                    outcome = _check_parsing(mutant, sent)
                if not mutant.forged and not sent.sealed:
                    for frame in clean.expire(now_s) + clean.add(mutant.data, now_s):
                        _check_genuine(frame, sent)
                for frame in open_to_all.expire(now_s) + open_to_all.add(mutant.data, now_s):
                    report.outcomes["frames", _check_any(frame, codecs)] += 1
                    report.salvaged += bool(frame.missing)
                _check_limits(clean)
                _check_limits(open_to_all)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            outcome = f"finding: {type(error).__name__}"
            report.findings.append(f"number {number}, {mutant.kind}: {outcome}: {error}: {mutant.data.hex()}")
        report.outcomes[mutant.kind, outcome] += 1
        seconds = time.process_time() - began
        report.slowest_seconds = max(report.slowest_seconds, (seconds, number))
        report.seconds += seconds
    for frame in clean.flush():
        _check_genuine(frame, sent)
    names = ("recovered", "given_up", "unusable", "evicted")
    return {name: getattr(open_to_all.recovery.counters, name) for name in names}


def run_receiver_fuzz(count: int, *, seed: int = 0, key: bytes | None = None) -> tuple[int, int]:
    """The same datagrams straight into a UDP receiver; returns how many it counted and how many frames it gave."""
    random = Random(f"receiver {seed}")
    frames: list[ReceivedFrame] = []

    async def run() -> int:
        receiver = await UdpReceiver.open("127.0.0.1", 0, frames.append, inlet=inlet(), max_frames=16, key=key)
        async with receiver:
            for start in range(0, count, SESSION):
                sent = senders(random) if key is None else sealed(senders(random))
                for _ in range(min(SESSION, count - start)):
                    receiver.datagram_received(mutate_datagram(random, sent).data, ("127.0.0.1", 9))
                    _check_limits(receiver.inlet)
                    assert len(receiver._queue) <= 16
                await asyncio.sleep(0)
        return receiver.counters.datagrams

    return asyncio.run(run()), len(frames)
