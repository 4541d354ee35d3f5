"""Lines of `gosvae send` on what was sent and answered."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from gosvae.sender.grpc_target import GrpcTarget
from gosvae.sender.sender import UdpTarget, percentile
from gosvae.sender.target import Target
from gosvae.sender.transmitter import Transmitter
from gosvae.units import kib


async def tell(target: Target, transmitter: Transmitter, *, quiet: bool) -> None:
    """Print a line of statistics each second."""
    began_s = then_s = time.monotonic()
    sent = answered = stream_bytes = link_bytes = 0
    while not quiet:
        await asyncio.sleep(1.0)
        now_s, c = time.monotonic(), target.counters
        span_s = now_s - then_s
        frames = c.sent - sent
        line = f"{now_s - began_s:4.0f} s  {frames / span_s:5.1f} frames/s"
        line += f"  {kib((c.stream_bytes - stream_bytes) / max(frames, 1)):6.2f} KiB/frame"
        line += f"  {8 * (c.link_bytes - link_bytes) / span_s / 1000:7.1f} kbit/s"
        if isinstance(target, GrpcTarget):
            line += f"  answered {(c.answered - answered) / span_s:5.1f}/s  dropped {c.dropped.total()}"
            line += f"  round trip {milliseconds(list(c.round_trips_ms)[-50:], 50)}"
        print(f"{line}  skipped {transmitter.counters.skipped}", flush=True)
        then_s, sent, answered = now_s, c.sent, c.answered
        stream_bytes, link_bytes = c.stream_bytes, c.link_bytes


def milliseconds(values: deque[float] | list[float], percent: float) -> str:
    """Return a percentile of times in milliseconds as text; a dash if no frame was answered yet."""
    return f"{percentile(values, percent):.0f} ms" if values else "-"


def print_summary(target: Target, transmitter: Transmitter, seconds: float) -> None:
    """Print the numbers of a whole run."""
    c, t = target.counters, transmitter.counters
    if not c.sent:
        return
    print(
        f"{c.sent} frames in {seconds:.1f} s: {c.sent / seconds:.1f} frames/s, {kib(c.stream_bytes / c.sent):.2f} "
        f"KiB/frame, {8 * c.link_bytes / seconds / 1000:.1f} kbit/s, coding {percentile(c.coding_ms, 50):.0f} ms; "
        f"{t.skipped} skipped, {t.forced} above the rate"
    )
    if isinstance(target, GrpcTarget):
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(c.dropped.items()))
        print(
            f"{c.answered} answered, {reasons or '0'} dropped, {target.unanswered} without an answer; round trip "
            f"{milliseconds(c.round_trips_ms, 50)} (99th percentile {milliseconds(c.round_trips_ms, 99)})"
        )
        if c.reconnections:
            print(f"connected again {c.reconnections} times: {c.sent_again} frames sent again, {c.lost} lost")
        if c.originals_left_out:
            print(f"{c.originals_left_out} originals left out: the frames would be longer than the receiver takes")
    elif isinstance(target, UdpTarget):
        print(f"{target.sender.datagrams} datagrams, {target.sender.errors} errors")
