"""Damaged and forged sequences: they are refused with a `BitstreamError`, or decode to symbols that encode to them."""

from __future__ import annotations

from io import BytesIO

import numpy as np

from gosvae.codecs.sequence.file import SequenceFile, SequenceWriter
from gosvae.codecs.sequence.format import CHECK_BYTES, HEADER_BYTES, Mode, checksum, is_session
from gosvae.errors import BitstreamError
from gosvae.seeding import numpy_generator
from tiny import sequence_codec, streets


def coded(count: int = 5) -> list[bytes]:
    """Frames of a moving street."""
    encoder = sequence_codec(level=100).encoder(64, 96, frames_per_second=10.0)
    return [encoder.encode(np.roll(streets()[0].image_uint8_HW3, number, axis=1)) for number in range(count)]


def mutated(data: bytes, generator: np.random.Generator) -> bytes:
    """The bytes with a few of them changed, cut off or put in."""
    changed = bytearray(data)
    for _ in range(int(generator.integers(1, 4))):
        place = int(generator.integers(len(changed)))
        kind = int(generator.integers(4))
        if kind == 0:
            changed[place] ^= 1 << int(generator.integers(8))
        elif kind == 1:
            changed[place] = int(generator.integers(256))
        elif kind == 2 and len(changed) > 4:
            del changed[place:]
        else:
            changed.insert(place, int(generator.integers(256)))
        if not changed:
            return b"\0"
    return bytes(changed)


def test_forged_frames_are_refused_or_are_streams() -> None:
    codec, frames, generator = sequence_codec(level=100), coded(), numpy_generator("sequences")
    accepted = 0
    for number in range(600):
        decoder = codec.decoder()
        which = number % len(frames)
        for data in frames[:which]:
            decoder.decode_latent(data)
        key = is_session(frames[which])
        body = mutated(frames[which][HEADER_BYTES * key : -CHECK_BYTES], generator)
        reference = decoder.newest
        seed = 0 if reference is None or body[0] >> 6 == Mode.INTRA else reference.checksum
        forged = frames[which][: HEADER_BYTES * key] + body + checksum(body, seed)
        try:
            latent = decoder.decode_latent(forged)
        except BitstreamError:
            continue
        accepted += 1
        assert latent.symbols.shape == (8, 4, 6)
        assert 0 <= latent.symbols.min() <= latent.symbols.max() <= 6
    assert accepted < 300


def test_damaged_files_are_refused_or_read_as_far_as_they_go() -> None:
    stream = BytesIO()
    with SequenceWriter(stream) as writer:
        for data in coded():
            writer.write(data)
        writer.hold()
    intact, generator = stream.getvalue(), numpy_generator("files")
    codec = sequence_codec(level=100)
    for _ in range(300):
        try:
            file = SequenceFile(mutated(intact, generator))
            decoder = codec.decoder()
            for _, data in file.frames():
                if data:
                    decoder.decode_latent(data)
            file.headers()
        except BitstreamError:
            continue
