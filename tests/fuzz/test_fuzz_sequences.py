"""Damaged and forged sequences: they are refused with a `BitstreamError`, or decode to symbols that encode to them."""

from __future__ import annotations

import zlib
from io import BytesIO

import numpy as np

from gosvae import bitstream
from gosvae.codecs.sequence.codec import SequenceCodec
from gosvae.codecs.sequence.decoder import SequenceDecoder
from gosvae.codecs.sequence.file import SequenceFile, SequenceWriter
from gosvae.codecs.sequence.format import CHECK_BYTES, HEADER_BYTES, Mode, checksum, is_session
from gosvae.errors import BitstreamError, GosvaeError
from gosvae.packets import Inlet, ReceivedFrame, packetise
from gosvae.packets.compact import compact_packets
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


def test_forged_compact_packets_are_refused_or_are_parts() -> None:
    """Packets with right outer checksums and changed contents, between genuine ones, in any order and twice."""
    codec, generator = sequence_codec(level=100, slices=2), numpy_generator("compact")
    encoder = codec.encoder(64, 96, frames_per_second=10.0)
    sent, genuine = [], {}
    for number in range(8):
        picture = generator.integers(256, size=(64, 96, 3)).astype(np.uint8)
        encoder.encode(picture)
        assert encoder.last is not None
        genuine[number] = encoder.last.memory.symbols
        stream = codec.wrapped(encoder.parts, 64, 96)
        full = packetise(stream, stream_id=1, frame=number, slices_per_packet=1)
        sent.append(compact_packets(stream, stream_id=1, frame=number, mtu_bytes=1200) or full)
    shown = 0
    for _ in range(30):
        inlet, decoder = Inlet(), codec.decoder()
        for number, packets in enumerate(sent):
            datagrams = [data for data in packets if not number or generator.random() < 0.8]
            datagrams += [sealed(mutated(data[:-2], generator)) for data in packets if generator.random() < 0.2]
            for place in generator.permutation(len(datagrams)):
                for frame in inlet.add(datagrams[place], 0.1 * number):
                    shown += check_shown(codec, decoder, frame, genuine)
            for frame in inlet.expire(0.1 * number + 0.05):
                shown += check_shown(codec, decoder, frame, genuine)
    assert shown > 30


def sealed(data: bytes) -> bytes:
    """The datagram with the checksum of a compact packet."""
    return data + (zlib.crc32(data) & 0xFFFF).to_bytes(2, "big")


def check_shown(
    codec: SequenceCodec, decoder: SequenceDecoder, frame: ReceivedFrame, genuine: dict[int, np.ndarray]
) -> bool:
    """Whether a frame is shown; the positions that are not told as concealed are those that were sent."""
    try:
        stream = bitstream.salvage(frame.stream)
        latent = decoder.decode_parts(codec.unwrapped(stream))
    except GosvaeError:
        return False
    known_hw = np.ones(latent.grid_hw, np.bool_) if latent.known_hw is None else latent.known_hw
    assert any((latent.symbols[:, known_hw] == sent[:, known_hw]).all() for sent in genuine.values())
    return True
