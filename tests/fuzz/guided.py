"""Streams that atheris chooses by the code that they reach: the payloads and sizes of forged streams of every codec."""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gosvae.bitstream", "gosvae.codecs", "gosvae.entropy"]):
    from fuzz_targets import Target, targets
    from fuzzing import announced_pixels
    from mutations import fields_of, write

    from gosvae.bitstream import unpack_slices
    from gosvae.errors import BitstreamError

MOST_PIXELS = 2**20
"""Of a stream that is tried: others take the time of many."""


def forged(target: Target, data: bytes) -> bytes:
    """A stream of the target: byte 0 chooses one to begin with, bytes 1 to 4 its sides, the rest is its payload."""
    head = data[:5].ljust(5, b"\0")
    fields = fields_of(unpack_slices(target.streams[head[0] % len(target.streams)]))
    height, width = (int.from_bytes(head[place : place + 2], "big") for place in (1, 3))
    payloads = (data[5:] or fields.payloads[0], *fields.payloads[1:])
    return write(replace(fields, height=height or fields.height, width=width or fields.width, payloads=payloads))


def check(target: Target, data: bytes) -> None:
    """A stream is refused, or what it decodes to encodes to the very same bytes."""
    if announced_pixels(data) > MOST_PIXELS:
        return
    try:
        decoded = target.decode(data)
    except BitstreamError:
        return
    assert target.encode is not None
    if target.encode(unpack_slices(data), decoded) != data:
        raise AssertionError("silently wrong: decodes to what encodes to other bytes")


def run_guided(count: int, *, seed: int) -> int:
    """Try so many streams and end the process, with an error at the first finding."""
    under_attack, began = targets(), time.monotonic()
    tried = 0

    def one(data: bytes) -> None:
        nonlocal tried
        tried += 1
        if len(data) > 1:
            target = under_attack[data[0] % len(under_attack)]
            check(target, forged(target, data[1:]))
        if tried == count:
            print(f"{tried} streams in {time.monotonic() - began:.0f} s, no finding", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        for number, target in enumerate(under_attack):
            for place, data in enumerate(target.streams):
                payload = unpack_slices(data).payloads[0]
                seed_bytes = bytes([number, place, 0, 0, 0, 0]) + payload
                (Path(folder) / f"{number}-{place}").write_bytes(seed_bytes)
        atheris.Setup([sys.argv[0], f"-runs={count}", f"-seed={seed + 1}", "-max_len=4096", folder], one)
        atheris.Fuzz()
    return 0
